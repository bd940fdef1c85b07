"""COCO scoring: mean average precision as pycocotools, the reference, computes it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.detections import Detections
from vajra_edge.errors import DatasetError, VajraError
from vajra_edge.evaluate.report import ClassScore, Scores
from vajra_edge.labels import Truth

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
