"""Letterbox on the GPU: what ``letterbox.cu`` is told of each frame."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum

from vajra_edge.geometry.letterbox import LetterboxTransform

BLOCK_XY = (32, 8)
"""Threads of a block: a warp writes 32 neighbours of a row at once."""


class PixelFormat(IntEnum):
    """How a frame lies in memory; numbers are those of ``letterbox.cu``."""

    BGR = 0
    BGRX = 1
    NV12 = 2


MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Shares of red and blue in luma (ITU-R BT.601-7, BT.709-6, BT.2020-2)."""


@dataclass(frozen=True)
class Colorimetry:
    """What NV12 means by its numbers, as the stream's caps say.

    Attributes:
        matrix: one of ``MATRICES``.
        full_range: luma from 0 to 255 and not from 16 to 235.
    """

    matrix: str = "bt709"
    full_range: bool = False


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
    colorimetry: Colorimetry = Colorimetry()


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
        *_of_yuv(frame.colorimetry),
    )


def _of_yuv(meaning: Colorimetry) -> tuple[float, ...]:
    """Black level and gain of luma, then what red, green and blue take of Cr and Cb."""
    red, blue = MATRICES[meaning.matrix]
    green = 1.0 - red - blue
    black, luma_steps, chroma_steps = (0.0, 255.0, 255.0) if meaning.full_range else (16.0, 219.0, 224.0)
    of_chroma = 255.0 / chroma_steps
    return (
        *(black, 255.0 / luma_steps, 2 * (1 - red) * of_chroma),
        *(2 * (1 - blue) * blue / green * of_chroma, 2 * (1 - red) * red / green * of_chroma),
        2 * (1 - blue) * of_chroma,
    )
