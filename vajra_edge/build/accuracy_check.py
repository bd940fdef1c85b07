"""Accuracy check: before a plan may serve it must agree with its FP32 reference on real frames, box by box.

First how far the boxes of two detectors agree over many frames, which is pure; then the check, with its bounds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.base import Runner
from vajra_edge.build.reference_frames import Frames
from vajra_edge.errors import VerifyError
from vajra_edge.geometry import boxes
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.geometry.preparation import Prepares
from vajra_edge.heads import Limits, head_of
from vajra_edge.plans.report import Bounds, GateFigures, VerifyReport
from vajra_edge.plans.spec import Precision
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import LEAST_BOXES
from vajra_edge.types import Detections

CONFIDENCE = 0.25
"""What is published by default."""

SLACK = 0.8
"""A box just above the threshold may lie just below it on the other side: partners are looked for down to 0.2."""

MATCH_IOU = 0.5
"""The overlap from which COCO and Pascal call a box found; how much better it is shows in ``mean_iou``."""


def counted(found: Detections) -> int:
    """How many of these the accuracy check would count."""
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


LEAST_FRAMES = 3
"""Compared at the least, however many boxes the first ones show."""

LEAST_CALLS = 3
"""Timed at the least; the calls of the comparison count, but for the first, which warms the plan up."""

LATENCY_CALLS = 20
LATENCY_S = 0.2
"""More calls are made for the figures' sake, up to this many or for this long."""


BOUNDS = {
    Precision.FP32: Bounds(0.98, 0.98, 0.97, 0.01, LEAST_BOXES),
    Precision.TF32: Bounds(0.97, 0.97, 0.95, 0.02, 100),
    Precision.FP16: Bounds(0.97, 0.97, 0.95, 0.02, 100),
    Precision.INT8: Bounds(0.93, 0.93, 0.92, 0.04, 1000),
}
"""By precision achieved. FP32 differs by the order of sums alone, FP16 by a tenth of a point of mAP50-95, and TF32
has as many bits. INT8 of YOLOX-nano that loses 1 point shows 0.94 precision and 0.035 score drift and is just let
through; the trained nano loses as much while 0.995 of its boxes stay matched. So these bounds catch what is ruined;
``layer_search.LIMIT`` keeps the points."""


def verify(
    candidate: Runner,
    reference: Runner,
    frames: Frames,
    bounds: Bounds,
    report: Report,
    prepares: Prepares | None = None,
) -> VerifyReport:
    """Compare a plan with its reference.

    Args:
        candidate: the loaded plan.
        reference: the same graph in FP32; same signature.
        frames: from ``evidence``: held-out calibration images or others.
        bounds: what must be reached, from ``BOUNDS``.
        report: takes progress.
        prepares: what will prepare the plan's frames when it serves; None: the host, as it does the reference's.

    Returns:
        A report that passed; not judged where the reference finds fewer than ``LEAST_BOXES``.

    Raises:
        VerifyError: an output is not finite, or the boxes do not agree; ``values["report"]`` is the report where
            there is one.
        InferenceError: a runner failed.
    """
    letterbox = Letterbox(candidate.signature.resolution_hw)
    blob, given = letterbox.blank(1), letterbox.blank(1)
    tally, watch = Agreement(), _Stopwatch(candidate)
    for number, image in enumerate(frames.images):
        report(Progress("verify", 100.0 * number / len(frames.images), f"frame {number + 1} of {len(frames.images)}"))
        letterbox.apply(image, blob[0])
        (prepares or letterbox).apply(image, given[0])
        expected = _finite(reference.infer(blob)[0], "the network itself", "train it again: its weights are damaged")
        found = _finite(watch.infer(given)[0], "the plan", "choose a higher precision")
        tally.add(_decoded(candidate, found), _decoded(reference, expected))
        if tally.reference_boxes >= bounds.enough_boxes and tally.frames >= LEAST_FRAMES:
            break
    made = _report(tally, frames, bounds, watch.latencies_ms(given))
    if not made.figures.passed:
        raise VerifyError(made.figures.reason, remedy="choose a higher precision", report=made)
    return made


