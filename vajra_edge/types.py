"""Types: the values of the hot path, a frame, where it lies, and what was found in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat, resolution_of


class Memory:
    """Memory that one image after the other lies in. Whoever made it keeps this, and it outlives everything over it.

    Args:
        bytes_: all of it; it is there for as long as this is.

    Attributes:
        address: of its first byte.
        nbytes: its length.
    """

    def __init__(self, bytes_: NDArray[np.uint8]) -> None:
        self._bytes = bytes_
        self.address, self.nbytes = int(bytes_.ctypes.data), bytes_.nbytes

    def holds(self, image: NDArray[np.uint8]) -> bool:
        """Whether all of a C-contiguous image lies in it."""
        begin = int(image.ctypes.data)
        return self.address <= begin and begin + image.nbytes <= self.address + self.nbytes


@dataclass(frozen=True)
class Frame:
    """One image of one camera.

    Attributes:
        image: uint8, C-contiguous, of the shape that ``PixelFormat`` tells of its format: (height, width, 3) of BGR.
            Nobody writes to it after it was handed on. A camera's lies in memory that its process wants back: whoever
            keeps it for longer than a batch copies it. Who needs BGR asks ``media.bgr.bgr_of``.
        captured_ns: ``time.monotonic_ns()`` when the image was received, or would have been if it had not waited to be
            decoded; for ages and durations.
        taken_at: the same moment in UTC; for people and subscribers.
        seq: counts the frames that the camera's source delivered, from 0; gaps are dropped frames.
        camera: the camera's id in the settings.
        clock_synchronised: ``taken_at`` is by a clock that was known to be right then.
        memory: that the image lies in with others of its camera, before it and after; None: it has its own.
        pixels: its format.
        colorimetry: what its numbers mean, where that is NV12.
    """

    image: NDArray[np.uint8]
    captured_ns: int
    taken_at: datetime
    seq: int
    camera: str
    clock_synchronised: bool = False
    memory: Memory | None = None
    pixels: PixelFormat = PixelFormat.BGR
    colorimetry: Colorimetry = USUAL

    @property
    def resolution_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return resolution_of(self.pixels, self.image.shape)


@dataclass(frozen=True)
class Detections:
    """What was found in one image; an empty scene is a value with no rows, never None.

    Attributes:
        xyxy: (n, 4) float32, left, top, right, bottom in pixels of the image the frame holds, clipped to it.
        confidence: (n,) float32 in 0..1, sorted from high to low.
        class_id: (n,) int32, index into the class names of the plan.

    Raises:
        ValueError: an array has another shape.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.confidence)
        shapes = self.xyxy.shape, self.confidence.shape, self.class_id.shape
        if shapes != ((count, 4), (count,), (count,)):
            raise ValueError(f"expected shapes ({count}, 4), ({count},), ({count},); got {shapes}")

    def __len__(self) -> int:
        return len(self.confidence)

    @classmethod
    def empty(cls) -> Detections:
        """Nothing found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Detections:
        """The rows chosen by a mask (n,) or an index array, in that order."""
        return Detections(self.xyxy[rows], self.confidence[rows], self.class_id[rows])
