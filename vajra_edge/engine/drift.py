"""Drift: how far a lower precision moves scores and boxes, anchor by anchor, before any threshold.

The gate counts matched boxes, which stay matched long before accuracy suffers; to rank layers by what they cost, and
to choose among mixtures, a measure that moves with every bit of noise is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORE_FLOOR = 0.02
"""Anchors below this best score in both precisions are not compared ..."""

LEAST_ANCHORS = 10
"""... except the best few of each image, so that empty scenes are judged too."""


@dataclass(frozen=True)
class Drift:
    """Means over the compared anchors, weighted by their score.

    Attributes:
        score: largest difference of a class score, 0..1.
        box: 1 - intersection over union of the two boxes, 0..1.
    """

    score: float
    box: float

    @property
    def total(self) -> float:
        """One number to rank by."""
        return self.score + self.box

    def within(self, bound: Drift) -> bool:
        """Whether neither part is above that of ``bound``."""
        return self.score <= bound.score and self.box <= bound.box


def drift(reference: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]) -> Drift:
    """Compare RAW outputs (4 + classes, anchors) of the same images; 1, 1 where ``found`` is not finite."""
    score = box = weight = 0.0
    for one, other in zip(reference, found, strict=True):
        if not np.isfinite(other).all():
            return Drift(1.0, 1.0)
        best = np.maximum(one[4:].max(axis=0), other[4:].max(axis=0))
        few = min(LEAST_ANCHORS, len(best))
        anchors = best >= min(SCORE_FLOOR, float(np.partition(best, -few)[-few]))
        weights = best[anchors]
        score += float((np.abs(one[4:, anchors] - other[4:, anchors]).max(axis=0) * weights).sum())
        box += float(((1 - _overlap(one[:4, anchors], other[:4, anchors])) * weights).sum())
        weight += float(weights.sum())
    return Drift(score / weight, box / weight) if weight else Drift(0.0, 0.0)


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of box i with box i: two (4, n) cx, cy, w, h to (n,); 1 where both are empty."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    shared = np.prod(np.clip(high - low, 0, None), axis=0)
    union = np.prod(one[2:], axis=0) + np.prod(other[2:], axis=0) - shared
    overlap: NDArray[np.float32] = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    return overlap
