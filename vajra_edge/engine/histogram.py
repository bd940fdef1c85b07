"""Histogram: how often each magnitude of a tensor occurs, and the limits that clip its outliers.

A histogram is (bins,) counts of |x| over equal bins from 0 to the largest magnitude.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 2048
"""As TensorRT's entropy calibration uses."""

LEVELS = 128
"""Magnitudes of symmetric INT8, 0 to 127."""

PERCENTILE = 99.99
"""Share of magnitudes, in percent, that stays unclipped."""

ENTROPY_STRIDE = 16
"""Limits tried are this many bins apart: 120 of them, each a quarter of a percent to a few percent from the next."""


def limit(counts: NDArray[np.int64], amax: float, algorithm: str) -> float:
    """The largest magnitude that INT8 should hold.

    Args:
        counts: the histogram.
        amax: where its last bin ends.
        algorithm: minmax, percentile, entropy or mse.
    """
    if algorithm == "minmax" or counts.sum() == 0 or amax == 0:
        return amax
    last = {"percentile": _percentile, "entropy": _entropy, "mse": _squared_error}[algorithm](counts)
    return amax * last / len(counts)


def _percentile(counts: NDArray[np.int64]) -> int:
    """Bins needed to hold ``PERCENTILE`` of all values."""
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, PERCENTILE / 100)) + 1


def _squared_error(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that rounding inside and clipping outside together cost the least squared error."""
    centre = np.arange(len(counts)) + 0.5
    total, first, second = (np.cumsum((counts * centre**power)[::-1])[::-1] for power in (0, 1, 2))
    kept = np.arange(LEVELS, len(counts) + 1)
    outside = [np.append(sums, 0)[kept] for sums in (total, first, second)]
    clipped = outside[2] - 2 * kept * outside[1] + kept**2 * outside[0]
    rounded = (counts.sum() - outside[0]) * (kept / (LEVELS - 1)) ** 2 / 12
    return int(kept[np.argmin(clipped + rounded)])


def _entropy(counts: NDArray[np.int64]) -> int:
    """Bins to keep so that the INT8 distribution diverges least (Kullback-Leibler) from the clipped one.

    The procedure is NVIDIA's (S. Migacz, 8-bit Inference with TensorRT, GTC 2017). Zeros are left out, as their bin
    would outweigh all others behind an activation function.
    """
    values = counts.astype(np.float64)
    values[0] = values[1]
    tried = range(LEVELS, len(counts) + 1, ENTROPY_STRIDE)
    return min(tried, key=lambda kept: _divergence(values, kept))


def _divergence(values: NDArray[np.float64], kept: int) -> float:
    wanted = values[:kept].copy()
    wanted[-1] += values[kept:].sum()
    seen = values[:kept] > 0
    level = np.arange(kept) * LEVELS // kept
    sums = np.bincount(level, weights=values[:kept], minlength=LEVELS)
    filled = np.bincount(level, weights=seen, minlength=LEVELS)
    made = np.where(seen, (sums / np.maximum(filled, 1))[level], 0)
    if made.sum() == 0 or wanted.sum() == 0:
        return float("inf")
    p, q = wanted / wanted.sum(), made / made.sum()
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q == 0)].sum()
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(1 / np.finfo(np.float32).eps))
