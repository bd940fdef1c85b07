"""Verify, the gate: before a plan may serve it must agree with its FP32 reference on real frames, box by box."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.dataset import open_dataset
from vajra_edge.detections import Detections
from vajra_edge.engine.agreement import CONFIDENCE, SLACK, Agreement
from vajra_edge.engine.backend import Progress, Report, Runner
from vajra_edge.engine.spec import Precision
from vajra_edge.errors import DatasetError, VerifyError
from vajra_edge.geometry.decode import best_class, rows_of_detections
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.graph.signature import Layout

LEAST_BOXES = 20
"""Below this one box more or less is 5 % of recall, and a verdict would be chance (issue C)."""

FRAMES = 8
"""On a street scene some ten objects each; eight inferences of the reference cost a Jetson's CPU about two seconds."""

DEMO_CLIP = "clip.mp4"

LATENCY_CALLS = 20
LATENCY_S = 1.0

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """What a plan must reach.

    Attributes:
        recall: least share of the reference's boxes that the plan finds.
        precision: least share of the plan's boxes that the reference has.
        mean_iou: least mean overlap of matched boxes.
        score_drift: largest mean difference of matched scores.
        enough_boxes: reference boxes after which the comparison ends early.
    """

    recall: float
    precision: float
    mean_iou: float
    score_drift: float
    enough_boxes: int


BOUNDS = {
    Precision.FP32: Bounds(0.98, 0.98, 0.97, 0.01, 40),
    Precision.FP16: Bounds(0.97, 0.97, 0.95, 0.02, 100),
    Precision.INT8: Bounds(0.90, 0.90, 0.85, 0.08, 1000),
}
"""By precision achieved. FP32 differs by the order of sums alone; FP16 may lose 0.1 and INT8 1.0 points of mAP50-95."""


@dataclass(frozen=True)
class Frames:
    """What the comparison runs on.

    Attributes:
        images: (height, width, 3) uint8 BGR each.
        source: where they come from, for people.
        real: photographs; on noise only finiteness and latency mean something.
    """

    images: tuple[NDArray[np.uint8], ...]
    source: str
    real: bool


@dataclass(frozen=True)
class VerifyReport:
    """What the gate saw; JSON values only.

    Attributes:
        passed: the plan may serve.
        judged: there were enough reference boxes for a verdict on agreement.
        reason: in one line, with figures.
        source: where the frames come from.
        frames: how many.
        reference_boxes: of the reference, at the published confidence.
        recall: share of those that the plan finds; None where there are none.
        precision: share of the plan's boxes that the reference has; None where there are none.
        mean_iou: of matched boxes, or None.
        score_drift: mean difference of matched scores, or None.
        latency_p50_ms: of one call with one frame, in the build child; None where the plan was not run.
        latency_p99_ms: likewise.
        bounds: what was asked for.
    """

    passed: bool
    judged: bool
    reason: str
    source: str
    frames: int
    reference_boxes: int
    recall: float | None
    precision: float | None
    mean_iou: float | None
    score_drift: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    bounds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest."""
        return asdict(self)


def verify(candidate: Runner, reference: Runner, frames: Frames, bounds: Bounds, report: Report) -> VerifyReport:
    """Compare a plan with its reference.

    Args:
        candidate: the loaded plan.
        reference: the same graph in FP32; same signature.
        frames: from ``reference_frames`` or held-out calibration images.
        bounds: what must be reached, from ``BOUNDS``.
        report: takes progress.

    Returns:
        A report that passed; not judged where the reference finds fewer than ``LEAST_BOXES``.

    Raises:
        VerifyError: an output is not finite, or the boxes do not agree; ``values["report"]`` has the figures where
            there are any.
        InferenceError: a runner failed.
    """
    height_width = candidate.signature.resolution_hw
    letterbox = Letterbox(height_width)
    blob = letterbox.blank(1)
    tally = Agreement()
    for number, image in enumerate(frames.images):
        report(Progress("verify", 100.0 * number / len(frames.images), f"frame {number + 1} of {len(frames.images)}"))
        letterbox.apply(image, blob[0])
        expected = _finite(reference.infer(blob)[0], "the network itself", "train it again: its weights are damaged")
        found = _finite(candidate.infer(blob)[0], "the plan", "choose a higher precision")
        tally.add(_decoded(candidate, found), _decoded(reference, expected))
        if tally.reference_boxes >= bounds.enough_boxes:
            break
    made = _report(tally, frames, bounds, _latencies_ms(candidate, blob))
    if not made.passed:
        raise VerifyError(made.reason, remedy="choose a higher precision", report=made.to_json())
    return made


def not_run(reason: str, bounds: Bounds) -> VerifyReport:
    """The report on a plan that this machine can build but not run: no verdict."""
    return VerifyReport(
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
        bounds=asdict(bounds),
    )


def reference_frames(folder: Path | None) -> Frames:
    """Frames for the gate: of ``folder`` (images, a video, a data.yaml), else of the demo's clip, else noise.

    Raises:
        DatasetError: ``folder`` is given and holds no image.
    """
    if folder is not None:
        return _sampled(folder)
    for item in resources.files("vajra_edge.demo").iterdir():
        if item.name == DEMO_CLIP:
            try:
                return _sampled(Path(str(item)))
            except DatasetError as error:
                _LOGGER.warning("the demo's clip cannot be read, plans are not judged: %s", error)
    noise = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), np.uint8)
    return Frames(tuple(noise), "noise", real=False)


def _sampled(source: Path) -> Frames:
    pictures = tuple(picture.image for picture in open_dataset(source).sample(most=FRAMES))
    return Frames(pictures, source.name, real=True)


def _finite(output: NDArray[np.float32], whose: str, remedy: str) -> NDArray[np.float32]:
    if not np.isfinite(output).all():
        share = 1 - float(np.isfinite(output).mean())
        raise VerifyError(f"{whose} gives values that are not finite ({share:.1%} of its output)", remedy=remedy)
    return output


def _decoded(runner: Runner, output: NDArray[np.float32]) -> Detections:
    """One image's boxes in input pixels, down to the slack below the published confidence."""
    if runner.signature.layout is Layout.DETECTIONS:
        return rows_of_detections(output, CONFIDENCE * SLACK)
    return best_class(output, CONFIDENCE * SLACK, 0.7, 300)


