"""Val: a runner over a dataset to mean average precision, as pycocotools computes it, and speed.

Images are letterboxed into the whole input (square or as the network is made), as upstream's val does for every network
of fixed shape; its ``rect`` mode for ``.pt`` files, which pads each batch to its own shape, is not offered. Like there,
the shorter side is rounded up, where service and predict round to the nearest: one row of pixels, and 0.0036 of
mAP50-95 on 128 photos at 416 px.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.base import Runner
from vajra_edge.datasets.account import Account, Counted
from vajra_edge.datasets.dataset import Dataset, Picture
from vajra_edge.datasets.labels import Truth
from vajra_edge.errors import DatasetError, NotFinite, VajraError
from vajra_edge.geometry.letterbox import Letterbox, LetterboxTransform
from vajra_edge.heads import Limits, head_of
from vajra_edge.tasks import labels_check
from vajra_edge.types import Detections
from vajra_edge.wording import Argument, say


@dataclass(frozen=True)
class ClassScore:
    """One class that the ground truth holds.

    Attributes:
        name: of the class.
        objects: of it in the ground truth, crowds not counted.
        map50_95: mean over IoU 0.50, 0.55 ... 0.95 of the average precision, 0..1.
        map50: average precision at IoU 0.50.
    """

    name: str
    objects: int
    map50_95: float
    map50: float


@dataclass(frozen=True)
class Scores:
    """What ``val.score`` finds: means over the classes that the ground truth holds.

    Attributes:
        map50_95: COCO's primary figure, 0..1.
        map50: at IoU 0.50.
        images: scored.
        objects: in the ground truth, crowds not counted.
        per_class: in the order of class ids.
    """

    map50_95: float
    map50: float
    images: int
    objects: int
    per_class: tuple[ClassScore, ...]


@dataclass(frozen=True)
class ValReport:
    """What ``val`` returns.

    Attributes:
        scores: the accuracy.
        speed_ms: mean milliseconds an image by stage.
        notes: what the reader must know, such as that a network with NMS scores the best class of an anchor only.
        background: images of those scored that have no object.
        left_out: what the dataset has and was not scored, by reason.
        read_as: what was read otherwise than as a plain box of its picture, by reason.
    """

    scores: Scores
    speed_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    background: int = 0
    left_out: tuple[Counted, ...] = ()
    read_as: tuple[Counted, ...] = ()

    @property
    def map50_95(self) -> float:
        """COCO's primary figure, 0..1."""
        return self.scores.map50_95

    @property
    def map50(self) -> float:
        """At IoU 0.50."""
        return self.scores.map50

    @property
    def per_class(self) -> tuple[ClassScore, ...]:
        """Each class that the ground truth holds."""
        return self.scores.per_class

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, unrounded: those of ``Scores``, then the others by their names."""
        return {
            **asdict(self.scores),
            "per_class": [asdict(score) for score in self.scores.per_class],
            "speed_ms": dict(self.speed_ms),
            "notes": list(self.notes),
            "background": self.background,
            "left_out": [one.to_json() for one in self.left_out],
            "read_as": [one.to_json() for one in self.read_as],
        }


CONFIDENCE, NMS_IOU, MAX_DET = 0.001, 0.7, 300
"""What val's detections are made with (upstream's val), on a network without NMS with every label of an anchor."""
SCORED_DETECTIONS = 100
"""Best detections of a class and image that count: COCO's own figure, so that ours compare with published ones."""


