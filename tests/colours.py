"""NV12 by the definition of Y'CbCr, there and back: what the product's own arithmetic is compared with."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from vajra_edge.pixel_format import SHARES, Colorimetry, Matrix, PixelFormat

MEANINGS = [Colorimetry(matrix, full_range) for matrix, full_range in itertools.product(Matrix, (False, True))]

_OTHERS = itertools.count()


def to_nv12(image: NDArray[np.uint8], meaning: Colorimetry) -> NDArray[np.uint8]:
    """(height * 3 / 2, width) of a BGR image with even sides."""
    red, blue = SHARES[meaning.matrix]
    height, width = image.shape[:2]
    b, g, r = np.moveaxis(image.astype(np.float64) / 255, 2, 0)
    luma = red * r + (1 - red - blue) * g + blue * b
    both = np.dstack([(b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))])
    pairs = both.reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    if meaning.full_range:
        luma, pairs = luma * 255, pairs * 255 + 128
    else:
        luma, pairs = luma * 219 + 16, pairs * 224 + 128
    rows = np.vstack([luma, pairs.reshape(height // 2, width)])
    return np.clip(np.rint(rows), 0, 255).astype(np.uint8)


def from_nv12(image: NDArray[np.uint8], meaning: Colorimetry) -> NDArray[np.float64]:
    """(height, width, 3) BGR, clipped and not rounded; each pair of Cb and Cr is that of four pixels."""
    red, blue = SHARES[meaning.matrix]
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    luma = image[:height].astype(np.float64)
    pairs = image[height:].reshape(height // 2, width // 2, 2).repeat(2, 0).repeat(2, 1).astype(np.float64) - 128
    if meaning.full_range:
        luma, pairs = luma / 255, pairs / 255
    else:
        luma, pairs = (luma - 16) / 219, pairs / 224
    r, b = luma + 2 * (1 - red) * pairs[..., 1], luma + 2 * (1 - blue) * pairs[..., 0]
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.dstack([b, g, r]) * 255, 0, 255)


def stored(image: NDArray[np.uint8], pixels: PixelFormat, meaning: Colorimetry) -> NDArray[np.uint8]:
    """A BGR image as a camera of that format gives it; the fourth byte of BGRx is another each time."""
    match pixels:
        case PixelFormat.BGR:
            return image.copy()
        case PixelFormat.BGRX:
            rest = np.random.default_rng(next(_OTHERS)).integers(0, 256, (*image.shape[:2], 1), np.uint8)
            return np.concatenate([image, rest], axis=2)
        case PixelFormat.NV12:
            return to_nv12(image, meaning)
