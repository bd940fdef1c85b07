from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.errors import NotFinite
from vajra_edge.geometry import boxes
from vajra_edge.geometry.letterbox import LetterboxTransform
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.heads import Limits, head_of
from vajra_edge.heads.detect import best_class, multi_label, rows_of_detections
from vajra_edge.types import Detections


def raw(*anchors):
    return np.array(anchors, np.float32).T


def test_best_class_takes_one_class_an_anchor_and_suppresses_within_it():
    output = raw((50, 50, 20, 20, 0.9, 0.8), (51, 50, 20, 20, 0.6, 0.1), (51, 50, 20, 20, 0.1, 0.7))
    found = best_class(output, 0.25, 0.5, 300)
    assert found.class_id.tolist() == [0, 1]
    np.testing.assert_allclose(found.confidence, [0.9, 0.7])
    np.testing.assert_allclose(found.xyxy[0], [40, 40, 60, 60])


def plain(output, confidence, iou_above, max_det):
    """``best_class`` as it is written in upstream: every anchor's class first, then the threshold."""
    best, class_id = output[4:].max(axis=0), output[4:].argmax(axis=0).astype(np.int32)
    kept = best > confidence
    xyxy = boxes.cxcywh_to_xyxy(output[:4, kept].T)
    rows = boxes.nms(xyxy, best[kept], class_id[kept], iou_above, max_det)
    return Detections(xyxy[rows], best[kept][rows], class_id[kept][rows])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 60), st.sampled_from([0.0, 0.25, 0.5, 0.99]))
def test_choosing_classes_of_survivors_alone_changes_nothing(seed, classes, anchors, confidence):
    dice = np.random.default_rng(seed)
    scores = dice.integers(0, 9, (classes, anchors)) / 8  # ties, and scores at the threshold
    output = np.concatenate([dice.uniform(10, 50, (4, anchors)), scores]).astype(np.float32)
    for found in (best_class(output, confidence, 0.5, 20), best_class(output, confidence, 0.5, 20, anchors or 1)):
        expected = plain(output, confidence, 0.5, 20)
        np.testing.assert_array_equal(found.xyxy, expected.xyxy)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        np.testing.assert_array_equal(found.class_id, expected.class_id)


def test_only_the_best_candidates_enter_nms():
    apart = [(100 * k, 50, 20, 20, score, 0.1) for k, score in enumerate((0.5, 0.9, 0.7, 0.8))]
    assert best_class(raw(*apart), 0.25, 0.5, 300, 2).confidence.tolist() == pytest.approx([0.9, 0.8])
    rival = (101, 50, 20, 20, 0.85, 0.1)  # it takes a candidate's place and then gives way
    assert best_class(raw(*apart, rival), 0.25, 0.5, 300, 2).confidence.tolist() == pytest.approx([0.9])


def test_multi_label_keeps_both_classes_of_one_anchor():
    found = multi_label(raw((50, 50, 20, 20, 0.9, 0.8)), 0.001, 0.7, 300)
    assert found.class_id.tolist() == [0, 1]


def test_empty_rows_are_no_detections():
    output = np.array([[1, 1, 5, 5, 0.3, 2], [2, 2, 6, 6, 0.9, 1], [0, 0, 0, 0, 0, 0]], np.float32)
    found = rows_of_detections(output, 0.0)
    assert found.class_id.tolist() == [1, 2]
    assert found.class_id.dtype == np.int32


def test_the_golden_detections_of_upstream_are_reproduced(shared_data):
    golden = np.load(shared_data / "golden" / "trained_nano_vtest700.npz")
    output = np.concatenate([golden["boxes"], golden["scores_f16"].astype(np.float32)], axis=1)[0]
    height, width = (int(side) for side in golden["orig_hw"])
    for confidence, name in ((0.25, "dets_conf025"), (0.05, "dets_conf005")):
        found = best_class(output, confidence, 0.7, 300)
        boxes = LetterboxTransform.of((width, height), (640, 640)).to_image(found.xyxy, (width, height))
        assert found.class_id.tolist() == golden[name][:, 5].astype(int).tolist()
        np.testing.assert_allclose(boxes, golden[name][:, :4], atol=0.1)


def signature_of(layout, **nms):
    return Signature("images", "out", layout, 1, (64, 64), False, False, 32, ("person", "car"), **nms)


ANCHORS = raw((50, 50, 20, 20, 0.9, 0.8), (51, 50, 20, 20, 0.6, 0.1), (9, 9, 8, 8, 0.2, 0.1))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(0.25, 0.5), [0.9]),
        (Limits(0.25, 0.95), [0.9, 0.6]),
        (Limits(0.15, 0.5), [0.9, 0.2]),
        (Limits(0.15, 0.5, max_det=1), [0.9]),
        (Limits(0.15, 0.5, top_k=2), [0.9]),
        (Limits(0.25, 0.5, every_class=True), [0.9, 0.8]),
    ],
)
def test_limits_hold_where_the_network_has_no_nms(limits, expected):
    signature = signature_of(Layout.RAW)
    found = head_of(signature).decode(signature, ANCHORS, limits)
    np.testing.assert_allclose(found.confidence, expected)


def test_of_a_network_with_nms_the_confidence_alone_counts():
    signature = signature_of(Layout.DETECTIONS, nms_iou=0.7, max_det=3, top_k=9)
    rows = np.array([[1, 1, 5, 5, 0.9, 0], [1, 1, 5, 5, 0.6, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    found = head_of(signature).decode(signature, rows, Limits(0.25, 0.1, max_det=1, top_k=1, every_class=True))
    np.testing.assert_allclose(found.confidence, [0.9, 0.6])


def test_found_boxes_are_moved_to_the_image_and_clipped_to_it():
    signature = signature_of(Layout.RAW)
    found = Detections(np.array([[0, 16, 64, 60]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    moved = head_of(signature).to_image(found, LetterboxTransform.of((128, 64), (64, 64)), (128, 64))
    np.testing.assert_allclose(moved.xyxy, [[0, 0, 128, 64]])


@pytest.mark.parametrize("layout", Layout)
def test_every_layout_has_a_head_that_knows_its_rows(layout):
    signature = signature_of(layout, max_det=3)
    assert head_of(signature).rows(signature) == {Layout.RAW: 6, Layout.DETECTIONS: 3}[layout]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("every_class", [False, True])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("anchor", [0, 2])
def test_one_score_that_is_no_number_makes_the_image_none(wrong, every_class, label, anchor):
    signature, output = signature_of(Layout.RAW), ANCHORS.copy()
    output[4 + label, anchor] = wrong
    with pytest.raises(NotFinite, match="not finite; choose a higher precision"):
        head_of(signature).decode(signature, output, Limits(0.25, every_class=every_class))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("nms", [{"nms_iou": 0.7, "top_k": 9}, {}], ids=["with NMS", "end to end"])
def test_one_row_whose_score_is_no_number_makes_the_image_none(wrong, row, nms):
    signature = signature_of(Layout.DETECTIONS, max_det=3, **nms)
    rows = np.array([[1, 1, 5, 5, 0.9, 0], [1, 1, 5, 5, 0.6, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    rows[row, 4] = wrong
    with pytest.raises(NotFinite):
        head_of(signature).decode(signature, rows, Limits(0.25))


def test_boxes_of_anchors_that_nobody_takes_may_be_anything():
    signature, output = signature_of(Layout.RAW), ANCHORS.copy()
    output[:4, 2] = np.nan
    found = head_of(signature).decode(signature, output, Limits(0.25, 0.5))
    np.testing.assert_allclose(found.confidence, [0.9])