def not_run(reason: str, bounds: Bounds) -> VerifyReport:
    """The report on a plan that this machine can build but not run: no verdict."""
    figures = GateFigures(
        passed=True,
        judged=False,
        reason=f"not judged, the plan cannot run here: {reason}",
        source="",
        frames=0,
        reference_boxes=0,
        recall=None,
        precision=None,
        mean_iou=None,
        score_drift=None,
        latency_p50_ms=None,
        latency_p99_ms=None,
        int8_ms=None,
        fp16_ms=None,
        speed="",
    )
    return VerifyReport(figures, bounds)


def _finite(output: NDArray[np.float32], whose: str, remedy: str) -> NDArray[np.float32]:
    if not np.isfinite(output).all():
        share = 1 - float(np.isfinite(output).mean())
        raise VerifyError(f"{whose} gives values that are not finite ({share:.1%} of its output)", remedy=remedy)
    return output


def _decoded(runner: Runner, output: NDArray[np.float32]) -> Detections:
    """One image's boxes in input pixels, down to the slack below the published confidence."""
    return head_of(runner.signature).decode(runner.signature, output, Limits(CONFIDENCE * SLACK))


class _Stopwatch:
    """Times the plan's calls; the first one warms it up and does not count."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._taken_ms: list[float] = []

    def infer(self, blob: NDArray[np.float32]) -> NDArray[np.float32]:
        before_s = time.perf_counter()
        output = self._runner.infer(blob)
        self._taken_ms.append((time.perf_counter() - before_s) * 1e3)
        return output

    def latencies_ms(self, blob: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of all calls so far, and of a few more where those are few or cheap."""
        until_s = time.perf_counter() + LATENCY_S
        while len(self._taken_ms) <= LEAST_CALLS or (
            len(self._taken_ms) <= LATENCY_CALLS and time.perf_counter() < until_s
        ):
            self.infer(blob)
        return np.array(self._taken_ms[1:])


def _report(tally: Agreement, frames: Frames, bounds: Bounds, latencies_ms: NDArray[np.float64]) -> VerifyReport:
    judged = frames.real and tally.reference_boxes >= LEAST_BOXES
    agreed = tally.figures()
    failures = _failures(agreed, bounds) if judged else []
    figures = GateFigures(
        passed=not failures,
        judged=judged,
        reason=_reason(failures, tally, frames, judged=judged),
        source=frames.source,
        frames=tally.frames,
        reference_boxes=tally.reference_boxes,
        recall=agreed.recall,
        precision=agreed.precision,
        mean_iou=agreed.mean_iou,
        score_drift=agreed.score_drift,
        latency_p50_ms=round(float(np.percentile(latencies_ms, 50)), 3),
        latency_p99_ms=round(float(np.percentile(latencies_ms, 99)), 3),
        int8_ms=None,
        fp16_ms=None,
        speed="",
    )
    return VerifyReport(figures, bounds)


def _failures(agreed: Agreed, bounds: Bounds) -> list[str]:
    reached = (
        ("recall", agreed.recall or 0.0, bounds.recall),
        ("precision", agreed.precision or 0.0, bounds.precision),
        ("mean_iou", agreed.mean_iou or 0.0, bounds.mean_iou),
    )
    failed = [f"{name} {found:.3f} < {least}" for name, found, least in reached if found < least]
    if (drift := agreed.score_drift) is not None and drift > bounds.score_drift:
        failed.append(f"score_drift {drift:.3f} > {bounds.score_drift}")
    return failed


def _reason(failures: list[str], tally: Agreement, frames: Frames, *, judged: bool) -> str:
    seen = f"{tally.reference_boxes} boxes on {tally.frames} frames of {frames.source}"
    if failures:
        return f"the plan does not agree with its FP32 reference: {', '.join(failures)} ({seen})"
    if not judged:
        least = f"fewer than {LEAST_BOXES} boxes" if frames.real else "no real frames"
        return f"not judged, {least}: {seen}; finite"
    return f"agrees with its FP32 reference: {tally.recalled} of {seen}"
