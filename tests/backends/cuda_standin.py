# ruff: noqa: N801, N802, N815  (CUDA's own names)
"""A CUDA runtime in host memory: the functions that ``backends.cuda`` calls, with a ledger of what is still held."""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass, field
from typing import Any


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidDevice = 101


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyDefault = 4


@dataclass
class Properties:
    name: bytes = b"Orin\0\0"
    major: int = 8
    minor: int = 7
    totalGlobalMem: int = 8 << 30
    integrated: int = 1


@dataclass
class CudaStandIn:
    """Stands in for ``cuda.bindings.runtime``.

    Attributes:
        devices: how many GPUs there are.
        memory_bytes: what allocations may take together.
    """

    devices: int = 1
    memory_bytes: int = 8 << 30
    held: dict[int, Any] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)
    current: int = 0

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[cudaError_t, bytes]:
        return cudaError_t.cudaSuccess, error.name.encode()

    def cudaGetDeviceCount(self) -> tuple[cudaError_t, int]:
        return cudaError_t.cudaSuccess, self.devices

    def cudaGetDeviceProperties(self, index: int) -> tuple[cudaError_t, Properties]:
        status = cudaError_t.cudaSuccess if index < self.devices else cudaError_t.cudaErrorInvalidDevice
        return status, Properties(totalGlobalMem=self.memory_bytes)

    def cudaDriverGetVersion(self) -> tuple[cudaError_t, int]:
        return cudaError_t.cudaSuccess, 12060

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

    def cudaMalloc(self, nbytes: int) -> tuple[cudaError_t, int]:
        taken = sum(len(buffer) for buffer in self.held.values())
        if taken + nbytes > self.memory_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, 0
        buffer = ctypes.create_string_buffer(nbytes)
        self.held[ctypes.addressof(buffer)] = buffer
        return cudaError_t.cudaSuccess, ctypes.addressof(buffer)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> tuple[cudaError_t, int]:
        assert flags == self.cudaHostAllocDefault
        return self.cudaMalloc(nbytes)

    def cudaFree(self, address: int) -> tuple[cudaError_t]:
        known = self.held.pop(address, None)
        return (cudaError_t.cudaSuccess if known is not None else cudaError_t.cudaErrorInvalidValue,)

    def cudaFreeHost(self, address: int) -> tuple[cudaError_t]:
        return self.cudaFree(address)

    def cudaMemcpy(self, to: int, source: int, nbytes: int, kind: int) -> tuple[cudaError_t]:
        assert kind == cudaMemcpyKind.cudaMemcpyDefault
        ctypes.memmove(to, source, nbytes)
        return (cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, nbytes: int, kind: int, stream: int) -> tuple[cudaError_t]:
        assert kind == cudaMemcpyKind.cudaMemcpyDefault
        assert stream in self.streams
        ctypes.memmove(to, source, nbytes)
        return (cudaError_t.cudaSuccess,)
