"""What CUDA lends: streams, events and memory, each given back exactly once."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from vajra_edge.backends.cuda.declared import (
    EVENT_BLOCKING_SYNC,
    EVENT_DISABLE_TIMING,
    HOST_ALLOC_DEFAULT,
    HOST_ALLOC_MAPPED,
    MEMCPY_DEFAULT,
    STREAM_NON_BLOCKING,
)
from vajra_edge.backends.cuda.runtime import call


class Resource(ABC):
    """A context manager whose ``close`` may be called twice."""

    @abstractmethod
    def close(self) -> None:
        """Give it back; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Stream(Resource):
    """A queue of work that does not wait for the default stream, which may not be captured into a graph.

    Attributes:
        handle: the stream's address, as TensorRT takes it; 0 once closed.
    """

    def __init__(self) -> None:
        self.handle = int(call("cudaStreamCreateWithFlags", STREAM_NON_BLOCKING))

    def synchronize(self) -> None:
        """Wait until everything queued is done; the processor polls meanwhile, as CUDA does unless told otherwise.

        Raises:
            CudaRefused: some queued work failed.
        """
        call("cudaStreamSynchronize", self.handle)

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Queue a copy; the direction follows from the addresses.

        Raises:
            CudaRefused: the runtime refused it.
        """
        call("cudaMemcpyAsync", to_address, from_address, nbytes, MEMCPY_DEFAULT, self.handle)

    def close(self) -> None:
        """Destroy the stream; a second call does nothing."""
        handle, self.handle = self.handle, 0
        if handle:
            call("cudaStreamDestroy", handle)


class Event(Resource):
    """A mark in a stream. Whoever waits for it sleeps until the GPU's interrupt, and leaves the processor to others."""

    def __init__(self) -> None:
        self._handle = int(call("cudaEventCreateWithFlags", EVENT_BLOCKING_SYNC | EVENT_DISABLE_TIMING))

    def record(self, stream: Stream) -> None:
        """Set the mark after all that is queued in ``stream`` now.

        Raises:
            CudaRefused: some queued work failed.
        """
        call("cudaEventRecord", self._handle, stream.handle)

    def synchronize(self) -> None:
        """Sleep until the mark is reached.

        Raises:
            CudaRefused: some queued work failed.
        """
        call("cudaEventSynchronize", self._handle)

    def close(self) -> None:
        """Destroy the event; a second call does nothing."""
        handle, self._handle = self._handle, 0
        if handle:
            call("cudaEventDestroy", handle)


class DeviceBuffer(Resource):
    """Memory of the GPU at a fixed address.

    Args:
        nbytes: how much; at least 1 is taken, so that the address is never 0.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.address = int(call("cudaMalloc", max(nbytes, 1)))

    def fill(self, values: NDArray[Any]) -> None:
        """Copy a C-contiguous array of at most ``nbytes`` into it, and wait until it is there.

        Raises:
            CudaRefused: the runtime refused it.
        """
        call("cudaMemcpy", self.address, values.ctypes.data, values.nbytes, MEMCPY_DEFAULT)

    def close(self) -> None:
        """Free it; a second call does nothing."""
        address, self.address = self.address, 0
        if address:
            call("cudaFree", address)


class PinnedBuffer(Resource):
    """Host memory that the GPU reaches without a detour, as a numpy array.

    Args:
        shape: of the array.
        dtype: of the array.
        flags: of ``cudaHostAlloc``.

    Attributes:
        array: zeros at first; not to be touched after ``close``.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, flags: int = HOST_ALLOC_DEFAULT) -> None:
        kind = np.dtype(dtype)
        self.nbytes = prod(shape) * kind.itemsize
        self.address = int(call("cudaHostAlloc", max(self.nbytes, 1), flags))
        raw = (ctypes.c_uint8 * self.nbytes).from_address(self.address)
        self.array: NDArray[Any] = np.frombuffer(memoryview(raw), dtype=kind).reshape(shape)
        self.array.fill(0)

    def close(self) -> None:
        """Free it; a second call does nothing."""
        address, self.address = self.address, 0
        if address:
            self.array = np.empty(0, self.array.dtype)
            call("cudaFreeHost", address)


class MappedBuffer(PinnedBuffer):
    """Pinned memory that kernels read and write where it lies; see ``PinnedBuffer``.

    On an integrated GPU (``CudaGpu.integrated``) it is the same memory, and a copy would be for nothing; on any other
    each access crosses the bus.

    Attributes:
        device_address: by which kernels know it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        super().__init__(shape, dtype, HOST_ALLOC_MAPPED)
        try:
            self.device_address = int(call("cudaHostGetDevicePointer", self.address, 0))
        except BaseException:
            self.close()
            raise
