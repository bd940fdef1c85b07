"""Where boxes are expected."""

from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.tracking.motion import Motion, to_cxcywh, to_xyxy

ALL = np.array([0])
KEPT = np.ones(1)


def box(x: float, y: float = 100.0) -> np.ndarray:
    return np.array([[x, y, 40.0, 100.0]])


@pytest.mark.parametrize("fps", [2, 5, 30])
def test_a_steady_walk_is_foreseen_whatever_the_frame_rate(fps: int):
    motion = Motion.begin(box(0.0))
    for frame in range(1, 4 * fps):
        motion = motion.after(1 / fps, KEPT).corrected(ALL, box(60.0 * frame / fps))
    assert motion.after(0.5, KEPT).position[0, 0] == pytest.approx(60.0 * ((4 * fps - 1) / fps + 0.5), abs=3.0)


def test_doubt_grows_while_a_box_is_not_seen_and_ends_when_it_is():
    motion = Motion.begin(box(0.0)).after(0.1, KEPT)
    assert (motion.after(1.0, KEPT).spread > motion.spread).all()
    assert (motion.corrected(ALL, box(0.0)).spread < motion.spread).all()


def test_one_step_or_many_come_to_the_same_doubt():
    once = Motion.begin(box(0.0)).after(1.0, KEPT)
    often = Motion.begin(box(0.0))
    for _ in range(30):
        often = often.after(1 / 30, KEPT)
    assert often.table == pytest.approx(once.table)


def test_what_slows_down_gets_less_far():
    motion = Motion.begin(box(0.0))
    for frame in range(1, 10):
        motion = motion.after(0.1, KEPT).corrected(ALL, box(10.0 * frame))
    slower = motion.after(0.1, np.array([0.5])).after(0.1, KEPT)
    assert motion.position[0, 0] < slower.position[0, 0] < motion.after(0.2, KEPT).position[0, 0]


def test_rows_are_taken_and_joined_and_only_those_corrected_that_were_seen():
    both = Motion.begin(np.concatenate((box(0.0), box(500.0))))
    moved = both.corrected(np.array([1]), box(510.0))
    assert moved.position[0, 0] == 0.0
    assert 500.0 < moved.position[1, 0] < 510.0
    again = both.take(np.array([False, True])).joined(both.take(np.array([True, False])))
    assert again.position[:, 0].tolist() == [500.0, 0.0]


def test_boxes_are_turned_and_turned_back():
    corners = np.array([[10.0, 20.0, 50.0, 120.0]])
    assert to_cxcywh(corners).tolist() == [[30.0, 70.0, 40.0, 100.0]]
    assert to_xyxy(to_cxcywh(corners)).tolist() == corners.tolist()
