from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import onnxruntime as ort
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vajra_edge.datasets.dataset import open_dataset
from vajra_edge.datasets.labels import Truth
from vajra_edge.errors import DatasetError, VajraError
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.heads.detect import multi_label
from vajra_edge.tasks.val import CONFIDENCE, MAX_DET, NMS_IOU, score
from vajra_edge.types import Detections

NAMES = ("person", "car", "dog")
BOX = (10.0, 10.0, 50.0, 50.0)
ELSEWHERE = (100.0, 100.0, 150.0, 150.0)


def found(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )


def test_finding_exactly_what_is_there_scores_one():
    truths = [Truth.of([(0, BOX, False), (1, ELSEWHERE, False)]), Truth.of([]), Truth.of([(0, BOX, False)])]
    predictions = [found((BOX, 0.9, 0), (ELSEWHERE, 0.8, 1)), found(), found((BOX, 0.7, 0))]
    scores = score(truths, predictions, NAMES)
    assert (scores.map50_95, scores.map50) == pytest.approx((1, 1))
    assert (scores.images, scores.objects) == (3, 3)
    assert [(one.name, one.objects) for one in scores.per_class] == [("person", 2), ("car", 1)]
    assert [one.map50 for one in scores.per_class] == pytest.approx([1, 1])


def test_nothing_found_scores_zero():
    assert score([Truth.of([(0, BOX, False)])], [found()], NAMES).map50_95 == 0.0


def test_a_shifted_box_counts_up_to_its_overlap():
    shifted = (20.0, 10.0, 60.0, 50.0)  # overlap 30 * 40 / (2 * 1600 - 1200) = 0.6: right at 0.50, 0.55 and, just, 0.60
    scores = score([Truth.of([(0, BOX, False)])], [found((shifted, 0.9, 0))], NAMES)
    assert (scores.map50, scores.map50_95) == pytest.approx((1, 0.3))


def test_a_better_scored_false_alarm_halves_the_precision():
    predictions = [found((ELSEWHERE, 0.9, 0), (BOX, 0.5, 0))]
    assert score([Truth.of([(0, BOX, False)])], predictions, NAMES).map50 == pytest.approx(0.5)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong():
    truths = [Truth.of([(0, BOX, False), (0, ELSEWHERE, True)])]
    inside = (110.0, 110.0, 120.0, 120.0)
    scores = score(truths, [found((inside, 0.9, 0), (BOX, 0.5, 0))], NAMES)
    assert (scores.map50, scores.objects) == pytest.approx((1, 1))


def test_a_class_that_is_not_there_has_no_score_and_costs_nothing():
    scores = score([Truth.of([(0, BOX, False)])], [found((BOX, 0.9, 0), (ELSEWHERE, 0.9, 2))], NAMES)
    assert scores.map50_95 == pytest.approx(1)
    assert [one.name for one in scores.per_class] == ["person"]


def test_nothing_is_printed(capfd):
    score([Truth.of([(0, BOX, False)])], [found((BOX, 0.9, 0))], NAMES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("truths", [[], [Truth.of([])], [Truth.of([(0, BOX, True)])]])
def test_a_ground_truth_without_objects_is_refused(truths):
    with pytest.raises(DatasetError, match="holds no object; give a dataset with labels"):
        score(truths, [found()] * len(truths), NAMES)


def test_lists_of_different_length_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="1 images of ground truth, 2 of predictions"):
        score([Truth.of([(0, BOX, False)])], [found(), found()], NAMES)


def test_without_pycocotools_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(VajraError, match=r"pip install 'vajra-edge\[eval\]'"):
        score([Truth.of([(0, BOX, False)])], [found()], NAMES)


def plain_pycocotools(truths: list[Truth], predictions: list[Detections], classes: int) -> tuple[float, float]:
    """The library's own way in (loadRes) and its own summary, with its defaults."""
    entries = [
        {
            "id": 1000 * image + row + 1,
            "image_id": image,
            "category_id": int(truth.class_id[row]),
            "bbox": [float(side) for side in (*truth.xyxy[row, :2], *(truth.xyxy[row, 2:] - truth.xyxy[row, :2]))],
            "area": float(np.prod(truth.xyxy[row, 2:] - truth.xyxy[row, :2])),
            "iscrowd": 0,
        }
        for image, truth in enumerate(truths)
        for row in range(len(truth))
    ]
    rows = [
        np.column_stack(
            (np.full(len(one), image), one.xyxy[:, :2], one.xyxy[:, 2:] - one.xyxy[:, :2], one.confidence, one.class_id)
        )
        for image, one in enumerate(predictions)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": number} for number in range(classes)],
            "annotations": entries,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(np.concatenate(rows).astype(np.float64)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def test_random_scenes_score_as_plain_pycocotools_has_it():
    rng = np.random.default_rng(3)
    truths, predictions = [], []
    for _ in range(30):
        corner = rng.random((12, 2)) * 200
        boxes = np.concatenate((corner, corner + 10 + rng.random((12, 2)) * 80), axis=1)
        labels = rng.integers(0, 3, 12)
        truths.append(Truth.of([(int(label), box, False) for label, box in zip(labels, boxes, strict=True)]))
        near = boxes + rng.normal(0, 5, boxes.shape)
        predictions.append(found(*zip(near, np.sort(rng.random(12))[::-1], labels, strict=True)))
    scores = score(truths, predictions, NAMES)
    assert 0.1 < scores.map50_95 < 0.9
    assert (scores.map50_95, scores.map50) == pytest.approx(plain_pycocotools(truths, predictions, 3), abs=1e-9)


def test_the_trained_yolox_on_coco128(shared_data):
    dataset = open_dataset(shared_data / "coco128.yaml")
    network = shared_data / "models/yolox_nano_v8layout.onnx"
    session = ort.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    letterbox, truths, predictions = Letterbox((416, 416)), [], []
    for picture in dataset:
        images = letterbox.blank(1)
        where = letterbox.apply(picture.image, images[0])
        rows = multi_label(session.run(None, {"images": images})[0][0], CONFIDENCE, NMS_IOU, MAX_DET)
        size = (picture.image.shape[1], picture.image.shape[0])
        predictions.append(Detections(where.to_image(rows.xyxy, size), rows.confidence, rows.class_id))
        truths.append(picture.truth)
    scores = score(truths, predictions, dataset.class_names)
    print(f"map50_95 {scores.map50_95:.4f} map50 {scores.map50:.4f} objects {scores.objects}")
    assert (scores.map50_95, scores.map50) == pytest.approx(plain_pycocotools(truths, predictions, 80), abs=1e-9)
    assert scores.map50_95 == pytest.approx(0.34, abs=0.015)
    assert (scores.images, scores.objects) == (128, 929)
