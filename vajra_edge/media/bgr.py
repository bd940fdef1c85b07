"""BGR of a frame on the host, for whatever looks at one there: the CPU's letterbox, snapshots, calibration images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vajra_edge.media.opencv import load_cv2
from vajra_edge.pixel_format import Colorimetry, FromYuv, PixelFormat
from vajra_edge.types import Frame

_ZERO = 128
"""Of Cb and Cr."""

_BAND_ROWS = 64
"""Converted at a time, so that what lies between stays in the processor's cache: half the time of a whole 1080p one."""


def bgr_of(frame: Frame) -> NDArray[np.uint8]:
    """The frame as (height, width, 3) BGR, see ``to_bgr``."""
    return to_bgr(frame.image, frame.pixels, frame.colorimetry)


def interleaved(frame: Frame) -> NDArray[np.uint8]:
    """The frame as BGR or BGRx, whichever costs less: for who scales it down before it leaves the fourth byte away."""
    return frame.image if frame.pixels is PixelFormat.BGRX else bgr_of(frame)


def in_own_bgr(frame: Frame) -> Frame:
    """The frame with an image in BGR that nobody else holds."""
    image = bgr_of(frame)
    own = image.copy() if image is frame.image else image
    return replace(frame, image=own, memory=None, pixels=PixelFormat.BGR)


def to_bgr(image: NDArray[np.uint8], pixels: PixelFormat, colorimetry: Colorimetry) -> NDArray[np.uint8]:
    """A picture as (height, width, 3) BGR: the same array where it is that already, else a new one.

    Each level is within one of what ``letterbox.cu`` makes of it. OpenCV's own conversion of NV12 knows one matrix and
    range, and takes luma below black for black before it adds the colours.
    """
    cv2 = load_cv2()
    match pixels:
        case PixelFormat.BGR:
            return image
        case PixelFormat.BGRX:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR), np.uint8)
        case PixelFormat.NV12:
            return _from_nv12(image, _matrix(FromYuv.of(colorimetry)))


def _from_nv12(image: NDArray[np.uint8], matrix: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Each pair of Cb and Cr is that of four pixels, as in the kernel; OpenCV multiplies with ten bits of fraction."""
    cv2 = load_cv2()
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    pairs = image[height:].reshape(height // 2, width // 2, 2)
    bgr, yuv = np.empty((height, width, 3), np.uint8), np.empty((_BAND_ROWS, width, 3), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        end = min(top + _BAND_ROWS, height)
        band = yuv[: end - top]
        wide = cv2.resize(pairs[top // 2 : end // 2], (width, end - top), interpolation=cv2.INTER_NEAREST)
        cv2.mixChannels([image[top:end], wide], [band], [0, 0, 1, 1, 2, 2])
        cv2.transform(band, matrix, bgr[top:end])
    return bgr


def _matrix(way: FromYuv) -> NDArray[np.float32]:
    """(3, 4) from Y, Cb, Cr and one to blue, green and red."""
    dark = -way.black * way.gain
    return np.array(
        [
            [way.gain, way.blue_cb, 0.0, dark - _ZERO * way.blue_cb],
            [way.gain, -way.green_cb, -way.green_cr, dark + _ZERO * (way.green_cb + way.green_cr)],
            [way.gain, 0.0, way.red_cr, dark - _ZERO * way.red_cr],
        ],
        np.float32,
    )
