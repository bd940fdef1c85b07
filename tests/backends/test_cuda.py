"""CUDA calls are checked in one place; what is taken is given back exactly once, whatever fails."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from backends.cuda_machine import Machine
from backends.cuda_standin import CudaStandIn, no_driver

from vajra_edge import device
from vajra_edge.backends import cuda
from vajra_edge.backends.cuda import declared
from vajra_edge.backends.cuda.check import ABSENT, LOST, check
from vajra_edge.backends.cuda.waiting import WaitCost
from vajra_edge.errors import BackendUnavailable, InferenceError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    standin = CudaStandIn(devices=2)
    standin.install(monkeypatch)
    return standin


def test_a_refused_call_raises_with_name_meaning_and_code(gpu: CudaStandIn) -> None:
    said = r"CUDA refused cudaSetDevice: meaning of 101 \(cudaErrorInvalidDevice, error 101\)"
    with pytest.raises(cuda.CudaRefused, match=said) as raised:
        cuda.call("cudaSetDevice", 7)
    assert isinstance(raised.value, InferenceError)
    assert (raised.value.call, raised.value.code, raised.value.name) == ("cudaSetDevice", 101, "cudaErrorInvalidDevice")


@pytest.mark.parametrize("code", [*ABSENT, *LOST, 1, 2, 4242])
def test_every_status_but_success_is_an_error_of_its_kind(code: int) -> None:
    check("cudaMalloc", 0, "cudaSuccess", "no error")
    kind = cuda.CudaUnavailable if code in ABSENT else cuda.CudaRefused
    with pytest.raises(kind, match=rf"cudaMalloc: said \(cudaErrorX, error {code}\)") as raised:
        check("cudaMalloc", code, "cudaErrorX", "said")
    assert bool(raised.value.remedy) == (code not in {1, 4242})
    assert isinstance(raised.value, BackendUnavailable) == (code in ABSENT)


@pytest.mark.parametrize("code", [100, 304, 999])
def test_a_jetson_whose_gpu_has_no_device_is_told_that_and_not_to_open_devices(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for made_none, remedy in ((True, "the kernel's GPU driver made no device; look at: "), (False, "let this")):
        monkeypatch.setattr(device, "gpu_made_no_node", lambda made_none=made_none: made_none)
        with pytest.raises(cuda.CudaUnavailable) as caught:
            check("cuInit", code, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected")
        assert str(caught.value.remedy).startswith(remedy)


def test_a_call_gives_its_values_without_the_status(gpu: CudaStandIn) -> None:
    assert cuda.call("cudaSetDevice", 1) is None
    assert cuda.call("cudaGetDevice") == 1
    assert cuda.call("cudaMemGetInfo") == (gpu.memory_bytes // 2, gpu.memory_bytes)


def test_a_gpu_is_described(gpu: CudaStandIn) -> None:
    assert cuda.reason() == "a stand-in (CUDA 12.6)"
    assert cuda.describe(0) == cuda.CudaGpu("Orin", "8.7", 8 << 30, integrated=True, driver="12.6")
    assert cuda.count() == 2


def test_the_current_device_comes_back_after_the_block(gpu: CudaStandIn) -> None:
    inside = []
    with contextlib.suppress(ZeroDivisionError), cuda.device(1):
        inside.append(gpu.current)
        raise ZeroDivisionError
    assert inside == [1]
    assert gpu.current == 0


def test_bytes_go_to_the_device_and_back_at_fixed_addresses(gpu: CudaStandIn) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with cuda.Stream() as stream, cuda.PinnedBuffer((3, 4), np.float32) as host, cuda.DeviceBuffer(48) as device:
        assert not host.array.any()
        host.array[...] = values
        stream.copy(device.address, host.address, host.nbytes)
        host.array.fill(0)
        stream.copy(host.address, device.address, host.nbytes)
        stream.synchronize()
        np.testing.assert_array_equal(host.array, values)
    assert (gpu.held, gpu.streams) == ({}, set())


def test_closing_twice_gives_back_once(gpu: CudaStandIn) -> None:
    for resource in (cuda.Stream(), cuda.PinnedBuffer((1,), np.float32), cuda.DeviceBuffer(0)):
        resource.close()
        resource.close()
    assert (gpu.held, gpu.streams) == ({}, set())


def test_without_a_driver_there_are_no_gpus_and_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_driver(monkeypatch)
    assert cuda.count() == 0
    with pytest.raises(BackendUnavailable, match=r"CUDA has no driver here: .*install NVIDIA's driver"):
        cuda.call("cudaGetDevice")
    absent = cuda.absence(0)
    assert isinstance(absent, cuda.CudaUnavailable)
    assert absent.code is None


def test_a_driver_that_is_up_later_is_found_by_the_same_process(
    gpu: CudaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as early:
        no_driver(early)
        assert cuda.absence(0) is not None
    assert cuda.absence(0) is None


def clock_of(polling_s: float, sleeping_s: float) -> itertools.accumulate[float]:
    """Two readings a piece of work, polling and sleeping in turn."""
    return itertools.accumulate(itertools.cycle([0.0, polling_s, 0.0, sleeping_s]))


@pytest.mark.parametrize(("sleeping_s", "sleeps"), [(0.00403, True), (0.0039, True), (0.00406, False), (0.009, False)])
def test_a_wait_sleeps_where_that_costs_under_50_us(gpu: CudaStandIn, sleeping_s: float, sleeps: bool) -> None:
    ticks = clock_of(0.004, sleeping_s)
    said: list[str] = []
    with cuda.Stream() as stream, cuda.Waiter(stream) as waiter:
        cost = waiter.measure(waiter.wait, lambda: next(ticks))
        gpu.cudaStreamSynchronize = lambda stream: said.append("polls") or (0,)  # type: ignore[method-assign]
        gpu.cudaEventSynchronize = lambda event: said.append("sleeps") or (0,)  # type: ignore[method-assign]
        waiter.wait()
    assert cost.sleeps == sleeps
    assert said == ["sleeps" if sleeps else "polls"]
    assert (gpu.streams, gpu.events) == (set(), set())


def test_the_choice_is_said_with_its_figures() -> None:
    assert str(WaitCost(0.004, 0.004021)).endswith(
        "leaves its core to others: sleeping costs +21 us a frame of 4.00 ms"
    )
    assert "polling: sleeping costs +200 us" in str(WaitCost(0.004, 0.0042))


CYCLES = """
import ctypes
from contextlib import ExitStack
from vajra_edge.backends import cuda
from vajra_edge.backends.cuda import runtime
from vajra_edge.backends.cuda.resources import MappedBuffer
held = ctypes.CDLL("libcudart.so.12").fake_held

