"""Motion: where each tracked box is expected next, by a Kalman filter with constant velocity.

A box is its centre, width and height. Position and velocity of each of the four are filtered apart from the others, as
in SORT's models, whose matrices are block diagonal: three numbers are a covariance, and all boxes are filtered at once.
Time is in seconds, so that a camera of two frames a second and dropped frames need no other constants.

The filters of n boxes are a table (20, n), a column a box, since a call of numpy costs more than the few numbers in it.
Its rows, four at a time for centre x, centre y, width and height: position in pixels, velocity in pixels a second,
variance of the position, covariance of both, variance of the velocity. A table may have further rows below them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FILTER, WIDTH, HEIGHT = slice(0, 20), 2, 3
POSITION, VELOCITY = slice(0, 4), slice(4, 8)
VARIANCE, COVARIANCE, VELOCITY_VARIANCE = slice(8, 12), slice(12, 16), slice(16, 20)

MEASURED = 0.05
"""Standard deviation of a measured box by its height (DeepSORT's 1/20)."""

ACCELERATION = np.array([0.6, 0.3, 0.125, 0.125])
"""Root of the density of white acceleration of x, y, width and height, in heights by s^1.5."""

FIRST_SPEED = np.array([[1.05], [0.35], [0.07], [0.07]])
"""Standard deviation of the velocity of a box seen once, in heights a second: 1.4 m/s of a person of 1.7 m is 0.8."""

Columns = NDArray[np.float64]


def begin(table: Columns, measured: Columns) -> None:
    """Fill the filters of (4, n) boxes that are seen for the first time, at rest as far as is known."""
    table[POSITION], table[VELOCITY], table[COVARIANCE] = measured, 0.0, 0.0
    table[VARIANCE] = (MEASURED * measured[HEIGHT]) ** 2
    table[VELOCITY_VARIANCE] = (FIRST_SPEED * measured[HEIGHT]) ** 2


def foreseen(table: Columns, elapsed_s: float) -> Columns:
    """What is expected ``elapsed_s`` later; further rows stay as they are."""
    coefficients = POWERS.dot(np.array((1.0, elapsed_s, elapsed_s**2, elapsed_s**3)))
    later = table.copy()
    np.dot(coefficients[:25].reshape(5, 5), table[FILTER].reshape(5, -1), out=later[FILTER].reshape(5, -1))
    height = np.maximum(table[HEIGHT], 1.0)
    later[8:20] += coefficients[25:, None] * (height * height)
    return later


def correct(table: Columns, measured: Columns, found: NDArray[np.bool_]) -> None:
    """Put in what was measured, (4, n), of those that were found, (n,)."""
    doubt = table[8:16].reshape(2, 4, -1)
    deviation = MEASURED * np.maximum(measured[HEIGHT], 1.0)
    gain = doubt / (table[VARIANCE] + deviation * deviation)
    gain *= found  # a gain of nothing leaves a column as it is, and costs less than to pick the others
    moved = table[0:8].reshape(2, 4, -1)
    moved += gain * (measured - table[POSITION])
    table[VELOCITY_VARIANCE] -= gain[1] * table[COVARIANCE]
    doubt -= gain[0] * doubt


def _powers() -> Columns:
    """Of time, in each number of F and Q of a constant velocity: (25 + 12, 4) for 1, t, t^2 and t^3.

    F P F' is one product for all boxes, since the blocks of P are three numbers each.
    """
    powers = np.zeros((37, 4))
    f, q = powers[:25].reshape(5, 5, 4), powers[25:].reshape(3, 4, 4)
    f[range(5), range(5), 0] = 1.0
    f[0, 1, 1] = f[3, 4, 1] = 1.0
    f[2, 3, 1], f[2, 4, 2] = 2.0, 1.0
    q[0, :, 3], q[1, :, 2], q[2, :, 1] = ACCELERATION**2 / 3, ACCELERATION**2 / 2, ACCELERATION**2
    return powers


POWERS = _powers()
