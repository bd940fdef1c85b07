"""Holdout: an INT8 build's images in two parts, so that the gate judges a plan on images that it was not fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vajra_edge.engine import sampler
from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.engine.request import BuildRequest
from vajra_edge.errors import CalibrationError
from vajra_edge.wording import Command, Setting, say

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


def images_of(request: BuildRequest) -> CalibrationSet:
    """The calibration images of an INT8 request.

    Raises:
        CalibrationError: there are none, too few, or others than when the request was made.
    """
    images = sampler.wanted_set(request.calibration, request.state_dir, request.spec.batch)
    if images is None:
        raise CalibrationError(
            "int8 is asked for and there are no calibration images",
            remedy=say("name some in ", Setting.DATA, ", or let the cameras collect them"),
        )
    if images.digest != request.calibration_digest:
        raise CalibrationError(
            f"the calibration images of {images.source} changed since the build was asked for",
            remedy=say(
                "they are used once nobody changes them any more; '", Command.REBUILD, "' takes them as they are now"
            ),
        )
    return images


def _part(images: CalibrationSet, indices: set[int]) -> CalibrationSet:
    """Known by its content alone: ranges are kept under the digest of the images that they were measured on."""
    entries = tuple(entry for index, entry in enumerate(images.pictures.entries) if index in indices)
    return CalibrationSet(images.source, replace(images.pictures, entries=entries))
