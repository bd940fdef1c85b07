"""CUDA's runtime through cuda-python: one checked call, streams, events and buffers that are given back exactly once.

``cuda.bindings.runtime`` is cuda-python 12.6 and later (JetPack 6 and 7); ``cuda.cudart`` is its older name.
"""

from __future__ import annotations

import ctypes
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Self

from vajra_edge.errors import BackendUnavailable, InferenceError

INSTALL = "install vajra-edge[cuda12] on JetPack 6, vajra-edge[cuda13] on JetPack 7 or a desktop"


@dataclass(frozen=True)
class CudaGpu:
    """What CUDA says about one device.

    Attributes:
        name: like ``Orin`` or ``NVIDIA H100 80GB HBM3``.
        compute_capability: like ``8.7``.
        memory_bytes: all of its memory; on a Jetson that is the board's.
        integrated: shares the host's memory, as on every Jetson.
        driver: the newest CUDA version the driver runs, like ``12.6``.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    integrated: bool
    driver: str


@functools.cache
def runtime() -> Any:
    """The CUDA runtime module.

    Raises:
        BackendUnavailable: cuda-python is absent or its libraries do not load.
    """
    try:
        from cuda.bindings import runtime as module
    except ModuleNotFoundError:
        try:
            from cuda import cudart as module
        except ImportError as error:
            raise BackendUnavailable(f"CUDA's Python bindings do not load: {error}", remedy=INSTALL) from error
    except ImportError as error:
        raise BackendUnavailable(f"CUDA's Python bindings do not load: {error}", remedy=INSTALL) from error
    return module


def call(name: str, *arguments: Any) -> Any:
    """Call a runtime function and hand back what it returned beside its status.

    Args:
        name: like ``cudaMalloc``.
        arguments: as the function takes them.

    Returns:
        None, the one value, or a tuple of the values.

    Raises:
        InferenceError: the status is not ``cudaSuccess``; ``values`` hold ``call`` and ``code``.
        BackendUnavailable: cuda-python or the driver is absent.
    """
    module = runtime()
    try:
        status, *values = getattr(module, name)(*arguments)
    except RuntimeError as error:  # bindings before 12.9 look for the driver's library at the first call
        raise BackendUnavailable(f"CUDA's driver does not load: {error}", remedy="install NVIDIA's driver") from error
    if status != module.cudaError_t.cudaSuccess:
        code = int(status)
        reason = module.cudaGetErrorString(status)[1].decode()
        raise InferenceError(f"CUDA refused {name}: {reason} (error {code})", call=name, code=code)
    return values[0] if len(values) == 1 else tuple(values) or None


def count() -> int:
    """GPUs that CUDA sees; 0 where the bindings, the driver or the device are absent."""
    try:
        return int(call("cudaGetDeviceCount"))
    except (BackendUnavailable, InferenceError):
        return 0


def absence(index: int) -> str | None:
    """Why there is no GPU of this number: bindings, driver or device; None if there is one."""
    try:
        found = int(call("cudaGetDeviceCount"))
    except (BackendUnavailable, InferenceError) as error:
        return str(error.message)
    return None if index < found else f"CUDA sees {found} GPUs here, none with number {index}"


def describe(index: int) -> CudaGpu:
    """Look at one device.

    Raises:
        InferenceError: there is no such device.
        BackendUnavailable: cuda-python is absent.
    """
    found = call("cudaGetDeviceProperties", index)
    version = int(call("cudaDriverGetVersion"))
    return CudaGpu(
        name=found.name.split(b"\0")[0].decode(),
        compute_capability=f"{found.major}.{found.minor}",
        memory_bytes=int(found.totalGlobalMem),
        integrated=bool(found.integrated),
        driver=f"{version // 1000}.{version % 1000 // 10}",
    )


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
    """A queue of work that does not wait for the default stream, which may not be captured into a graph."""

    def __init__(self) -> None:
        self._stream: Any = call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """The stream's address, as TensorRT takes it."""
        return int(self._stream)

    def synchronize(self) -> None:
        """Wait until everything queued is done.

        Raises:
            InferenceError: some queued work failed.
        """
        call("cudaStreamSynchronize", self._stream)

    def copy(self, to_address: int, from_address: int, nbytes: int) -> None:
        """Queue a copy; the direction follows from the addresses.

        Raises:
            InferenceError: the runtime refused it.
        """
        kind = runtime().cudaMemcpyKind.cudaMemcpyDefault
        call("cudaMemcpyAsync", to_address, from_address, nbytes, kind, self._stream)

    def close(self) -> None:
        """Destroy the stream; a second call does nothing."""
        stream, self._stream = self._stream, None
        if stream is not None:
            call("cudaStreamDestroy", stream)


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
            InferenceError: the runtime refused it.
        """
        call("cudaMemcpy", self.address, values.ctypes.data, values.nbytes, runtime().cudaMemcpyKind.cudaMemcpyDefault)

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

    Attributes:
        array: zeros at first; not to be touched after ``close``.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        kind = np.dtype(dtype)
        self.nbytes = prod(shape) * kind.itemsize
        self.address = int(call("cudaHostAlloc", max(self.nbytes, 1), runtime().cudaHostAllocDefault))
        raw = (ctypes.c_uint8 * self.nbytes).from_address(self.address)
        self.array: NDArray[Any] = np.frombuffer(memoryview(raw), dtype=kind).reshape(shape)
        self.array.fill(0)

    def close(self) -> None:
        """Free it; a second call does nothing."""
        address, self.address = self.address, 0
        if address:
            self.array = np.empty(0, self.array.dtype)
            call("cudaFreeHost", address)


@contextmanager
def device(index: int) -> Iterator[None]:
    """Make a device the calling thread's own for the length of a block.

    Raises:
        InferenceError: there is no such device.
    """
    before = int(call("cudaGetDevice"))
    call("cudaSetDevice", index)
    try:
        yield
    finally:
        call("cudaSetDevice", before)
