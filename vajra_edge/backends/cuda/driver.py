"""The driver's own library, asked first: whether it is there, starts, how new it is, and which devices it has.

Nothing else of CUDA is touched before it answered: a CUDA runtime remembers a failed start for the life of its process,
and TensorRT ends the process.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vajra_edge.backends.cuda.check import NO_DRIVER, CudaRefused, CudaUnavailable, check, when_closed
from vajra_edge.backends.cuda.declared import (
    ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
    ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ATTRIBUTE_INTEGRATED,
    DRIVER,
    DRIVER_MODULES,
    version_text,
)
from vajra_edge.backends.cuda.linked import Linked

LIBRARY = "libcuda.so.1"
AMPERE = 8
"""First number of the compute capability from which tensor cores take TF32 (CUDA's programming guide, table of compute
capabilities).
"""
NAME_BYTES = 256


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

    @property
    def computes_tf32(self) -> bool:
        """Its tensor cores take TF32."""
        return int(self.compute_capability.partition(".")[0]) >= AMPERE


class Driver:
    """``libcuda.so.1``, started.

    Args:
        library: it, loaded.

    Attributes:
        version: the newest CUDA release it runs, as 12060.

    Raises:
        CudaUnavailable: it does not start, or sees no device.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._linked = Linked(library, DRIVER)
        self._library = library
        try:
            self.call("cuInit", 0)
        except CudaRefused as error:  # whatever it says, nothing of CUDA is here
            raise CudaUnavailable(
                str(error.message), remedy=when_closed(), call=error.call, code=error.code, name=error.name
            ) from error
        self.version = int(self.call("cuDriverGetVersion"))

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of ``DRIVER`` or ``DRIVER_MODULES``; see ``cuda.call``."""
        code, *values = (self._linked if name in DRIVER else self._modules).call(name, arguments)
        check(name, code, *(self._named(code) if code else ("", "")))
        return values[0] if len(values) == 1 else tuple(values) or None

    @cached_property
    def _modules(self) -> Linked:
        return Linked(self._library, DRIVER_MODULES)

    def count(self) -> int:
        """How many devices it has."""
        return int(self.call("cuDeviceGetCount"))

    def describe(self, index: int) -> CudaGpu:
        """Look at one device.

        Raises:
            CudaRefused: there is no such device.
        """
        found = self.call("cuDeviceGet", index)
        name = ctypes.create_string_buffer(NAME_BYTES)
        self.call("cuDeviceGetName", name, NAME_BYTES, found)
        major = self.call("cuDeviceGetAttribute", ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, found)
        minor = self.call("cuDeviceGetAttribute", ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, found)
        return CudaGpu(
            name=name.value.decode(errors="replace"),
            compute_capability=f"{major}.{minor}",
            memory_bytes=int(self.call("cuDeviceTotalMem_v2", found)),
            integrated=bool(self.call("cuDeviceGetAttribute", ATTRIBUTE_INTEGRATED, found)),
            driver=version_text(self.version),
        )

    def _named(self, code: int) -> tuple[str, str]:
        return self._text("cuGetErrorName", code), self._text("cuGetErrorString", code)

    def _text(self, function: str, code: int) -> str:
        found = ctypes.c_char_p()
        getattr(self._library, function)(ctypes.c_int(code), ctypes.byref(found))
        return (found.value or b"unknown error").decode()


_LOCK = threading.Lock()
_STARTED: list[Driver] = []


def driver() -> Driver:
    """The driver; asked anew each time until it has started, for on a board it may be up late.

    Raises:
        CudaUnavailable: its library is absent, or does not start; the message says which.
    """
    with _LOCK:
        if not _STARTED:
            _STARTED.append(Driver(_load()))
        return _STARTED[0]


def _load() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise CudaUnavailable(f"CUDA has no driver here: {error}", remedy=NO_DRIVER) from error
