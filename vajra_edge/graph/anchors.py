"""Anchors: where a network's candidates lie, as their number tells by the size of its input and the strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STRIDES = (
    (8, 16, 32),
    (8, 16, 32, 64),
    (4, 8, 16, 32),
    (16, 32),
    (4, 8, 16, 32, 64),
    (8, 16, 32, 64, 128),
)
"""Of the detectors in use: the usual three levels, P6, P2, tiny, and more."""
PER_CELL = (1, 3)
"""Anchors of a cell: one in anchor-free networks, three in YOLOv3 to v5 and v7."""
FOLLOWS = 0.8
"""Least correlation of centres with where their cells lie: decoded ones have 0.95 and more, undecoded ones none."""


@dataclass(frozen=True)
class Grid:
    """The cells of every level, one after the other, row by row.

    Attributes:
        strides: of the levels in pixels.
        per_cell: anchors of a cell; of one level all cells of the first anchor come first.
    """

    strides: tuple[int, ...]
    per_cell: int

    def count(self, size_hw: tuple[int, int]) -> int:
        """How many anchors an input of this size has."""
        return self.per_cell * sum(rows * columns for rows, columns in self._levels(size_hw))

    def corners(self, size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """(anchors, 2) column and row of each anchor's cell, in cells."""
        made = []
        for rows, columns in self._levels(size_hw):
            down, across = np.divmod(np.arange(rows * columns), columns)
            made.append(np.tile(np.stack([across, down], 1), (self.per_cell, 1)))
        return np.concatenate(made).astype(np.float32)

    def steps(self, size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """(anchors,) stride of each anchor in pixels."""
        counts = [self.per_cell * rows * columns for rows, columns in self._levels(size_hw)]
        return np.repeat(np.array(self.strides, np.float32), counts)

    def _levels(self, size_hw: tuple[int, int]) -> list[tuple[int, int]]:
        return [(-(-size_hw[0] // stride), -(-size_hw[1] // stride)) for stride in self.strides]


def grid_of(count: int, size_hw: tuple[int, int]) -> Grid | None:
    """The grid that gives ``count`` anchors at this size; None if no usual one does."""
    grids = (Grid(strides, per_cell) for per_cell in PER_CELL for strides in STRIDES)
    return next((grid for grid in grids if grid.count(size_hw) == count), None)


def follows(values: NDArray[np.float32], places: NDArray[np.float32]) -> bool | None:
    """Whether values lie where their cells do; None where values or places are all the same and tell nothing."""
    if not np.isfinite(values).all() or np.ptp(values) == 0 or np.ptp(places) == 0:
        return None
    return bool(np.corrcoef(values, places)[0, 1] > FOLLOWS)


def largest_stride(strides: Sequence[int], size_hw: tuple[int, int]) -> int:
    """The largest of the strides by which this size can be divided."""
    return max((stride for stride in strides if not any(side % stride for side in size_hw)), default=1)
