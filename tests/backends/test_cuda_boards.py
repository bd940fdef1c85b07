"""Boards as they come: no driver, an old one, the wrong runtime, half a TensorRT. Each is told its own remedy."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import ports
import pytest
import tiny
from backends.cuda_machine import Machine, compiled
from waiting import wait_for

from vajra_edge.backends.cuda import check

HAS_CUDA_PYTHON = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None

ABSENCE = "from vajra_edge.backends import cuda\nanswer = told(cuda.absence(0))"
REASON = "from vajra_edge.backends import cuda\nanswer = cuda.reason()"
AUTO = """
from vajra_edge import device
from vajra_edge.backends import base
choice = base.select("auto", gpus=lambda: (device.Gpu(0, "Orin"),))
answer = [choice.backend.name, choice.reason, choice.instead]
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_driver_it_is_the_driver_that_is_asked_for(machine: Machine) -> None:
    found = machine.runtime().run(ABSENCE)
    assert found["kind"] == "CudaUnavailable"
    assert found["message"].startswith("CUDA has no driver here: ")
    assert found["remedy"] == check.NO_DRIVER


@pytest.mark.parametrize("code", [-1, 34, 46, 100, 802, 803, 804, 999])
def test_a_driver_that_does_not_start_is_told_by_its_code(machine: Machine, code: int) -> None:
    machine.environment["FAKE_CUDA_FAIL"] = f"cuInit:{code}"
    found = machine.driver().runtime().run(ABSENCE)
    assert (found["call"], found["code"], found["name"]) == ("cuInit", code, "CUDA_ERROR_OF_A_FAKE")
    assert found["message"] == f"cuInit: what the driver says (CUDA_ERROR_OF_A_FAKE, error {code})"
    assert found["remedy"] == str(check.ABSENT[code])


def test_a_driver_that_does_not_start_for_an_unknown_reason_is_no_driver(machine: Machine) -> None:
    machine.environment["FAKE_CUDA_FAIL"] = "cuInit:4242"
    found = machine.driver().runtime().run(ABSENCE)
    assert (found["kind"], found["code"], found["remedy"]) == ("CudaUnavailable", 4242, check.OPEN_DEVICES)


