"""Source: the contract of whatever frames of one camera come from, and the gate by which foreign pixels enter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import SourceError

MAX_IMAGE_PX = 64 * 1024 * 1024  # twice 8K UHD; one image of it is 192 MiB, and a forged header can ask for far more


@dataclass(frozen=True)
class RawFrame:
    """What a source read.

    Attributes:
        image: (height, width, 3) uint8, BGR, C-contiguous; fresh memory, so that nobody overwrites it later.
        position_s: its place on the clip's own time line, growing over loops; None where the world sets the pace.
    """

    image: NDArray[np.uint8]
    position_s: float | None = None


class Source(Protocol):
    """Frames of one camera. Used by one thread; a source that was closed is not opened again.

    Attributes:
        live: frames come when the world makes them and an end is a loss; False: ``read`` returns None at the end.
        decode_errors: images that were skipped because they could not be decoded.
    """

    live: bool
    decode_errors: int

    def open(self) -> None:
        """Acquire the device, connection or file.

        Raises:
            SourceError: it cannot be opened; says why, without any password.
            SettingsError: the credentials file cannot be read.
        """
        ...

    def read(self) -> RawFrame | None:
        """Wait for the next image; None after the last one of a finite source.

        Raises:
            SourceError: the camera is lost, or what it sent is not an image.
        """
        ...

    def close(self) -> None:
        """Release everything; idempotent, also after a failed ``open``.

        Only the reading thread may call this: OpenCV crashes (SIGSEGV, seen with 5.0.0) when a capture is released
        while another thread reads from it. Every read ends by itself, at the latest after the camera's ``stall_s``.
        """
        ...


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
