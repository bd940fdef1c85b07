"""Speed: two plans timed by turns, so that what else the device does falls on both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine.backend import Runner

CALLS = 30
"""Timed of each plan; the median is what counts."""

WARM_UP = 3
"""Calls before them: the first ones load kernels and raise clocks."""


def by_turns(
    first: Runner,
    second: Runner,
    batch: NDArray[np.float32],
    calls: int = CALLS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median time of one call of each, in ms.

    Args:
        first: one plan.
        second: another one with the same input.
        batch: (n, 3, H, W) RGB 0..1, given to both.
        calls: timed of each.
        clock: seconds, monotonic.

    Raises:
        InferenceError: a runner failed.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + calls):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            before_s = clock()
            (first, second)[which].infer(batch)
            if number >= WARM_UP:
                taken[which].append(1e3 * (clock() - before_s))
    return statistics.median(taken[0]), statistics.median(taken[1])
