"""Devices that CUDA sees, and the one that a thread works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vajra_edge.backends.cuda.check import CudaRefused, CudaUnavailable
from vajra_edge.backends.cuda.driver import CudaGpu, driver
from vajra_edge.backends.cuda.runtime import call, runtime
from vajra_edge.errors import EngineError, UnsupportedSpec
from vajra_edge.wording import Setting, say


def count() -> int:
    """GPUs that the driver has; 0 without a driver, and where CUDA_VISIBLE_DEVICES hides them."""
    try:
        return driver().count()
    except (CudaUnavailable, CudaRefused):
        return 0


def absence(index: int) -> EngineError | None:
    """Why there is no GPU of this number: driver, runtime or device, each with its remedy; None if there is one."""
    try:
        runtime()
        found = driver().count()
    except (CudaUnavailable, CudaRefused) as error:
        return error
    if index < found:
        return None
    return CudaUnavailable(
        f"CUDA sees {found} GPUs here, none with number {index}",
        remedy=say("look at CUDA_VISIBLE_DEVICES, or ", Setting.TARGET.to("auto")),
    )


def tf32_absence(index: int) -> UnsupportedSpec | None:
    """Why this GPU does not compute in TF32; None where it does, and where there is no GPU that could be asked.

    Libraries take the wish for TF32 on an older GPU without a word, and compute in FP32.
    """
    if absence(index) is not None or (found := describe(index)).computes_tf32:
        return None
    return UnsupportedSpec(
        f"{found.name}, compute capability {found.compute_capability}, does not compute in tf32, which takes 8.0",
        remedy=say(Setting.PRECISION.to("fp16") | Setting.PRECISION.to("fp32")),
    )


def describe(index: int) -> CudaGpu:
    """Look at one device.

    Raises:
        CudaRefused: there is no such device.
        CudaUnavailable: there is no driver.
    """
    return driver().describe(index)


@contextmanager
def device(index: int) -> Iterator[None]:
    """Make a device the calling thread's own for the length of a block.

    Raises:
        CudaRefused: there is no such device.
    """
    before = int(call("cudaGetDevice"))
    call("cudaSetDevice", index)  # also where it is the same: it makes the device's context the thread's
    try:
        yield
    except BaseException:
        with suppress(CudaRefused, CudaUnavailable):  # what failed first is what counts
            _back(before, index)
        raise
    _back(before, index)


def _back(before: int, index: int) -> None:
    """Setting a device starts it, which another that nobody asked for is spared."""
    if before != index:
        call("cudaSetDevice", before)
