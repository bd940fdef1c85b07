"""Where boxes are expected."""

from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.tracking import motion
from vajra_edge.tracking.motion import FILTER, POSITION, VARIANCE, VELOCITY

FOUND = np.array([True])


def box(x: float, y: float = 100.0) -> np.ndarray:
    return np.array([[x], [y], [40.0], [100.0]])


def begun(*boxes: np.ndarray) -> np.ndarray:
    table = np.empty((20, len(boxes)))
    motion.begin(table, np.concatenate(boxes, 1))
    return table


def seen(table: np.ndarray, elapsed_s: float, measured: np.ndarray, found: np.ndarray = FOUND) -> np.ndarray:
    later = motion.foreseen(table, elapsed_s)
    motion.correct(later, measured, found)
    return later


@pytest.mark.parametrize("fps", [2, 5, 30])
def test_a_steady_walk_is_foreseen_whatever_the_frame_rate(fps: int):
    table = begun(box(0.0))
    for frame in range(1, 4 * fps):
        table = seen(table, 1 / fps, box(60.0 * frame / fps))
    assert motion.foreseen(table, 0.5)[0, 0] == pytest.approx(60.0 * ((4 * fps - 1) / fps + 0.5), abs=3.0)


def test_doubt_grows_while_a_box_is_not_seen_and_ends_when_it_is():
    table = motion.foreseen(begun(box(0.0)), 0.1)
    assert (motion.foreseen(table, 1.0)[VARIANCE] > table[VARIANCE]).all()
    assert (seen(table, 0.0, box(0.0))[VARIANCE] < table[VARIANCE]).all()


def test_one_step_or_many_come_to_the_same_doubt():
    often = begun(box(0.0))
    for _ in range(30):
        often = motion.foreseen(often, 1 / 30)
    assert often == pytest.approx(motion.foreseen(begun(box(0.0)), 1.0))


def test_the_filter_is_that_of_the_textbook():
    """F P F' + Q, and the gain P H' / (H P H' + R), written out for one number of one box."""
    table = seen(begun(box(0.0)), 0.3, box(9.0))
    mean = table[[0, 4], 0]
    doubt = np.array([[table[8, 0], table[12, 0]], [table[12, 0], table[16, 0]]])
    f = np.array([[1.0, 0.2], [0.0, 1.0]])
    q = (0.6 * table[3, 0]) ** 2 * np.array([[0.2**3 / 3, 0.2**2 / 2], [0.2**2 / 2, 0.2]])
    mean, doubt = f @ mean, f @ doubt @ f.T + q
    gain = doubt[:, 0] / (doubt[0, 0] + (0.05 * 100.0) ** 2)
    mean, doubt = mean + gain * (20.0 - mean[0]), doubt - np.outer(gain, doubt[0])
    table = seen(table, 0.2, box(20.0))
    assert table[[0, 4], 0] == pytest.approx(mean)
    assert table[[8, 12, 16], 0] == pytest.approx(doubt[[0, 0, 1], [0, 1, 1]])


def test_only_those_are_corrected_that_were_found_and_further_rows_stay():
    both = np.concatenate((begun(box(0.0), box(500.0)), [[7.0, 8.0]]))
    expected = motion.foreseen(both, 0.1)
    moved = seen(both, 0.1, np.concatenate((box(90.0), box(510.0)), 1), np.array([False, True]))
    assert (moved[:, 0] == expected[:, 0]).all()
    assert 500.0 < moved[0, 1] < 510.0
    assert moved[20].tolist() == [7.0, 8.0]


def test_a_box_without_a_height_is_taken_in_two_frames_of_one_moment():
    flat = np.zeros((4, 1))
    assert np.isfinite(seen(begun(flat), 0.0, flat)[FILTER]).all()


def test_what_is_expected_leaves_what_was_known_as_it_is():
    table = begun(box(0.0))
    before = table.copy()
    seen(table, 0.1, box(5.0))
    assert (table == before).all()
    assert (table[POSITION] == box(0.0)).all()
    assert not table[VELOCITY].any()
