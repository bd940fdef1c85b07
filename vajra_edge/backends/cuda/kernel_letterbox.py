"""KernelLetterbox: the letterbox of production for what goes by way of the host: calibration, the accuracy check."""

from __future__ import annotations

import ctypes
import hashlib
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.cuda import sources
from vajra_edge.backends.cuda.compiler import OPTIONS
from vajra_edge.backends.cuda.devices import describe, device
from vajra_edge.backends.cuda.intake import Intake
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.cuda.letterbox import BLOCK_XY, FrameBlock, frame_block
from vajra_edge.backends.cuda.resources import DeviceBuffer, PinnedBuffer, Resource, Stream
from vajra_edge.geometry.letterbox import LetterboxTransform, placement

_FLOAT_BYTES = 4
_SHOWN = 16


def way() -> str:
    """Names what the kernel makes of an image: another source, or other arithmetic, is another way."""
    digest = hashlib.sha256("\0".join((sources.source("letterbox"), *OPTIONS)).encode()).hexdigest()
    return f"cuda-letterbox-{digest[:_SHOWN]}"


class KernelLetterbox(Resource):
    """``geometry.letterbox.Letterbox`` by the kernel; one image at a time.

    Args:
        input_hw: height and width of the input in pixels.
        gpu: CUDA's number of the device.
        cache: folder of compiled code; None: it is compiled anew.

    Raises:
        CudaUnavailable: there is no compiler.
        CudaRefused: the kernel does not compile or load, or there is no memory.
    """

    def __init__(self, input_hw: tuple[int, int], gpu: int, cache: Path | None) -> None:
        self._input_hw, self._gpu = input_hw, gpu
        height, width = input_hw
        with device(gpu), ExitStack() as taken:
            kernels = taken.enter_context(Kernels(gpu, cache))
            self._intake = taken.enter_context(Intake(integrated=describe(gpu).integrated))
            self._stream = taken.enter_context(Stream())
            self._told = taken.enter_context(PinnedBuffer((ctypes.sizeof(FrameBlock),), np.uint8))
            self._block = taken.enter_context(DeviceBuffer(self._told.nbytes))
            self._input = taken.enter_context(DeviceBuffer(3 * height * width * _FLOAT_BYTES))
            self._made = taken.enter_context(PinnedBuffer((3, height, width), np.float32))
            grid = -(-width // BLOCK_XY[0]), -(-height // BLOCK_XY[1]), 1
            addresses = [ctypes.c_void_p(self._block.address), ctypes.c_void_p(self._input.address)]
            given = [*addresses, ctypes.c_int(width), ctypes.c_int(height)]
            self._launch = kernels.letterbox.prepared("letterbox_f32", grid, (*BLOCK_XY, 1), given)
            self._held = taken.pop_all()

    def apply(self, image: NDArray[np.uint8], out: NDArray[np.float32]) -> LetterboxTransform:
        """Write ``image`` (height, width, 3) BGR into ``out`` (3, H, W) float32, RGB, 0..1.

        Raises:
            CudaRefused: a call was refused.
        """
        place = placement((image.shape[1], image.shape[0]), self._input_hw)
        with device(self._gpu):
            block = frame_block(self._intake.put(np.ascontiguousarray(image), None, self._stream), place)
            self._told.array[:] = np.frombuffer(bytes(block), np.uint8)
            self._stream.copy(self._block.address, self._told.address, self._told.nbytes)
            self._launch.queue(self._stream)
            self._stream.copy(self._made.address, self._input.address, self._made.nbytes)
            self._stream.synchronize()
        np.copyto(out, self._made.array)
        return place

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        with device(self._gpu):
            self._held.close()
