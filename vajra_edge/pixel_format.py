"""Pixel format: how the pixels of a picture lie in its array, and which colours the numbers of NV12 are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class PixelFormat(IntEnum):
    """How a picture lies in its array of uint8; numbers are those of ``letterbox.cu`` and of ``capture.protocol``.

    BGR is (height, width, 3) and BGRX (height, width, 4), of which the fourth says nothing. NV12 is (height * 3 / 2,
    width): the rows of luma, then Cb and Cr by turns for each two by two pixels. Its sides are even: of an odd width
    the array could not tell, and whoever gets such a picture makes it BGR.
    """

    BGR = 0
    BGRX = 1
    NV12 = 2


class Matrix(IntEnum):
    """By which shares of red, green and blue luma was made; numbers are those of ``capture.protocol``."""

    BT601 = 0
    BT709 = 1
    BT2020 = 2
    SMPTE240M = 3
    FCC = 4


SHARES: Mapping[Matrix, tuple[float, float]] = {
    Matrix.BT601: (0.299, 0.114),
    Matrix.BT709: (0.2126, 0.0722),
    Matrix.BT2020: (0.2627, 0.0593),
    Matrix.SMPTE240M: (0.212, 0.087),
    Matrix.FCC: (0.30, 0.11),
}
"""Of red and blue in luma (ITU-R BT.601-7, BT.709-6, BT.2020-2, SMPTE 240M, 47 CFR 73.682)."""


@dataclass(frozen=True)
class Colorimetry:
    """What NV12 means by its numbers, as the stream says.

    Attributes:
        matrix: how luma was made.
        full_range: luma from 0 to 255 and not from 16 to 235.
    """

    matrix: Matrix
    full_range: bool = False


USUAL = Colorimetry(Matrix.BT709)
"""That of high definition; stands as well where the format leaves nothing to be said."""


class FromYuv(NamedTuple):
    """The way from Y, Cb and Cr, each 0 to 255, to red, green and blue, likewise.

    Attributes:
        black: luma of black.
        gain: of luma above that.
        red_cr: what red takes of Cr - 128.
        green_cb: what green gives for Cb - 128.
        green_cr: likewise for Cr - 128.
        blue_cb: what blue takes of Cb - 128.
    """

    black: float
    gain: float
    red_cr: float
    green_cb: float
    green_cr: float
    blue_cb: float

    @classmethod
    def of(cls, meaning: Colorimetry) -> FromYuv:
        """By the definition of Y'CbCr."""
        red, blue = SHARES[meaning.matrix]
        green = 1.0 - red - blue
        black, luma_steps, chroma_steps = (0.0, 255.0, 255.0) if meaning.full_range else (16.0, 219.0, 224.0)
        of_cr, of_cb = 2 * (1 - red) * 255.0 / chroma_steps, 2 * (1 - blue) * 255.0 / chroma_steps
        return cls(black, 255.0 / luma_steps, of_cr, of_cb * blue / green, of_cr * red / green, of_cb)


def array_shape(pixels: PixelFormat, resolution_wh: tuple[int, int]) -> tuple[int, ...]:
    """The shape of the array that holds such a picture.

    Raises:
        ValueError: NV12 with an odd side.
    """
    width, height = resolution_wh
    if pixels is not PixelFormat.NV12:
        return height, width, 3 if pixels is PixelFormat.BGR else 4
    if width % 2 or height % 2:
        raise ValueError(f"NV12 of {width} x {height} pixels")
    return height * 3 // 2, width


def resolution_of(pixels: PixelFormat, shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height in pixels of the picture in an array of this shape."""
    rows, width = shape[:2]
    return width, rows * 2 // 3 if pixels is PixelFormat.NV12 else rows
