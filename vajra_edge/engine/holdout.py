"""Holdout: an INT8 build's images in two parts, so that the gate judges a plan on images that it was not fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vajra_edge.engine.calibration import CalibrationSet

LEAST_BOXES = 20
"""The gate judges by no fewer: one box more or less would be 5 % of recall, and a verdict chance (issue C)."""

ONE_IN = 8
FEWEST = 4
MOST = 64
"""One image in eight is held out; of a small set a few more, for the gate wants 20 boxes, and never more than half of
it. Sixty-four street scenes show some six hundred boxes: one of them is then 0.2 % of recall."""


@dataclass(frozen=True)
class Holdout:
    """Both parts, spread evenly over the set.

    Attributes:
        fitted: ranges and the choice of layers come from these.
        judged: the gate looks at these; None of a set of one image.
    """

    fitted: CalibrationSet
    judged: CalibrationSet | None

    @classmethod
    def of(cls, images: CalibrationSet) -> Holdout:
        """Split a set."""
        held = held_out(len(images))
        fitted = _part(images, set(range(len(images))) - held)
        return cls(fitted, _part(images, held) if held else None)


def held_out(total: int) -> set[int]:
    """Which of ``total`` images the gate looks at, by their place in the set."""
    count = min(max(total // ONE_IN, FEWEST), total // 2, MOST)
    return {int(index) for index in np.linspace(0, total - 1, count).round()} if count else set()


def _part(images: CalibrationSet, indices: set[int]) -> CalibrationSet:
    """Known by its content alone: ranges are kept under the digest of the images that they were measured on."""
    entries = tuple(entry for index, entry in enumerate(images.pictures.entries) if index in indices)
    return CalibrationSet(images.source, replace(images.pictures, entries=entries))