def opened():
    with ExitStack() as stack:
        stream = stack.enter_context(cuda.Stream())
        waiter = stack.enter_context(cuda.Waiter(stream))
        device = stack.enter_context(cuda.DeviceBuffer(64))
        host = stack.enter_context(cuda.PinnedBuffer((2, 8), "float32"))
        mapped = stack.enter_context(MappedBuffer((3,), "uint8"))
        assert mapped.device_address == mapped.address
        host.array[...] = 3
        device.fill(host.array)
        stream.copy(host.address, device.address, 64)
        waiter.measure(waiter.wait)
        cuda.Waiter(stream).close()
        began, ended = (stack.enter_context(cuda.Event(timed=True, sleeps=False)) for _ in range(2))
        began.record(stream)
        stack.enter_context(cuda.Stream()).wait_for(began)
        graph = stack.enter_context(cuda.Graph(stream, lambda: stream.copy(host.address, device.address, 64)))
        graph.launch(stream)
        assert not ended.reached()
        assert ended.ms_since(began) == 1.5
        runtime._RELAXED.__dict__.clear()
        runtime.relax_this_thread()
        assert host.array.sum() == 48
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path).driver().runtime()


def test_a_thousand_cycles_of_opening_and_closing_leave_nothing(machine: Machine) -> None:
    code = f"{CYCLES}\nfor _ in range(1000):\n    opened()\nanswer = held()"
    assert machine.run(code) == 0


def test_whichever_call_fails_everything_that_was_taken_is_given_back(machine: Machine) -> None:
    """Calls that give back are left out: what they refuse stays taken."""
    code = f"""{CYCLES}
import os
answer = {{}}
fail = ctypes.CDLL(None).setenv
for name in runtime.RUNTIME:
    if name.endswith(("Free", "FreeHost", "Destroy")):
        continue
    fail(b"FAKE_CUDA_FAIL", f"{{name}}:700".encode(), 1)
    try:
        opened()
        answer[name] = [held(), None]
    except cuda.CudaRefused as error:
        answer[name] = [held(), error.call]
    fail(b"FAKE_CUDA_FAIL", b"", 1)
    opened()
"""
    found = machine.run(f"{CYCLES}\nopened()\n{code}")
    assert {held for held, _ in found.values()} == {0}
    asked = {name for name, (_, refused) in found.items() if refused == name}
    assert asked == set(declared.RUNTIME) - {
        *("cudaRuntimeGetVersion", "cudaGetDeviceCount", "cudaGetDevice", "cudaSetDevice", "cudaMemGetInfo"),
        *("cudaHostRegister", "cudaHostUnregister"),  # done without, see ``registered``
        *(name for name in declared.RUNTIME if name.endswith(("Free", "FreeHost", "Destroy"))),
    }


def test_what_cannot_be_given_back_is_not_given_back_twice(machine: Machine) -> None:
    code = f"""{CYCLES}
stream = cuda.Stream()
setenv = ctypes.CDLL(None).setenv
setenv(b"FAKE_CUDA_FAIL", b"cudaStreamDestroy:1", 1)
try:
    stream.close()
except cuda.CudaRefused as error:
    answer = error.code
setenv(b"FAKE_CUDA_FAIL", b"", 1)
stream.close()
"""
    assert machine.run(code) == 1


def test_of_a_lost_context_nothing_is_to_be_given_back(machine: Machine) -> None:
    """What it was lost by was told; an error of each buffer afterwards would hide it."""
    code = f"""{CYCLES}
with cuda.Stream(), cuda.Event(), cuda.DeviceBuffer(4), cuda.PinnedBuffer((4,), "uint8"):
    setenv = ctypes.CDLL(None).setenv
    setenv(b"FAKE_CUDA_FAIL", b"cudaFree:700", 1)
answer = "closed"
"""
    assert machine.run(code) == "closed"
