"""Spread: what many measurements of one thing say, and no more than they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Percentiles of one measured thing. What so few measurements cannot tell is null, never a guess.

    Attributes:
        n: measurements.
        p50: the median; null: nothing was measured.
        p99: the 99th percentile; null below 100 measurements.
        p99_9: the 99.9th percentile; null below 1,000 measurements.
        max: the largest; null: nothing was measured.
    """

    n: int = 0
    p50: float | None = None
    p99: float | None = None
    p99_9: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of these; a percentile needs one measurement beyond it."""
        if not values:
            return cls()
        many = np.asarray(values, float)
        p50, p99, p99_9, most = (round(float(one), 4) for one in np.percentile(many, (50, 99, 99.9, 100)))
        return cls(len(many), p50, p99 if len(many) >= 100 else None, p99_9 if len(many) >= 1000 else None, most)  # noqa: PLR2004  as the attributes say
