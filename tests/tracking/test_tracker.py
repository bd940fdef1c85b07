"""Numbers that stay with their objects: single situations, and scenes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from tracking import scenes
from tracking.scoring import Scores, Scoring

from vajra_edge.tracking.tracker import FIRST_HITS, LOST_S, NO_TRACK, PART_HITS, Tracker
from vajra_edge.types import Detections

Row = tuple[float, float, float, int]
"""Left edge, top edge, confidence, class id: all boxes are 40 x 100 pixels."""


def found(*rows: Row) -> Detections:
    boxes = [(x, y, x + 40, y + 100) for x, y, _, _ in rows]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([row[2] for row in rows], np.float32),
        np.array([row[3] for row in rows], np.int32),
    )


def walk(tracker: Tracker, begin_s: float, frames: int, *rows: Row, speed: float = 0.0, fps: float = 10.0) -> list[int]:
    """Everybody walks to the right at ``speed`` pixels a second; the numbers of the last frame."""
    numbers = np.zeros(0, np.int64)
    for frame in range(frames):
        moved = [(x + speed * frame / fps, y, sure, kind) for x, y, sure, kind in rows]
        numbers = tracker.update(found(*moved), begin_s + frame / fps)
    return [int(number) for number in numbers]


def test_who_is_there_at_the_beginning_has_a_number_at_once():
    assert walk(Tracker(), 0.0, 1, (0, 0, 0.9, 0), (300, 0, 0.9, 0)) == [1, 2]


def test_who_comes_later_has_one_after_as_many_frames_as_make_it_sure():
    tracker = Tracker()
    walk(tracker, 0.0, 1)
    heard = [walk(tracker, 1.0 + frame / 10, 1, (0, 0, 0.9, 0)) for frame in range(FIRST_HITS)]
    assert heard == [*[[NO_TRACK]] * (FIRST_HITS - 1), [1]]


def test_a_false_box_of_one_frame_takes_no_number():
    tracker = Tracker()
    walk(tracker, 0.0, 1)
    walk(tracker, 0.1, 1, (500, 300, 0.9, 0))
    walk(tracker, 0.2, 1)
    assert walk(tracker, 0.3, FIRST_HITS, (0, 0, 0.9, 0)) == [1]


def boxes(*each: tuple[tuple[float, float, float, float], int]) -> Detections:
    """Each with its class."""
    xyxy, class_ids = np.array([box for box, _ in each], np.float32), np.array([one for _, one in each], np.int32)
    return Detections(xyxy, np.full(len(each), 0.9, np.float32), class_ids)


def sized(*each: tuple[float, float, float, float]) -> Detections:
    return boxes(*((box, 0) for box in each))


def test_a_box_within_a_known_one_has_no_number_until_it_comes_out():
    tracker, person = Tracker(), (100.0, 0.0, 180.0, 200.0)
    for frame in range(5):
        tracker.update(sized(person), frame / 10)
    within = [tracker.update(sized(person, (140, 10, 180, 100)), 0.5 + frame / 10).tolist() for frame in range(5)]
    assert within == [[1, NO_TRACK]] * 5
    assert tracker.update(sized(person, (155, 10, 195, 100)), 1.0).tolist() == [1, 2]


def test_a_box_within_a_known_one_that_is_lost_had_no_number_and_has_none_later():
    tracker, person = Tracker(), (100.0, 0.0, 180.0, 200.0)
    for frame in range(5):
        tracker.update(sized(person), frame / 10)
    for frame in range(5):
        tracker.update(sized(person, (140, 10, 180, 100)), 0.5 + frame / 10)
    tracker.update(sized(person), 1.0)
    assert tracker.update(sized(person, (155, 10, 195, 100)), 1.1).tolist() == [1, NO_TRACK]


@pytest.mark.parametrize(
    ("whole", "within", "class_ids"),
    [
        ((0, 0, 600, 400), (140, 10, 240, 300), (1, 0)),
        ((0, 0, 600, 400), (140, 10, 180, 100), (0, 0)),
    ],
    ids=["somebody before a bus", "somebody far behind one who stands near"],
)
def test_who_cannot_be_a_part_of_whom_he_is_seen_before_has_a_number(whole, within, class_ids):
    tracker = Tracker()
    for frame in range(5):
        tracker.update(boxes((whole, class_ids[0])), frame / 10)
    both = [tracker.update(boxes((whole, class_ids[0]), (within, class_ids[1])), 0.5 + k / 10) for k in range(5)]
    assert both[-1].tolist() == [1, 2]


def test_who_is_seen_for_long_behind_another_is_no_part_of_that_one():
    tracker, near, behind = Tracker(), (100.0, 0.0, 180.0, 200.0), (110.0, 10.0, 170.0, 120.0)
    for frame in range(5):
        tracker.update(sized(near), frame / 10)
    told = [tracker.update(sized(near, behind), 0.5 + frame / 10).tolist() for frame in range(PART_HITS)]
    assert told == [[1, NO_TRACK]] * (PART_HITS - 1) + [[1, 2]]


def test_an_unsure_box_goes_on_with_a_track_and_begins_none():
    tracker = Tracker()
    walk(tracker, 0.0, 5, (0, 0, 0.9, 0))
    assert walk(tracker, 0.5, 5, (0, 0, 0.3, 0), (300, 0, 0.3, 0)) == [1, NO_TRACK]


@pytest.mark.parametrize("fps", [2.0, 5.0, 30.0])
def test_a_walker_keeps_its_number_behind_a_post_whatever_the_frame_rate(fps: float):
    tracker = Tracker()
    walk(tracker, 0.0, int(3 * fps), (0, 0, 0.9, 0), speed=50, fps=fps)
    assert walk(tracker, 4.0, 1, (200, 0, 0.9, 0)) == [1]


def test_who_was_away_for_longer_than_tracks_are_kept_is_somebody_new():
    tracker = Tracker()
    walk(tracker, 0.0, 5, (0, 0, 0.9, 0))
    walk(tracker, 0.5, int(LOST_S * 10) + 2)
    assert walk(tracker, 5.0, FIRST_HITS, (0, 0, 0.9, 0)) == [2]


def test_one_who_stopped_behind_a_post_is_found_where_it_was_last_seen():
    tracker = Tracker()
    walk(tracker, 0.0, 20, (0, 0, 0.9, 0), speed=60)
    walk(tracker, 2.0, 10)
    assert walk(tracker, 3.0, 1, (114, 0, 0.9, 0)) == [1]


def test_a_van_that_is_called_a_truck_keeps_its_number_and_a_person_beside_it_does_not_get_that():
    tracker = Tracker()
    walk(tracker, 0.0, 5, (0, 0, 0.9, 2))
    assert walk(tracker, 0.5, 1, (2, 0, 0.9, 7)) == [1]
    assert walk(tracker, 0.6, 1, (18, 0, 0.9, 0)) == [NO_TRACK]


def test_after_a_reset_nobody_is_known_and_no_number_comes_twice():
    tracker = Tracker()
    assert walk(tracker, 0.0, 5, (0, 0, 0.9, 0), (300, 0, 0.9, 0)) == [1, 2]
    tracker.reset()
    assert walk(tracker, 0.5, 1, (0, 0, 0.9, 0)) == [3]


def test_a_box_that_is_no_number_belongs_to_nobody_and_spoils_nothing():
    tracker = Tracker()
    for wrong in (float("nan"), float("inf")):
        tracker.reset()
        first = walk(tracker, 0.0, 3, (0, 0, 0.9, 0), (wrong, 0, 0.9, 0))
        assert first[1] == NO_TRACK
        assert walk(tracker, 0.3, 1, (wrong, 0, 0.9, 0), (0, 0, 0.9, 0)) == [NO_TRACK, first[0]]


def test_two_frames_of_one_moment_and_one_from_before_are_taken():
    tracker = Tracker()
    for now_s in (1.0, 1.0, 0.9):
        assert walk(tracker, now_s, 1, (0, 0, 0.9, 0)) == [1]


def test_boxes_without_an_area_are_taken():
    flat = Detections(np.zeros((2, 4), np.float32), np.full(2, 0.9, np.float32), np.zeros(2, np.int32))
    tracker = Tracker()
    for frame in range(4):
        assert len(tracker.update(flat, frame / 10)) == 2


def scored(pictures: list[scenes.Seen]) -> Scores:
    tracker, scoring = Tracker(), Scoring()
    for seen in pictures:
        boxes, confidence = seen.xyxy.astype(np.float32), seen.confidence.astype(np.float32)
        numbers = tracker.update(Detections(boxes, confidence, np.zeros(len(boxes), np.int32)), seen.now_s)
        answers = {int(number): tuple(box) for number, box in zip(numbers, boxes, strict=True) if number != NO_TRACK}
        assert len(answers) == np.count_nonzero(numbers), "two boxes of one frame share a number"
        scoring.frame(seen.truth, answers)
    return scoring.scores()


@pytest.mark.parametrize(
    ("name", "pictures", "least_idf1", "most_switches"),
    [
        ("30 fps, 16 people", scenes.scene(30, 20, 16, 1), 0.70, 20),
        ("30 fps, a crowd", scenes.scene(30, 20, 30, 2), 0.58, 48),
        ("5 fps", scenes.scene(5, 60, 30, 3), 0.72, 14),
        ("2 fps", scenes.scene(2, 120, 50, 4), 0.70, 26),
        ("30 fps, two frames of five dropped", scenes.scene(30, 20, 20, 5, dropped=0.4), 0.68, 17),
        ("5 fps, one frame of five dropped", scenes.scene(5, 60, 40, 6, dropped=0.2), 0.60, 26),
    ],
)
def test_scenes_of_crossings_hidden_people_misses_and_false_boxes(
    name: str, pictures: list[scenes.Seen], least_idf1: float, most_switches: int
):
    reached = scored(pictures)
    assert reached.idf1 >= least_idf1, f"{name}: {reached}"
    assert reached.switches <= most_switches, f"{name}: {reached}"


def test_who_is_always_seen_and_never_hidden_never_changes_its_number():
    pictures = scenes.scene(10, 20, 1, 7, missed=0.0, false=0.0)
    reached = scored(pictures)
    assert reached.switches <= 1  # behind a post it may stay for longer than tracks are kept
    assert reached.idf1 > 0.8