def score(ground_truth: Sequence[Truth], predictions: Sequence[Detections], class_names: Sequence[str]) -> Scores:
    """Compare what was found with what is there, image by image.

    Args:
        ground_truth: one an image, boxes in pixels.
        predictions: one an image in the same order, boxes in pixels of the same image.
        class_names: of both, in the order of class ids.

    Raises:
        DatasetError: the ground truth holds no object.
        VajraError: pycocotools is not installed.
        ValueError: the two differ in length.
    """
    if len(ground_truth) != len(predictions):
        raise ValueError(f"{len(ground_truth)} images of ground truth, {len(predictions)} of predictions")
    objects = np.bincount(
        np.concatenate([truth.class_id[~truth.crowd] for truth in ground_truth] or [np.zeros(0, np.int32)]),
        minlength=len(class_names),
    )
    if not objects.any():
        raise DatasetError("the ground truth holds no object", remedy="give a dataset with labels")
    precision = _precision(ground_truth, predictions, len(class_names))
    present = [int(label) for label in np.flatnonzero(objects)]
    per_class = tuple(
        ClassScore(class_names[k], int(objects[k]), float(precision[:, :, k].mean()), float(precision[0, :, k].mean()))
        for k in present
    )
    return Scores(
        float(precision[:, :, present].mean()),
        float(precision[0, :, present].mean()),
        len(ground_truth),
        int(objects.sum()),
        per_class,
    )


