"""Thumbnail: a frame as 256 grey levels, in which sensor noise is gone and a change of the scene is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 16
"""Cells a side. A cell of a 640 x 480 frame averages 1,200 pixels: noise of 25 grey levels, as a night camera's, leaves
0.7 of them in it."""

LEAST_CONTRAST = 4.0
"""Standard deviation in grey levels. A picture with less is a covered lens or a dark night: it shows nothing."""

NEW_LEVELS = 8.0
NEW_CELLS = 3
"""A scene is another one where at least this many cells (1 % of the picture) changed by this many grey levels."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(SIDE, SIDE) float32 grey levels, averaged by area and never rounded: a rounded flat picture is all noise.

    Args:
        image: (height, width, 3) BGR or (height, width) grey.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image  # noqa: PLR2004
    return np.asarray(cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)


def of_file(path: Path) -> NDArray[np.float32] | None:
    """The thumbnail of a stored JPEG, decoded at half its size; None of one that was read and is damaged.

    Raises:
        OSError: it cannot be read, which says nothing about the picture. ``cv2.imread`` would not tell them apart.
    """
    content = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        grey = cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_2)
    except cv2.error:  # nothing in it, or a header that promises more pixels than OpenCV allows
        return None
    return None if grey is None else thumbnail(np.asarray(grey, np.uint8))


def contrast(mine: NDArray[np.float32]) -> float:
    """Standard deviation over the cells, in grey levels."""
    return float(mine.std())


def shows_new(mine: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> bool:
    """Whether a scene differs from every other; one that only became brighter as a whole (exposure) does not."""
    if not others:
        return True
    differences = np.stack(others) - mine
    differences -= differences.mean(axis=(1, 2), keepdims=True)
    changed_cells = (np.abs(differences) >= NEW_LEVELS).sum(axis=(1, 2))
    return bool(changed_cells.min() >= NEW_CELLS)