def _latencies_ms(runner: Runner, blob: NDArray[np.float32]) -> NDArray[np.float64]:
    """Calls in a row, after those of the comparison have warmed it up."""
    taken: list[float] = []
    started_s = time.perf_counter()
    while len(taken) < LATENCY_CALLS and (not taken or time.perf_counter() - started_s < LATENCY_S):
        before_s = time.perf_counter()
        runner.infer(blob)
        taken.append((time.perf_counter() - before_s) * 1e3)
    return np.array(taken)


def _report(tally: Agreement, frames: Frames, bounds: Bounds, latencies_ms: NDArray[np.float64]) -> VerifyReport:
    judged = frames.real and tally.reference_boxes >= LEAST_BOXES
    figures = tally.figures()
    failures = _failures(figures, bounds) if judged else []
    return VerifyReport(
        passed=not failures,
        judged=judged,
        reason=_reason(failures, tally, frames, judged=judged),
        source=frames.source,
        frames=tally.frames,
        reference_boxes=tally.reference_boxes,
        latency_p50_ms=round(float(np.percentile(latencies_ms, 50)), 3),
        latency_p99_ms=round(float(np.percentile(latencies_ms, 99)), 3),
        bounds=asdict(bounds),
        **figures,
    )


def _failures(figures: dict[str, float | None], bounds: Bounds) -> list[str]:
    least = {"recall": bounds.recall, "precision": bounds.precision, "mean_iou": bounds.mean_iou}
    failed = [
        f"{name} {figures[name] or 0:.3f} < {limit}" for name, limit in least.items() if (figures[name] or 0) < limit
    ]
    drift = figures["score_drift"]
    return failed + (
        [f"score_drift {drift:.3f} > {bounds.score_drift}"] if drift and drift > bounds.score_drift else []
    )


def _reason(failures: list[str], tally: Agreement, frames: Frames, *, judged: bool) -> str:
    seen = f"{tally.reference_boxes} boxes on {tally.frames} frames of {frames.source}"
    if failures:
        return f"the plan does not agree with its FP32 reference: {', '.join(failures)} ({seen})"
    if not judged:
        least = f"fewer than {LEAST_BOXES} boxes" if frames.real else "no real frames"
        return f"not judged, {least}: {seen}; finite"
    return f"agrees with its FP32 reference: {tally.recalled} of {seen}"
