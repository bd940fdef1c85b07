# ruff: noqa: N801, N802, N815  (CUDA's own names)
"""A CUDA driver and runtime in host memory, instead of those of ``backends.cuda``, with a ledger of what is held."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from vajra_edge.backends.cuda import CudaGpu
from vajra_edge.backends.cuda import driver as cuda_driver
from vajra_edge.backends.cuda import runtime as cuda_runtime
from vajra_edge.backends.cuda.check import check


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidDevice = 101


MEMCPY_DEFAULT, HOST_ALLOC_DEFAULT, EVENT_OF_WAITER = 4, 0, 3
CAPTURE_REFUSED = 900


@dataclass
class CudaStandIn:
    """Stands in for ``driver.Driver`` and ``runtime.Runtime`` at once.

    Attributes:
        devices: how many GPUs there are.
        memory_bytes: what allocations may take together.
    """

    devices: int = 1
    memory_bytes: int = 8 << 30
    held: dict[int, Any] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)
    events: set[int] = field(default_factory=set)
    current: int = 0
    version: int = 12060
    capability: str = "8.7"
    told: str = "a stand-in (CUDA 12.6)"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the CUDA of this process."""
        monkeypatch.setattr(cuda_driver, "_STARTED", [self])
        monkeypatch.setattr(cuda_runtime, "_CHOSEN", [(self, self.told)])

    def call(self, name: str, arguments: Sequence[Any] = (), *_: Any) -> tuple[Any, ...]:
        if not name.startswith("cuda"):
            check(name, 801, "CUDA_ERROR_NOT_SUPPORTED", "a stand-in runs no kernels")
        status, *values = getattr(self, name)(*arguments)
        return (int(status), *values)

    def named(self, code: int) -> tuple[str, str]:
        name = "cudaErrorStreamCaptureUnsupported" if code == CAPTURE_REFUSED else cudaError_t(code).name
        return name, f"meaning of {code}"

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        """Work of a library on a stream, which is done at once here."""
        assert stream in self.streams
        work()

    def count(self) -> int:
        return self.devices

    def describe(self, index: int) -> CudaGpu:
        code = 0 if index < self.devices else cudaError_t.cudaErrorInvalidDevice
        check("cuDeviceGet", int(code), "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal")
        return CudaGpu("Orin", self.capability, self.memory_bytes, integrated=True, driver="12.6")

    def cudaMemGetInfo(self) -> tuple[cudaError_t, int, int]:
        return cudaError_t.cudaSuccess, self.memory_bytes // 2, self.memory_bytes

    def cudaGetDevice(self) -> tuple[cudaError_t, int]:
        return cudaError_t.cudaSuccess, self.current

    def cudaSetDevice(self, index: int) -> tuple[cudaError_t]:
        if index >= self.devices:
            return (cudaError_t.cudaErrorInvalidDevice,)
        self.current = index
        return (cudaError_t.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[cudaError_t, int]:
        stream = 1000 + len(self.streams) + flags
        self.streams.add(stream)
        return cudaError_t.cudaSuccess, stream

    def cudaStreamSynchronize(self, stream: int) -> tuple[cudaError_t]:
        return (cudaError_t.cudaSuccess if stream in self.streams else cudaError_t.cudaErrorInvalidValue,)

    def cudaStreamDestroy(self, stream: int) -> tuple[cudaError_t]:
        self.streams.remove(stream)
        return (cudaError_t.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[cudaError_t, int]:
        assert flags == EVENT_OF_WAITER
        event = 2000 + len(self.events)
        self.events.add(event)
        return cudaError_t.cudaSuccess, event

    def cudaEventRecord(self, event: int, stream: int) -> tuple[cudaError_t]:
        known = event in self.events and stream in self.streams
        return (cudaError_t.cudaSuccess if known else cudaError_t.cudaErrorInvalidValue,)

    def cudaEventSynchronize(self, event: int) -> tuple[cudaError_t]:
        return (cudaError_t.cudaSuccess if event in self.events else cudaError_t.cudaErrorInvalidValue,)

    def cudaEventDestroy(self, event: int) -> tuple[cudaError_t]:
        self.events.remove(event)
        return (cudaError_t.cudaSuccess,)

    def cudaMalloc(self, nbytes: int) -> tuple[cudaError_t, int]:
        taken = sum(len(buffer) for buffer in self.held.values())
        if taken + nbytes > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, 0
        buffer = ctypes.create_string_buffer(nbytes)
        self.held[ctypes.addressof(buffer)] = buffer
        return cudaError_t.cudaSuccess, ctypes.addressof(buffer)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> tuple[cudaError_t, int]:
        assert flags == HOST_ALLOC_DEFAULT
        return self.cudaMalloc(nbytes)

    def cudaFree(self, address: int) -> tuple[cudaError_t]:
        known = self.held.pop(address, None)
        return (cudaError_t.cudaSuccess if known is not None else cudaError_t.cudaErrorInvalidValue,)

    def cudaFreeHost(self, address: int) -> tuple[cudaError_t]:
        return self.cudaFree(address)

    def cudaMemcpy(self, to: int, source: int, nbytes: int, kind: int) -> tuple[cudaError_t]:
        assert kind == MEMCPY_DEFAULT
        ctypes.memmove(to, source, nbytes)
        return (cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, nbytes: int, kind: int, stream: int) -> tuple[cudaError_t]:
        assert kind == MEMCPY_DEFAULT
        assert stream in self.streams
        ctypes.memmove(to, source, nbytes)
        return (cudaError_t.cudaSuccess,)


def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without NVIDIA's driver, whatever this one has."""
    monkeypatch.setattr(cuda_driver, "_STARTED", [])
    monkeypatch.setattr(cuda_runtime, "_CHOSEN", [])
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda_of_no_machine.so.1")
