"""Frame: one image with its time and number."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """One image of one camera.

    Attributes:
        image: (height, width, 3) uint8, BGR, C-contiguous. Nobody writes to it after it was handed on.
        captured_ns: ``time.monotonic_ns()`` when the image was received; for ages and durations.
        taken_at: the same moment in UTC; for people and subscribers.
        seq: counts the frames that the camera's source delivered, from 0; gaps are dropped frames.
        camera: the camera's id in the settings.
    """

    image: NDArray[np.uint8]
    captured_ns: int
    taken_at: datetime
    seq: int
    camera: str

    @property
    def resolution_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.image.shape[:2]
        return int(width), int(height)
