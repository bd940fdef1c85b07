"""The CUDA runtime, in one of two ways: through cuda-python, or straight to this machine's own libcudart.

cuda-python carries a runtime inside its wheels, which a driver older than that refuses (error 35: cuda-python 13 on
JetPack 6). Then, and where it is not installed, the machine's own library is called, which fits the machine's driver.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from vajra_edge import device
from vajra_edge.backends.cuda.check import (
    INSUFFICIENT_DRIVER,
    NEWER_DRIVER,
    NOT_READY,
    NOTHING_LEFT,
    CudaRefused,
    CudaUnavailable,
    check,
)
from vajra_edge.backends.cuda.declared import CAPTURE_RELAXED, RUNTIME, Parameter, version_text
from vajra_edge.backends.cuda.driver import driver
from vajra_edge.backends.cuda.libraries import candidates
from vajra_edge.backends.cuda.linked import Linked

INSTALL = (
    "install the CUDA runtime: on a Jetson apt install nvidia-jetpack-runtime (or cuda-cudart-12-6, cuda-cudart-13-2), "
    "elsewhere vajra-edge[cuda13], or vajra-edge[cuda12] for a driver older than CUDA 13"
)


class Runtime(Protocol):
    """One way to the runtime.

    Attributes:
        told: what it is, for people.
    """

    told: str

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Call a function of ``declared.RUNTIME``: its status, then its outputs; addresses and handles are ints."""
        ...

    def named(self, code: int) -> tuple[str, str]:
        """Name and meaning of a status."""
        ...


class LinkedRuntime:
    """A libcudart by ``ctypes``; see ``Runtime``.

    Args:
        path: as the loader takes it.

    Raises:
        OSError: it does not load.
        CudaUnavailable: it lacks a function.
    """

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self._linked = Linked(library, RUNTIME)
        self._texts = (library.cudaGetErrorName, library.cudaGetErrorString)
        for function in self._texts:
            function.argtypes, function.restype = [ctypes.c_int], ctypes.c_char_p
        self.told = f"{path} (CUDA {version_text(self.call('cudaRuntimeGetVersion', ())[1])})"

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """See ``Runtime``."""
        return self._linked.call(name, arguments)

    def named(self, code: int) -> tuple[str, str]:
        """See ``Runtime``."""
        name, meaning = (function(code) or b"unknown error" for function in self._texts)
        return name.decode(), meaning.decode()


class BoundRuntime:
    """The runtime inside cuda-python; see ``Runtime``.

    Args:
        module: ``cuda.bindings.runtime``, or ``cuda.cudart`` as it was called before 12.6.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        version = device.package_version("cuda-bindings") or device.package_version("cuda-python") or ""
        carries = version_text(int(self.call("cudaRuntimeGetVersion", ())[1]))
        self.told = f"cuda-python {version} (CUDA {carries})"

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """See ``Runtime``."""
        taken = [one for one in RUNTIME[name].parameters if not one.out]
        passed = [self._argument(*pair) for pair in zip(taken, arguments, strict=True)]
        status, *values = getattr(self._module, name)(*passed)
        return (int(status), *(_plain(value) for value in values))

    def named(self, code: int) -> tuple[str, str]:
        """See ``Runtime``."""
        status = self._module.cudaError_t(code)
        name, meaning = (getattr(self._module, f"cudaGetError{word}")(status)[1] for word in ("Name", "String"))
        return name.decode(), meaning.decode()

    def _argument(self, parameter: Parameter, value: Any) -> Any:
        return getattr(self._module, parameter.enum)(value) if parameter.enum else value


def _plain(value: Any) -> int | float:
    """Handles of cuda-python are objects with a number; None stands beside a failure."""
    if value is None:
        return 0
    return value if isinstance(value, float) else int(value)


_RELAXED = threading.local()
_LOCK = threading.Lock()
_CHOSEN: list[tuple[Runtime, str]] = []


def runtime() -> Runtime:
    """The way that is taken, for the life of the process once one works.

    Raises:
        CudaUnavailable: there is no driver, or no way fits it; the message has the reason of each.
    """
    return _chosen()[0]


def reason() -> str:
    """Which way is taken, and why no other.

    Raises:
        CudaUnavailable: none is.
    """
    return _chosen()[1]


def call(name: str, *arguments: Any) -> Any:
    """Call a runtime function and hand back what it returned beside its status.

    Args:
        name: like ``cudaMalloc``; one of ``declared.RUNTIME``.
        arguments: its inputs, in its order.

    Returns:
        None, the one value, or a tuple of the values.

    Raises:
        CudaRefused: the status is not ``cudaSuccess``.
        CudaUnavailable: there is no CUDA here.
    """
    taken = runtime()
    code, *values = taken.call(name, arguments)
    check(name, code, *(taken.named(code) if code else ("", "")))
    return values[0] if len(values) == 1 else tuple(values) or None


def give_back(name: str, handle: int) -> None:
    """Call a function that frees or destroys; of a lost context there is nothing to give back any more.

    Raises:
        CudaRefused: it failed otherwise.
    """
    try:
        call(name, handle)
    except (CudaRefused, CudaUnavailable) as error:
        if error.code not in NOTHING_LEFT:
            raise


def relax_this_thread() -> None:
    """Let nothing that this thread calls spoil a capture of another thread, nor be refused because of one; once each.

    ONNX Runtime captures in the mode that forbids every thread what is unsafe, and a plan is warmed up while another
    serves.

    Raises:
        CudaRefused: the runtime refused it.
    """
    if not getattr(_RELAXED, "done", False):
        call("cudaThreadExchangeStreamCaptureMode", CAPTURE_RELAXED)
        _RELAXED.done = True


def done(name: str, *arguments: Any) -> bool:
    """Call a function that asks after queued work: whether it is done.

    Raises:
        CudaRefused: it failed.
        CudaUnavailable: there is no CUDA here.
    """
    taken = runtime()
    code, *_ = taken.call(name, arguments)
    if code == NOT_READY:
        return False
    check(name, code, *(taken.named(code) if code else ("", "")))
    return True


def _chosen() -> tuple[Runtime, str]:
    with _LOCK:
        if not _CHOSEN:
            _CHOSEN.append(_choose())
        return _CHOSEN[0]


def _choose() -> tuple[Runtime, str]:
    newest = driver().version
    refused: list[str] = []
    too_new = False
    for made in (_bound, *(lambda path=path: LinkedRuntime(path) for path in candidates("libcudart", newest))):
        try:
            found = made()
            code, *_ = found.call("cudaGetDeviceCount", ())
        except (ImportError, OSError, RuntimeError, CudaUnavailable) as error:
            refused.append(str(error))
            continue
        if code == 0:
            return found, "; ".join([found.told, *(f"not {other}" for other in refused)])
        too_new = too_new or code == INSUFFICIENT_DRIVER
        name, meaning = found.named(code)
        refused.append(f"{found.told}: {meaning} ({name}, error {code})")
    raise CudaUnavailable(
        f"no CUDA runtime works with this driver, which takes CUDA {version_text(newest)}: {'; '.join(refused)}",
        remedy=NEWER_DRIVER if too_new else INSTALL,
        call="cudaGetDeviceCount",
        code=INSUFFICIENT_DRIVER if too_new else None,
        name="cudaErrorInsufficientDriver" if too_new else "",
    )


def _bound() -> Runtime:
    try:
        from cuda.bindings import runtime as module
    except ModuleNotFoundError:
        try:
            from cuda import cudart as module
        except ImportError as error:
            raise ImportError(f"cuda-python: {error}") from error
    return BoundRuntime(module)
