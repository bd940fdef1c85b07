"""Source: the contract of whatever frames of one camera come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat


@dataclass(frozen=True)
class RawFrame:
    """What a source read.

    Attributes:
        image: uint8, C-contiguous, as ``pixels`` says; fresh memory, so that nobody overwrites it later.
        position_s: its place on the clip's own time line, growing over loops; None where the world sets the pace.
        pixels: its format; of what is not live always BGR.
        colorimetry: what its numbers mean, where that is NV12.
        age_s: how long ago it was captured, as far as the source can tell; what is not live has none.
        left_out: frames before it that were left out, undecoded, to stay near the newest.
    """

    image: NDArray[np.uint8]
    position_s: float | None = None
    pixels: PixelFormat = PixelFormat.BGR
    colorimetry: Colorimetry = USUAL
    age_s: float = 0.0
    left_out: int = 0


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