def test_devices_that_somebody_hid_are_told_as_that(machine: Machine) -> None:
    machine.environment |= {"FAKE_CUDA_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""}
    found = machine.driver().runtime().run(ABSENCE)
    assert found["message"].endswith("error 100); CUDA_VISIBLE_DEVICES is ''")
    assert found["remedy"] == "unset CUDA_VISIBLE_DEVICES"
    chosen = automatic(machine.tensorrt())
    assert chosen == ("onnxruntime", "CUDA_VISIBLE_DEVICES hides every GPU", False), "as asked for, and no trouble"


def test_a_gpu_that_is_not_there_is_told_with_how_many_are(machine: Machine) -> None:
    found = machine.driver().runtime().run("from vajra_edge.backends import cuda\nanswer = told(cuda.absence(3))")
    assert found["message"] == "CUDA sees 1 GPUs here, none with number 3"


def test_a_machine_s_own_runtime_is_called_where_cuda_python_is_not_installed(machine: Machine) -> None:
    found = machine.driver(13020).runtime(12060).run(REASON)
    assert found.startswith("libcudart.so.12 (CUDA 12.6); not cuda-python: ")


def test_the_newest_runtime_that_the_driver_takes_is_called(machine: Machine) -> None:
    both = machine.runtime(12060).runtime(13000)
    assert both.driver(13020).run(REASON).startswith("libcudart.so.13 (CUDA 13.0)")
    assert both.driver(12060).run(REASON).startswith("libcudart.so.12 (CUDA 12.6)")


def test_a_runtime_of_a_release_that_the_driver_does_not_take_is_passed_over(machine: Machine) -> None:
    """12.9 on the 12.6 of JetPack 6."""
    found = machine.driver(12060).runtime(12090).run(ABSENCE)
    assert "works with this driver, which takes CUDA 12.6" in found["message"]
    assert "libcudart.so.12 (CUDA 12.9): CUDA driver version is insufficient" in found["message"]
    assert (found["code"], found["remedy"]) == (35, check.NEWER_DRIVER)


def test_a_driver_without_any_runtime_says_what_to_install(machine: Machine) -> None:
    found = machine.driver(11040).run(ABSENCE)
    assert "libcudart.so.12" in found["message"]
    assert "apt install nvidia-jetpack-runtime" in found["remedy"]


def test_a_library_that_lacks_a_function_is_named(machine: Machine) -> None:
    compiled(machine.folder, "libcuda.so.1", "-DRUNTIME=12060")
    found = machine.run(ABSENCE)
    assert found["message"] == "libcuda.so.1 has no cuInit"


@pytest.mark.skipif(not HAS_CUDA_PYTHON, reason="absent here: cuda-python")
def test_the_real_cuda_python_is_refused_by_a_driver_older_than_its_runtime_and_the_machine_s_own_serves(
    machine: Machine,
) -> None:
    """cuda-python 13 on JetPack 6: the trap of a wheel that carries another runtime."""
    machine.cuda_python = True
    alone = machine.driver(12060).run(ABSENCE)
    assert "cuda-python" in alone["message"]
    assert "error 35" in alone["message"]
    assert alone["remedy"] == check.NEWER_DRIVER
    found = machine.runtime(12060).run(REASON)
    assert found.startswith("libcudart.so.12 (CUDA 12.6); not cuda-python ")
    assert "cudaErrorInsufficientDriver, error 35" in found


@pytest.mark.skipif(not HAS_CUDA_PYTHON, reason="absent here: cuda-python")
def test_the_real_cuda_python_takes_what_we_pass_and_gives_a_status(machine: Machine) -> None:
    """With a driver that it refuses no call gets as far as to touch an address."""
    machine.cuda_python = True
    code = """
from cuda.bindings import runtime as module
from vajra_edge.backends.cuda import runtime
bound = runtime.BoundRuntime(module)
taken = {name: sum(not one.out for one in call.parameters) for name, call in runtime.RUNTIME.items()}
answer = {name: bound.call(name, (1,) * count)[0] for name, count in taken.items() if name != "cudaRuntimeGetVersion"}
answer["named"] = bound.named(35)
"""
    found = machine.driver(12060).run(code)
    assert found.pop("named")[0] == "cudaErrorInsufficientDriver"
    assert set(found.values()) == {35}


def test_a_gpu_is_described_by_its_driver_alone(machine: Machine) -> None:
    code = "from vajra_edge.backends import cuda\nfrom dataclasses import asdict\nanswer = asdict(cuda.describe(0))"
    assert machine.driver().run(code) == {
        "name": "Orin 40",
        "compute_capability": "8.7",
        "memory_bytes": (8 << 30) + 40,
        "integrated": True,
        "driver": "12.6",
    }


def automatic(machine: Machine) -> tuple[str, str, bool]:
    name, reason, instead = machine.run(AUTO)
    return name, reason, instead


def test_a_board_in_order_takes_tensorrt(machine: Machine) -> None:
    found = automatic(machine.driver().runtime().tensorrt())
    said, _, way = found[1].partition("; CUDA is called through ")
    assert (found[0], said, found[2]) == ("tensorrt", "Orin is seen and TensorRT 10.6.0 loads", False)
    assert way.startswith("libcudart.so.12 (CUDA 12.6)")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"runtime": 12060}, "TensorRT 10.6.0 is installed, but CUDA has no driver here"),
        ({"driver": 12060}, "TensorRT 10.6.0 is installed, but no CUDA runtime works with this driver"),
        ({"driver": 12060, "runtime": 13000}, "no CUDA runtime works with this driver, which takes CUDA 12.6"),
    ],
)
def test_without_cuda_auto_is_the_cpu_with_the_reason(machine: Machine, parts: dict[str, int], said: str) -> None:
    for part, version in parts.items():
        getattr(machine, part)(version)
    name, reason, instead = automatic(machine.tensorrt())
    assert (name, instead) == ("onnxruntime", True)
    assert said in reason
    assert "bindings" not in reason, "those are there"


def test_a_tensorrt_that_ends_its_process_ends_a_child_and_auto_is_the_cpu(machine: Machine) -> None:
    """A library of CUDA 13 with the driver of JetPack 6."""
    machine.environment["FAKE_TENSORRT_NEEDS"] = "13000"
    name, reason, instead = automatic(machine.driver(12060).runtime(12060).tensorrt())
    assert (name, instead) == ("onnxruntime", True)
    assert "TensorRT 10.6.0 ends its process when it starts (SIGABRT): createInferRuntime: Error Code 6" in reason
    assert "error: 35" in reason
    assert "2026" not in reason, "the same failure is the same reason"
    assert "this TensorRT is built for a newer CUDA than the driver takes" in reason


