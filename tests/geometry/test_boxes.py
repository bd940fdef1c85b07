from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.geometry.boxes import cxcywh_to_xyxy, iou, nms


def sequential(xyxy, scores, class_id, iou_above, max_det):
    """The definition: best first; a box goes if a kept one of its class overlaps it by more than ``iou_above``."""
    kept = []
    for row in np.argsort(-scores, kind="stable"):
        rivals = [other for other in kept if class_id[other] == class_id[row]]
        if not rivals or iou(xyxy[[row]], xyxy[rivals]).max() <= iou_above:
            kept.append(row)
    return np.array(kept[:max_det])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("iou_above", [0.3, 0.7])
def test_equals_the_sequential_definition(seed, iou_above):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 120))
    corner = rng.uniform(0, 60, (count, 2))
    xyxy = np.concatenate((corner, corner + rng.uniform(5, 60, (count, 2))), axis=1).astype(np.float32)
    scores = rng.permutation(np.linspace(0.05, 0.95, count)).astype(np.float32)
    class_id = rng.integers(0, 3, count).astype(np.int32)
    expected = sequential(xyxy, scores, class_id, iou_above, 50)
    np.testing.assert_array_equal(nms(xyxy, scores, class_id, iou_above, 50), expected)


def test_nothing_in_nothing_out():
    empty = np.zeros((0, 4), np.float32)
    assert len(nms(empty, np.zeros(0, np.float32), np.zeros(0, np.int32), 0.5, 10)) == 0


def test_iou_of_equal_half_and_apart():
    box = np.array([[0, 0, 10, 10]], np.float32)
    others = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [5, 5, 5, 5]], np.float32)
    np.testing.assert_allclose(iou(box, others), [[1, 0.5, 0, 0]])


def test_centre_and_size_to_corners():
    np.testing.assert_array_equal(cxcywh_to_xyxy(np.array([[5, 6, 4, 2]], np.float32)), [[3, 5, 7, 7]])
