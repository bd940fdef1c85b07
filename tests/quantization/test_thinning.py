from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

import numpy as np

from vajra_edge.quantization.camera_samples import EMPTY_ONE_IN, Kept, superfluous

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def one(number: int, minutes: float, boxes: int = 3, camera: str = "gate") -> Kept:
    return Kept(number, camera, NOON + timedelta(minutes=minutes), boxes)


def collected(offers: list[Kept], most: int) -> list[Kept]:
    """What is there after each was offered in turn."""
    there: list[Kept] = []
    for offer in offers:
        there.append(offer)
        there = [stays for stays in there if stays not in superfluous(there, most)]
    return there


def test_while_there_is_room_nothing_leaves():
    assert superfluous([one(0, 0), one(1, 1)], 2) == ()


def test_of_the_closest_two_the_emptier_leaves_and_of_two_alike_the_later():
    assert superfluous([one(0, 0), one(1, 10, 9), one(2, 11, 3), one(3, 60)], 3) == (one(2, 11, 3),)
    assert superfluous([one(0, 0), one(1, 10, 3), one(2, 11, 9), one(3, 60)], 3) == (one(1, 10, 3),)
    assert superfluous([one(0, 0), one(1, 10), one(2, 11), one(3, 60)], 3) == (one(2, 11),)


def test_a_set_stays_spread_over_all_the_time_since_its_first_picture():
    there = collected([one(number, number) for number in range(600)], 32)
    minutes = np.array([(kept.taken_at - NOON).total_seconds() / 60 for kept in there])
    assert (len(there), minutes[0]) == (32, 0)
    assert minutes[-1] >= 560
    assert np.diff(minutes).max() <= 2 * np.diff(minutes).mean() + 1


def test_cameras_share_a_set_evenly_though_one_of_them_was_first():
    offers = [one(number, number, camera="abcd"[number % 4] if number > 40 else "a") for number in range(400)]
    share = Counter(kept.camera for kept in collected(offers, 32))
    assert set(share) == set("abcd")
    assert min(share.values()) >= 5


def test_empty_scenes_leave_before_others_until_they_are_few():
    offers = [one(number, number, boxes=0 if number < 300 else 2) for number in range(400)]
    there = collected(offers, 32)
    assert sum(kept.boxes == 0 for kept in there) == 32 // EMPTY_ONE_IN


def test_a_scene_without_objects_does_not_push_out_one_that_has_them():
    full = [one(number, number) for number in range(8)]
    quarter = [one(number, 10 * number, boxes=0) for number in range(8, 10)]
    there = [*full[:6], *quarter]
    assert superfluous([*there, one(10, 200, boxes=0)], 8)[0].boxes == 0


def test_one_picture_of_each_of_many_cameras_gives_way_by_its_boxes():
    many = [one(number, 0, boxes=number + 1, camera=str(number)) for number in range(5)]
    assert superfluous(many, 4) == (many[0],)
