"""Motion: where each tracked box is expected next, by a Kalman filter with constant velocity.

A box is its centre, width and height. Position and velocity of each of the four are filtered apart from the others, as
in SORT's models, whose matrices are block diagonal: three numbers are a covariance, and all boxes are filtered at once.
Time is in seconds, so that a camera of two frames a second and dropped frames need no other constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEASURED = 0.05
"""Standard deviation of a measured box by its height (DeepSORT's 1/20)."""

ACCELERATION = np.array([0.6, 0.3, 0.125, 0.125])
"""Root of the density of white acceleration of x, y, width and height, in heights by s^1.5."""

FIRST_SPEED = np.array([1.05, 0.35, 0.07, 0.07])
"""Standard deviation of the velocity of a box seen once, in heights a second: 1.4 m/s of a person of 1.7 m is 0.8."""

Boxes = NDArray[np.float64]


def to_cxcywh(xyxy: Boxes) -> Boxes:
    """Centre, width and height of (n, 4) boxes."""
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.concatenate((xyxy[:, :2] + size / 2, size), 1)


def to_xyxy(cxcywh: Boxes) -> Boxes:
    """The inverse of ``to_cxcywh``; a size below one pixel counts as one."""
    half = np.maximum(cxcywh[:, 2:], 1.0) / 2
    return np.concatenate((cxcywh[:, :2] - half, cxcywh[:, :2] + half), 1)


@dataclass(frozen=True)
class Motion:
    """The filters of n boxes.

    Attributes:
        table: (5, n, 4) for each of centre x, centre y, width and height: position in pixels, velocity in pixels a
            second, variance of the position, covariance of both, variance of the velocity. In one array, since a call
            of numpy costs more than the few numbers in it.
    """

    table: NDArray[np.float64]

    @property
    def position(self) -> Boxes:
        """Centre x, centre y, width, height, (n, 4) in pixels."""
        return np.asarray(self.table[0])

    @property
    def spread(self) -> Boxes:
        """Standard deviation of the centre, (n, 2) in pixels."""
        return np.asarray(np.sqrt(self.table[2, :, :2]))

    @classmethod
    def begin(cls, measured: Boxes) -> Motion:
        """Filters of (n, 4) boxes that are seen for the first time, at rest as far as is known."""
        height = measured[:, 3:]
        table = np.zeros((5, *measured.shape))
        table[0] = measured
        table[2] = (MEASURED * height) ** 2
        table[4] = (FIRST_SPEED * height) ** 2
        return cls(table)

    def after(self, elapsed_s: float, kept: NDArray[np.float64]) -> Motion:
        """What is expected ``elapsed_s`` later.

        Args:
            elapsed_s: in seconds.
            kept: (n,) share of its velocity that each has left then.
        """
        # One product for all of F P F' of a constant velocity, whose blocks are three numbers each.
        step = np.array(
            (
                (1.0, elapsed_s, 0.0, 0.0, 0.0),
                (0.0, 1.0, 0.0, 0.0, 0.0),
                (0.0, 0.0, 1.0, 2 * elapsed_s, elapsed_s**2),
                (0.0, 0.0, 0.0, 1.0, elapsed_s),
                (0.0, 0.0, 0.0, 0.0, 1.0),
            )
        )
        table = (step @ self.table.reshape(5, -1)).reshape(self.table.shape)
        table[1] *= kept[:, None]
        noise = np.array((elapsed_s**3 / 3, elapsed_s**2 / 2, elapsed_s))
        table[2:] += noise[:, None, None] * (ACCELERATION * np.maximum(self.table[0, :, 3:], 1.0)) ** 2
        return Motion(table)

    def corrected(self, rows: NDArray[np.intp], measured: Boxes) -> Motion:
        """These rows with what was measured of them, (len(rows), 4)."""
        seen = self.table[:, rows]
        gain = seen[2:4] / (seen[2] + (MEASURED * measured[:, 3:]) ** 2)
        change = np.empty_like(seen)
        np.multiply(gain, measured - seen[0], out=change[:2])
        np.multiply(gain, -seen[2:4], out=change[2::2])
        np.multiply(gain[0], -seen[3], out=change[3])
        table = self.table.copy()
        table[:, rows] = seen + change
        return Motion(table)

    def take(self, rows: NDArray[np.bool_]) -> Motion:
        """The filters of these rows."""
        return Motion(self.table[:, rows])

    def joined(self, other: Motion) -> Motion:
        """These filters and then the others."""
        return Motion(np.concatenate((self.table, other.table), 1))
