"""ONNX Runtime from memory of the GPU to memory of the GPU: a session stands in that computes where it is told to."""

from __future__ import annotations

import ctypes
import gc
import weakref
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny
from backends.cuda_emulation import EmulatedGpu

from vajra_edge.backends import onnxruntime_cuda
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.backends.onnxruntime_cuda import OnnxDeviceRunner
from vajra_edge.errors import InferenceError, PlanError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.cuda_detector import CudaDetector
from vajra_edge.inference.detector import Filter
from vajra_edge.plans.spec import EngineSpec, Target
from vajra_edge.types import Frame

ASYNC = "disable_synchronize_execution_providers"
SIGNATURE = Signature("images", "output0", Layout.RAW, 2, (128, 128), False, False, 32, tiny.NAMES)


class Session:
    """A session on the CPU behind the calls of one on a GPU.

    Attributes:
        runs: what each run was told.
        fails: with ONNX Runtime's own exception.
    """

    def __init__(self, plan: bytes, gpu: EmulatedGpu, provider: dict[str, str]) -> None:
        self._session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self._gpu, self.provider = gpu, provider
        self.runs: list[dict[str, str]] = []
        self.fails = False

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def io_binding(self) -> Any:
        bound: dict[str, Any] = {}

        def bind(name: str, kind: str, index: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
            assert (kind, index, dtype) == ("cuda", 0, np.float32)
            raw = (ctypes.c_float * int(np.prod(shape))).from_address(address)
            bound[name] = np.frombuffer(raw, np.float32).reshape(shape)

        return SimpleNamespace(bind_input=bind, bind_output=bind, bound=bound)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self.fails:
            self._session.run(["output0"], {"images": np.zeros((1, 1), np.float32)})
        self.runs.append(options)
        self._gpu.queue(int(self.provider["user_compute_stream"]), lambda: self._compute(binding.bound))

    def _compute(self, bound: dict[str, Any]) -> None:
        (bound["output0"][...],) = self._session.run(["output0"], {"images": bound["images"]})


class Machine:
    """An emulated GPU, and what was opened on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.gpu = EmulatedGpu(folder)
        self.gpu.install(monkeypatch)
        self.its_own_graph = True

        def session(plan: bytes, options: Any, provider: dict[str, str]) -> tuple[Any, bool]:
            self.session = Session(plan, self.gpu, provider)
            return self.session, self.its_own_graph

        monkeypatch.setattr(onnxruntime_cuda, "_session", session)

    def runner(self, plan: bytes | None = None) -> OnnxDeviceRunner:
        return OnnxDeviceRunner(plan or tiny.network(128, batch=2), SIGNATURE, 0, None, {"use_tf32": "0"})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(monkeypatch, tmp_path_factory.mktemp("kernels"))


def frame(seed: int) -> Frame:
    return Frame(tiny.scene(128, 3, seed).image, 0, datetime.now(timezone.utc), seed, "gate")


def test_objects_are_found_and_every_run_names_its_graph(machine: Machine) -> None:
    detector = CudaDetector(machine.runner(), Kernels(0, None))
    for seed in range(4):
        detector.submit([frame(seed)], [Filter()])
        scene = tiny.scene(128, 3, seed)
        (found,) = detector.collect().found
        order, other = np.lexsort(found.xyxy.T), np.lexsort(scene.xyxy.T)
        np.testing.assert_array_equal(found.class_id[order], scene.class_id[other])
        np.testing.assert_allclose(found.xyxy[order], scene.xyxy[other], atol=1.0)
    assert "ONNX Runtime records a graph of its own" in detector.path
    assert machine.session.provider["use_tf32"] == "0"
    numbers = {run.get_run_config_entry("gpu_graph_id") for run in machine.session.runs}
    assert len(numbers) == 2, "one for each slot: each reads and writes elsewhere"
    assert {run.get_run_config_entry("disable_synchronize_execution_providers") for run in machine.session.runs} == {
        "1"
    }
    detector.close()
    detector.close()
    assert machine.gpu.unreleased() == []


def test_a_failed_run_is_an_error_of_inference(machine: Machine) -> None:
    runner = machine.runner()
    runner.enqueue(0, 1)
    machine.session.fails = True
    with pytest.raises(InferenceError, match=r"ONNX Runtime failed: .*images"):
        runner.enqueue(0, 1)
    runner.close()
    assert machine.gpu.unreleased() == []


def test_an_output_that_is_not_known_beforehand_is_refused_and_leaves_nothing(machine: Machine) -> None:
    with pytest.raises(PlanError, match="not known beforehand"):
        machine.runner(tiny.network(128, batch=2, open_size=True))
    assert machine.gpu.unreleased() == []


def test_the_session_of_a_lost_gpu_is_not_destroyed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its destructor would end the process, in the middle of its last words."""
    runner, seen = machine.runner(), weakref.ref(machine.session)
    monkeypatch.setattr(machine.gpu, "cudaStreamSynchronize", lambda _: (700,))
    monkeypatch.setattr(machine.gpu, "named", lambda code: ("cudaErrorIllegalAddress", "an illegal memory access"))
    runner.close()
    del runner, machine.session
    gc.collect()
    kept = seen()
    assert kept is not None
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(kept))


def test_a_plan_of_open_size_is_left_to_the_host() -> None:
    backend = OnnxRuntime()
    assert backend.computes_on_gpu(EngineSpec(target=Target("gpu", 1))) == 1
    assert backend.computes_on_gpu(EngineSpec(target=Target("gpu", 1), dynamic=True)) is None
    assert backend.computes_on_gpu(EngineSpec(target=Target("cpu"))) is None
