"""Pictures that carry their number through lossy coding."""

from __future__ import annotations

import numpy as np


def picture(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A grey picture whose brightness tells its number, with a little texture."""
    image = np.full((height, width, 3), 20 + 10 * (number % 20), np.uint8)
    image[:4] = 255
    return image


def number_of(image: np.ndarray) -> int:
    """The number that ``picture`` painted, after lossy coding."""
    return round((float(image[10:].mean()) - 20.0) / 10.0)
