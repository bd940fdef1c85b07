"""Letterbox on the GPU: what ``letterbox.cu`` is told of each frame."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from vajra_edge.geometry.letterbox import LetterboxTransform
from vajra_edge.pixel_format import USUAL, Colorimetry, FromYuv, PixelFormat

BLOCK_XY = (32, 8)
"""Threads of a block: a warp writes 32 neighbours of a row at once."""


@dataclass(frozen=True)
class DeviceFrame:
    """A frame where the GPU reaches it.

    Attributes:
        address: of its first byte: of the luma where it is NV12.
        resolution_wh: in pixels; NV12 of an odd size has half a pair at its edge.
        format: of its pixels.
        stride_bytes: from one row to the next.
        chroma_address: of NV12's pairs.
        chroma_stride_bytes: likewise.
        colorimetry: of NV12.
    """

    address: int
    resolution_wh: tuple[int, int]
    format: PixelFormat
    stride_bytes: int
    chroma_address: int = 0
    chroma_stride_bytes: int = 0
    colorimetry: Colorimetry = USUAL


class FrameBlock(ctypes.Structure):
    """What the kernel reads of a frame, as ``letterbox.cu`` declares it."""

    _fields_ = (
        ("plane", ctypes.c_void_p),
        ("chroma", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("width", "height", "stride", "chroma_stride")),
        *((name, ctypes.c_int) for name in ("left", "top", "columns", "rows")),
        *((name, ctypes.c_float) for name in ("step_x", "step_y")),
        ("format", ctypes.c_int),
        *((name, ctypes.c_float) for name in ("black", "gain", "red_cr", "green_cb", "green_cr", "blue_cb")),
    )


def frame_block(frame: DeviceFrame, place: LetterboxTransform) -> FrameBlock:
    """The kernel's view of a frame that lies at ``place`` of the input."""
    width, height = frame.resolution_wh
    return FrameBlock(
        *(frame.address, frame.chroma_address, width, height, frame.stride_bytes, frame.chroma_stride_bytes),
        *(place.left_px, place.top_px, place.width_px, place.height_px),
        *(width / place.width_px, height / place.height_px, int(frame.format)),
        *FromYuv.of(frame.colorimetry),
    )
