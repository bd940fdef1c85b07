"""Deadline: a point of time over several steps of a connection."""

from __future__ import annotations

import time


class Deadline:
    """A point of time; as a number it is the seconds left.

    PyAV makes numbers of its timeouts as each step begins, so this gives the second step what the first left.
    """

    def __init__(self, seconds: float) -> None:
        self._at_s = time.monotonic() + seconds

    def __float__(self) -> float:
        return max(0.0, self._at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return float(self) <= 0.0
