"""CUDA calls are checked in one place; what is taken is given back exactly once."""

from __future__ import annotations

import contextlib
import importlib.util
import sys

import numpy as np
import pytest
from backends.cuda_standin import CudaStandIn

from vajra_edge.backends import cuda
from vajra_edge.errors import BackendUnavailable, InferenceError

REAL = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CudaStandIn:
    standin = CudaStandIn(devices=2)
    monkeypatch.setattr(cuda, "runtime", lambda: standin)
    return standin


def test_a_refused_call_raises_with_name_reason_and_code(gpu: CudaStandIn) -> None:
    with pytest.raises(
        InferenceError, match=r"CUDA refused cudaSetDevice: cudaErrorInvalidDevice \(error 101\)"
    ) as raised:
        cuda.call("cudaSetDevice", 7)
    assert raised.value.values == {"call": "cudaSetDevice", "code": 101}


def test_a_call_gives_its_values_without_the_status(gpu: CudaStandIn) -> None:
    assert cuda.call("cudaSetDevice", 1) is None
    assert cuda.call("cudaGetDevice") == 1
    assert cuda.call("cudaMemGetInfo") == (gpu.memory_bytes // 2, gpu.memory_bytes)


def test_a_gpu_is_described(gpu: CudaStandIn) -> None:
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


def test_without_bindings_there_are_no_gpus_and_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda.runtime.cache_clear()
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=r"install vajra-edge\[cuda12\] on JetPack 6"):
        cuda.runtime()
    assert cuda.count() == 0
    cuda.runtime.cache_clear()


def test_bindings_that_find_no_driver_are_no_crash(gpu: CudaStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """As cuda-python 12.8 says it, at the first call."""

    def first_call() -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(gpu, "cudaGetDeviceCount", first_call, raising=False)
    assert cuda.count() == 0
    assert cuda.absence(0) == "CUDA's driver does not load: Failed to dlopen libcuda.so.1"


@pytest.mark.skipif(not REAL, reason="absent here: cuda-python")
def test_the_real_bindings_have_every_name_and_answer_without_a_gpu() -> None:
    module = cuda.runtime()
    names = [name for name in vars(CudaStandIn) if name.startswith("cuda")]
    assert [name for name in names if not hasattr(module, name)] == []
    assert cuda.count() >= 0
