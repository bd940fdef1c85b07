"""Pixels: the gate by which foreign ones enter, from cameras, files and callers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import SourceError
from vajra_edge.media.limits import MAX_IMAGE_PX


def check_image(image: object, name: str) -> NDArray[np.uint8]:
    """The image, once it is sure to be one; the only gate by which foreign pixels enter.

    Args:
        image: what a library returned.
        name: where it came from, without passwords.

    Raises:
        SourceError: it is not (height, width, 3) uint8, or larger than ``MAX_IMAGE_PX``.
    """
    pixels = check_pixels(image, name)
    check_size(pixels.shape[1], pixels.shape[0], name)
    return pixels


def check_pixels(image: object, name: str) -> NDArray[np.uint8]:
    """The image of any size, C-contiguous.

    Raises:
        SourceError: it is not (height, width, 3) uint8.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:  # noqa: PLR2004  axes and colours
        shape = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise SourceError(f"{name} gave {shape} where an 8-bit BGR image was expected", remedy="convert it to BGR")
    return np.ascontiguousarray(image)


def check_size(width_px: int, height_px: int, name: str) -> None:
    """Refuse what no camera sends.

    Raises:
        SourceError: an empty image, or more than ``MAX_IMAGE_PX`` pixels.
    """
    if width_px < 1 or height_px < 1 or width_px * height_px > MAX_IMAGE_PX:
        raise SourceError(
            f"{name} has images of {width_px} x {height_px} pixels, allowed are 1 to {MAX_IMAGE_PX} pixels",
            remedy="choose a smaller stream of the camera",
        )