def _precision(ground_truth: Sequence[Truth], predictions: Sequence[Detections], classes: int) -> NDArray[np.float64]:
    """(10 IoU thresholds, 101 recalls, classes) interpolated precision; -1 for a class without objects."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise VajraError("scoring needs pycocotools", remedy="run: pip install 'vajra-edge[eval]'") from error
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress, where --json has its one document
        truth, found = COCO(), COCO()
        truth.dataset = _dataset(classes, len(ground_truth), _truth_entries(ground_truth))
        found.dataset = _dataset(classes, len(ground_truth), _found_entries(predictions))
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [SCORED_DETECTIONS]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, 0]
    return precision


def _dataset(classes: int, images: int, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    numbered = [{**entry, "id": number} for number, entry in enumerate(annotations, 1)]  # 0 means unmatched to it
    return {
        "images": [{"id": number} for number in range(images)],
        "categories": [{"id": number} for number in range(classes)],
        "annotations": numbered,
    }


def _truth_entries(ground_truth: Sequence[Truth]) -> list[dict[str, Any]]:
    return [
        {**_place(image, box, label), "iscrowd": int(crowd), "ignore": int(crowd)}
        for image, truth in enumerate(ground_truth)
        for box, label, crowd in zip(truth.xyxy, truth.class_id, truth.crowd, strict=True)
    ]


def _found_entries(predictions: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {**_place(image, box, label), "score": float(confidence)}
        for image, found in enumerate(predictions)
        for box, confidence, label in zip(found.xyxy, found.confidence, found.class_id, strict=True)
    ]


def _place(image: int, xyxy: NDArray[np.float32], label: np.int32) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(side) for side in xyxy)
    width, height = x2 - x1, y2 - y1
    return {"image_id": image, "category_id": int(label), "bbox": [x1, y1, width, height], "area": width * height}


BEST_CLASS_NOTE = "a network with NMS tells the best class of each anchor only: scores lie a little lower than without"
BY_NUMBER_NOTE = "classes were matched by number, whatever they are called"
END_TO_END_NOTE = "the network chooses its objects itself: what its own threshold leaves out is not scored"
_LOGGER = logging.getLogger(__name__)


@dataclass
class ValTally:
    """What was true and what was found, image by image, and the time it took.

    Attributes:
        truths: one an image, with class ids of the dataset.
        sizes: width and height of each image, in pixels.
        found: one an image, in pixels of it.
        spent_s: by stage.
    """

    truths: list[Truth] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=lambda: {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0})

    def speed_ms(self) -> dict[str, float]:
        """Mean milliseconds an image, by stage."""
        return {stage: 1e3 * spent_s / max(len(self.found), 1) for stage, spent_s in self.spent_s.items()}


def validate(
    runner: Runner,
    pictures: Dataset,
    conf: float,
    iou: float,
    batch: int,
    advance: Callable[[int], None],
    *,
    by_number: object = False,
) -> ValReport:
    """Run every picture and score what is found.

    Args:
        runner: what is judged.
        pictures: with labels.
        conf: lowest confidence that counts; upstream's val: 0.001.
        iou: of NMS on the host; what is baked in stays.
        batch: images in one call, at most the runner's.
        advance: takes how many images are done.
        by_number: match classes by number, whatever they are called.

    Raises:
        DatasetError: no labels, or wrong ones; objects of classes that the network does not have; pictures of another
            size than was labelled, or none that can be used.
        VajraError: pycocotools is absent.
        InferenceError: the runner failed, or an image's scores are not finite: no figure would count what it missed.
    """
    if not isinstance(by_number, bool):
        told = say(Argument.BY_NUMBER, f" {by_number!r} is neither True nor False")
        raise VajraError(told, remedy=say("pass ", Argument.BY_NUMBER.of(True), ", or leave it out"))
    if not pictures.labelled:
        raise pictures.without_labels()
    names, account = runner.signature.class_names, Account()
    drawn = pictures.with_labels(account, len(names))
    labels_check.require_objects(drawn)
    ids = labels_check.class_ids(drawn, names, account, by_number=by_number)
    made = tally(runner, drawn, conf, iou, batch, advance, account)
    labels_check.require_left(pictures, made.truths, account)
    labels_check.require_inside(pictures, made.truths, made.sizes)
    truths = [replace(truth, class_id=ids[truth.class_id]) for truth in made.truths]
    notes = (BEST_CLASS_NOTE,) * runner.signature.has_nms + (BY_NUMBER_NOTE,) * by_number
    notes += (END_TO_END_NOTE,) * runner.signature.end_to_end
    for one in account.left_out():
        _LOGGER.warning("left out: %s", one)
    background = sum(not len(truth) for truth in truths)
    return ValReport(
        score(truths, made.found, names), made.speed_ms(), notes, background, account.left_out(), account.read_as()
    )


def tally(
    runner: Runner,
    pictures: Dataset,
    conf: float,
    iou: float,
    batch: int,
    advance: Callable[[int], None],
    account: Account | None = None,
) -> ValTally:
    """Run every picture; see ``validate``.

    Args:
        runner: what is judged.
        pictures: with their labels, or without.
        conf: lowest confidence that counts.
        iou: of NMS on the host.
        batch: images in one call, at most the runner's.
        advance: takes how many images are done.
        account: images that cannot be used are left out and counted there; None: each is an error.
    """
    letterbox, made = Letterbox(runner.signature.resolution_hw, rounded_up), ValTally()
    head, limits = head_of(runner.signature), Limits(conf, iou, MAX_DET, every_class=True)
    buffer = letterbox.blank(min(batch, runner.signature.batch))
    for group in _groups(pictures.pictures(account), len(buffer)):
        at_s = [time.perf_counter()]
        places = [letterbox.apply(one.image, row) for one, row in zip(group, buffer, strict=False)]
        at_s.append(time.perf_counter())
        outputs = runner.infer(buffer[: len(group)])
        at_s.append(time.perf_counter())
        for one, place, output in zip(group, places, outputs, strict=True):
            try:
                found = head.decode(runner.signature, output, limits)
            except NotFinite:
                raise NotFinite(one.name) from None
            made.sizes.append((one.image.shape[1], one.image.shape[0]))
            made.found.append(head.to_image(found, place, made.sizes[-1]))
            made.truths.append(one.truth or Truth.of([]))
        at_s.append(time.perf_counter())
        for stage, spent_s in zip(made.spent_s, np.diff(at_s), strict=True):
            made.spent_s[stage] += float(spent_s)
        advance(len(group))
    return made


def rounded_up(resolution_wh: tuple[int, int], input_hw: tuple[int, int]) -> LetterboxTransform:
    """Where upstream's val puts an image: as ``Placement.of``, with the sides rounded up."""
    scale = LetterboxTransform.of(resolution_wh, input_hw).scale
    width_px, height_px = (
        min(math.ceil(side * scale), most) for side, most in zip(resolution_wh, reversed(input_hw), strict=True)
    )
    left = round((input_hw[1] - width_px) / 2 - 0.1)
    top = round((input_hw[0] - height_px) / 2 - 0.1)
    return LetterboxTransform(scale, left, top, width_px, height_px)


def _groups(pictures: Iterable[Picture], most: int) -> Iterator[list[Picture]]:
    gathered: list[Picture] = []
    for picture in pictures:
        gathered.append(picture)
        if len(gathered) == most:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
