"""Agreement: how far the boxes of a plan are those of its reference, over many frames. Pure; no library is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vajra_edge.detections import Detections
from vajra_edge.geometry import boxes

CONFIDENCE = 0.25
"""What is published by default."""

SLACK = 0.8
"""A box just above the threshold may lie just below it on the other side: partners are looked for down to 0.2."""

MATCH_IOU = 0.5
"""The overlap from which COCO and Pascal call a box found; how much better it is shows in ``mean_iou``."""


def counted(found: Detections) -> int:
    """How many of these the gate would count."""
    return int((found.confidence >= CONFIDENCE).sum())


@dataclass(frozen=True)
class Agreed:
    """How far boxes agree; None where there was nothing to count.

    Attributes:
        recall: share of the reference's boxes that the plan finds.
        precision: share of the plan's boxes that the reference has.
        mean_iou: mean overlap of matched boxes.
        score_drift: mean difference of matched scores.
    """

    recall: float | None
    precision: float | None
    mean_iou: float | None
    score_drift: float | None


class Agreement:
    """A tally of matches and misses.

    Attributes:
        frames: compared so far.
        reference_boxes: of the reference, at the published confidence.
        candidate_boxes: of the plan, likewise.
        recalled: reference boxes that the plan has.
        confirmed: plan's boxes that the reference has.
    """

    def __init__(self) -> None:
        self.frames = self.reference_boxes = self.candidate_boxes = self.recalled = self.confirmed = 0
        self._ious: list[float] = []
        self._drifts: list[float] = []

    def add(self, found: Detections, expected: Detections) -> None:
        """Count one frame.

        Args:
            found: of the plan, down to ``CONFIDENCE * SLACK``, in any one coordinate frame.
            expected: of the reference, likewise.
        """
        self.frames += 1
        strong, certain = expected.confidence >= CONFIDENCE, found.confidence >= CONFIDENCE
        self.reference_boxes += int(strong.sum())
        self.candidate_boxes += int(certain.sum())
        for mine, theirs, iou in _pairs(expected, found):
            self.recalled += bool(strong[mine])
            self.confirmed += bool(certain[theirs])
            self._ious.append(iou)
            self._drifts.append(abs(float(expected.confidence[mine]) - float(found.confidence[theirs])))

    def figures(self) -> Agreed:
        """Over all frames so far."""
        return Agreed(
            recall=_share(self.recalled, self.reference_boxes),
            precision=_share(self.confirmed, self.candidate_boxes),
            mean_iou=_mean(self._ious),
            score_drift=_mean(self._drifts),
        )


def _pairs(expected: Detections, found: Detections) -> list[tuple[int, int, float]]:
    """Each expected box with the free box of its class that overlaps it most, the surest first."""
    overlap = boxes.iou(expected.xyxy, found.xyxy)
    overlap[expected.class_id[:, None] != found.class_id[None, :]] = 0
    pairs = []
    for mine in range(len(expected)):
        theirs = int(overlap[mine].argmax()) if len(found) else 0
        if len(found) and overlap[mine, theirs] >= MATCH_IOU:
            pairs.append((mine, theirs, float(overlap[mine, theirs])))
            overlap[:, theirs] = 0
    return pairs


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