def test_bindings_without_their_library_say_which_is_missing(machine: Machine) -> None:
    bare = "raise ImportError('libnvinfer.so.10: cannot open shared object file: No such file or directory')"
    name, reason, instead = automatic(machine.driver().runtime().tensorrt(bare))
    assert (name, instead) == ("onnxruntime", True)
    assert "tensorrt is installed but does not load: libnvinfer.so.10" in reason
    assert "install TensorRT's libraries of the bindings' release" in reason


def test_a_library_without_bindings_says_which_is_missing(machine: Machine) -> None:
    (machine.folder / "libnvinfer.so.10").touch()
    hidden = "for name in ('tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings'): sys.modules[name] = None\n"
    name, reason, instead = machine.driver().runtime().run(hidden + AUTO)
    assert (name, instead) == ("onnxruntime", True)
    assert "libnvinfer.so.10), its Python bindings are not" in reason
    assert "apt install python3-libnvinfer" in reason


SET = """
from vajra_edge.backends import base
from vajra_edge.plans.spec import EngineSpec, Target
answer = told(base.select("tensorrt").backend.check(EngineSpec(target=Target("gpu", 0))))
"""


@pytest.mark.parametrize(
    ("needs", "parts", "said"),
    [
        (12060, ("runtime",), "CUDA has no driver here"),
        (13000, ("driver", "runtime"), "ends its process when it starts (SIGABRT)"),
    ],
)
def test_a_set_tensorrt_is_refused_before_it_can_end_the_daemon(
    machine: Machine, needs: int, parts: tuple[str, ...], said: str
) -> None:
    machine.environment["FAKE_TENSORRT_NEEDS"] = str(needs)
    for part in parts:
        getattr(machine, part)()
    found: dict[str, Any] = machine.tensorrt().run(SET)
    assert said in found["message"]
    assert found["remedy"]


SETTINGS = """
device_id = "board"
weights.path = "{folder}/net.onnx"
store.state_dir = "{folder}/state"
service.control_socket = "{folder}/control.sock"
mqtt.host = "127.0.0.1"
mqtt.port = {port}
[[cameras]]
id = "gate"
source = "{folder}/absent.mp4"
"""

ELSEWHERE = pytest.mark.long("starts a daemon; what it chooses there is tried by itself above")


@pytest.mark.parametrize(
    ("parts", "needs", "said"),
    [
        pytest.param((), 12060, "CUDA has no driver here", marks=ELSEWHERE),
        pytest.param(("driver",), 12060, "no CUDA runtime works with this driver", marks=ELSEWHERE),
        (("driver", "runtime"), 13000, "ends its process when it starts (SIGABRT)"),
    ],
)
def test_the_first_boot_of_such_a_board_serves_on_the_cpu_and_says_why(
    machine: Machine, parts: tuple[str, ...], needs: int, said: str
) -> None:
    for part in parts:
        getattr(machine, part)()
    folder = machine.tensorrt().folder
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho '0, Orin (nvgpu), N/A, N/A'\n")
    (folder / "nvidia-smi").chmod(0o755)
    (folder / "net.onnx").write_bytes(tiny.network())
    (folder / "settings.toml").write_text(SETTINGS.format(folder=folder, port=ports.free_port()))
    (folder / "cuda").mkdir()
    (folder / "cuda" / "__init__.py").write_text("raise ImportError('no cuda-python on this board')")
    machine.environment |= {"FAKE_TENSORRT_NEEDS": str(needs), "PATH": f"{folder}:{os.environ['PATH']}"}
    arguments = ("--config", str(folder / "settings.toml"))
    with machine.program("run", *arguments) as daemon:

        def status() -> Any:
            with machine.program("status", "--json", *arguments) as asked:
                answer, _ = asked.communicate(timeout=60)
            return json.loads(answer) if asked.returncode == 0 else None

        def serving() -> bool:
            assert daemon.poll() is None, "it died of asking"
            told = status()
            return bool(told) and told["phase"] == "serving"

        wait_for(serving, 200.0)
        told = status()
        daemon.terminate()
        daemon.communicate(timeout=60)
    assert daemon.returncode == 0
    assert said in told["reason"]
    assert (told["engine"]["serving"]["backend"], told["engine"]["instead"]) == ("onnxruntime", True)
    assert told["engine"]["retry_in_s"] is not None, "a driver may be up later"
