"""A camera before which somebody walks, and the zone and the line that see it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tiny

LEFT = {"name": "left", "corners": [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]}
STREET = {"name": "street", "start": [0.5, 1.0], "end": [0.5, 0.0]}


def walk(folder: Path) -> Path:
    """A red cell walks from left to right."""
    folder.mkdir()
    for column in range(8):
        image = np.full((256, 256, 3), tiny.GREY, np.uint8)
        top, left = 4 * tiny.STRIDE, column * tiny.STRIDE
        image[top : top + tiny.STRIDE, left : left + tiny.STRIDE] = tiny.RED
        cv2.imwrite(str(folder / f"{column}.png"), image)
    return folder
