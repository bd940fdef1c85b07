"""What CUDA lends: streams, events and memory, each given back exactly once."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from vajra_edge.backends.cuda.check import CudaRefused, CudaUnavailable
from vajra_edge.backends.cuda.declared import (
    CAPTURE_THREAD_LOCAL,
    EVENT_BLOCKING_SYNC,
    EVENT_DEFAULT,
    EVENT_DISABLE_TIMING,
    HOST_ALLOC_DEFAULT,
    HOST_ALLOC_MAPPED,
    MEMCPY_DEFAULT,
    STREAM_NON_BLOCKING,
)
from vajra_edge.backends.cuda.runtime import call, done, give_back


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

    def wait_for(self, event: Event) -> None:
        """Let what is queued from now on wait for a mark in another stream; the host does not wait.

        Raises:
            CudaRefused: the runtime refused it.
        """
        call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def close(self) -> None:
        """Destroy the stream; a second call does nothing."""
        handle, self.handle = self.handle, 0
        if handle:
            give_back("cudaStreamDestroy", handle)


class Event(Resource):
    """A mark in a stream.

    Args:
        timed: when it was reached can be asked for.
        sleeps: whoever waits for it sleeps until the GPU's interrupt, and leaves the processor to others; else he asks
            all the time.

    Attributes:
        handle: the event's address; 0 once closed.
    """

    def __init__(self, *, timed: bool = False, sleeps: bool = True) -> None:
        timing = EVENT_DEFAULT if timed else EVENT_DISABLE_TIMING
        waiting = EVENT_BLOCKING_SYNC if sleeps else EVENT_DEFAULT
        self.handle = int(call("cudaEventCreateWithFlags", waiting | timing))

    def record(self, stream: Stream) -> None:
        """Set the mark after all that is queued in ``stream`` now.

        Raises:
            CudaRefused: some queued work failed.
        """
        call("cudaEventRecord", self.handle, stream.handle)

    def reached(self) -> bool:
        """Whether the mark is reached; true of one that was never set.

        Raises:
            CudaRefused: some queued work failed.
        """
        return done("cudaEventQuery", self.handle)

    def synchronize(self) -> None:
        """Wait until the mark is reached.

        Raises:
            CudaRefused: some queued work failed.
        """
        call("cudaEventSynchronize", self.handle)

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds from another mark to this one; both are ``timed`` and reached.

        Raises:
            CudaRefused: they are not.
        """
        return float(call("cudaEventElapsedTime", earlier.handle, self.handle))

    def close(self) -> None:
        """Destroy the event; a second call does nothing."""
        handle, self.handle = self.handle, 0
        if handle:
            give_back("cudaEventDestroy", handle)


class Graph(Resource):
    """Queued work that was recorded once and is launched as one.

    Args:
        stream: what ``record`` queues in it is recorded and not done.
        record: queues the work; it may use nothing that a capture forbids, allocating above all.

    Raises:
        CudaRefused: something of it cannot be recorded. The stream is as it was.
    """

    def __init__(self, stream: Stream, record: Callable[[], None]) -> None:
        self._handle = 0
        graph = _captured(stream, record)
        try:
            self._handle = int(call("cudaGraphInstantiate", graph, 0))
        finally:
            call("cudaGraphDestroy", graph)

    def launch(self, stream: Stream) -> None:
        """Queue all of it.

        Raises:
            CudaRefused: the runtime refused it.
        """
        call("cudaGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """Destroy it; a second call does nothing."""
        handle, self._handle = self._handle, 0
        if handle:
            give_back("cudaGraphExecDestroy", handle)


def _captured(stream: Stream, record: Callable[[], None]) -> int:
    """A graph of what is queued; other threads go on as they like, which another mode would forbid them."""
    call("cudaStreamBeginCapture", stream.handle, CAPTURE_THREAD_LOCAL)
    try:
        record()
    except BaseException:
        with suppress(CudaRefused, CudaUnavailable):  # it ends all the same, and the first failure counts
            call("cudaGraphDestroy", call("cudaStreamEndCapture", stream.handle))
        raise
    return int(call("cudaStreamEndCapture", stream.handle))


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
            give_back("cudaFree", address)


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
            give_back("cudaFreeHost", address)


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
