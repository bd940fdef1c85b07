from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.build.accuracy_check import Agreed, Agreement
from vajra_edge.types import Detections


def boxes(*rows: tuple[float, float, float, int]) -> Detections:
    """(left, size, confidence, class) each; all tops at 0."""
    xyxy = np.array([(left, 0, left + size, size) for left, size, _, _ in rows], np.float32).reshape(-1, 4)
    return Detections(
        xyxy, np.array([row[2] for row in rows], np.float32), np.array([row[3] for row in rows], np.int32)
    )


def figures(found: Detections, expected: Detections) -> Agreed:
    tally = Agreement()
    tally.add(found, expected)
    return tally.figures()


def test_the_same_boxes_agree_wholly():
    same = boxes((0, 10, 0.9, 0), (20, 10, 0.5, 1))
    assert figures(same, same) == Agreed(1.0, 1.0, 1.0, 0.0)


def test_a_missing_and_an_extra_box_lower_recall_and_precision():
    expected = boxes((0, 10, 0.9, 0), (20, 10, 0.5, 0))
    found = boxes((0, 10, 0.9, 0), (100, 10, 0.5, 0), (200, 10, 0.5, 0))
    assert figures(found, expected).recall == 0.5
    assert figures(found, expected).precision == pytest.approx(1 / 3, abs=1e-4)


def test_right_scores_on_moved_boxes_are_no_agreement():
    expected, moved = boxes((0, 10, 0.9, 0)), boxes((8, 10, 0.9, 0))
    assert figures(moved, expected) == Agreed(0.0, 0.0, None, None)


def test_a_box_of_another_class_is_no_match():
    assert figures(boxes((0, 10, 0.9, 1)), boxes((0, 10, 0.9, 0))).recall == 0.0


def test_a_shifted_box_and_a_changed_score_are_measured():
    measured = figures(boxes((1, 10, 0.8, 0)), boxes((0, 10, 0.9, 0)))
    assert measured.mean_iou == pytest.approx(9 / 11, abs=1e-4)
    assert measured.score_drift == pytest.approx(0.1, abs=1e-4)


def test_a_box_that_slips_just_below_the_threshold_is_still_a_partner():
    assert figures(boxes((0, 10, 0.24, 0)), boxes((0, 10, 0.26, 0))).recall == 1.0
    assert figures(boxes((0, 10, 0.26, 0)), boxes((0, 10, 0.24, 0))).precision == 1.0


def test_one_box_is_not_the_partner_of_two():
    expected = boxes((0, 10, 0.9, 0), (1, 10, 0.8, 0))
    assert figures(boxes((0, 10, 0.9, 0)), expected).recall == 0.5


def test_empty_scenes_count_nothing():
    tally = Agreement()
    tally.add(Detections.empty(), Detections.empty())
    tally.add(Detections.empty(), boxes((0, 10, 0.9, 0)))
    tally.add(boxes((0, 10, 0.9, 0)), Detections.empty())
    assert (tally.reference_boxes, tally.candidate_boxes) == (1, 1)
    assert tally.figures() == Agreed(0.0, 0.0, None, None)
