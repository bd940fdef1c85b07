from __future__ import annotations

import random
import tracemalloc

import pytest

from vajra_edge.mqtt.outbox import ENTRY_BYTES, MAX_ATTEMPTS, Outbox, Queued
from vajra_edge.mqtt.topics import Topic

TOPIC = Topic("camera/gate/detections", 1, retain=False)


def outbox(messages: int = 100, size_bytes: int = 100, max_age_s: float = 60.0) -> Outbox:
    return Outbox(messages * (size_bytes + ENTRY_BYTES), max_age_s)


def fill(box: Outbox, count: int, now_s: float = 0.0) -> None:
    for _ in range(count):
        box.offer(TOPIC, b"x" * 100, now_s)


def take_all(box: Outbox, now_s: float = 0.0) -> list[Queued]:
    entries = []
    while (entry := box.take(now_s)) is not None:
        entries.append(entry)
    return entries


def test_messages_leave_in_the_order_in_which_they_came() -> None:
    box = outbox()
    fill(box, 5)
    assert [entry.number for entry in take_all(box)] == [0, 1, 2, 3, 4]


def test_what_is_acknowledged_is_forgotten() -> None:
    box = outbox()
    fill(box, 2)
    for entry in take_all(box):
        box.ack(entry.number)
    assert (len(box), box.counts().acked, box.counts().size_bytes) == (0, 2, 0)


def test_an_acknowledgement_that_comes_twice_or_for_nothing_changes_nothing() -> None:
    box = outbox()
    fill(box, 1)
    entry = take_all(box)[0]
    for number in (entry.number, entry.number, 99):
        box.ack(number)
    assert (box.counts().acked, box.counts().size_bytes) == (1, 0)


def test_beyond_its_bytes_the_oldest_goes_and_is_counted() -> None:
    box = outbox(messages=3)
    fill(box, 5)
    assert box.counts().dropped == {"bytes": 2}
    assert [entry.number for entry in take_all(box)] == [2, 3, 4]


def test_a_message_larger_than_the_whole_outbox_is_dropped_alone() -> None:
    box = outbox(messages=3)
    box.offer(TOPIC, b"x" * 10_000, 0.0)
    assert (len(box), box.counts().dropped) == (0, {"bytes": 1})


def test_what_is_in_flight_is_counted_but_never_dropped() -> None:
    box = outbox(messages=3)
    fill(box, 3)
    under_way = take_all(box)
    fill(box, 5)
    for entry in under_way:
        box.ack(entry.number)
    assert box.counts().acked == 3


def test_an_old_message_goes_and_is_counted() -> None:
    box = outbox(max_age_s=10.0)
    fill(box, 2, now_s=0.0)
    fill(box, 1, now_s=8.0)
    box.expire(10.5)
    assert (len(box), box.counts().dropped) == (1, {"age": 2})
    assert take_all(box, 30.0) == []


def test_after_a_broken_connection_everything_is_sent_again_in_order_and_marked() -> None:
    box = outbox()
    box.connected()
    fill(box, 4)
    first, second = box.take(0.0), box.take(0.0)
    assert first is not None
    assert second is not None
    assert not box.is_replay(first)
    box.ack(second.number)
    box.disconnected()
    fill(box, 1)
    box.connected()
    fill(box, 1)
    again = take_all(box)
    assert [entry.number for entry in again] == [0, 2, 3, 4, 5]
    assert [box.is_replay(entry) for entry in again] == [True, True, True, True, False]


def test_a_message_refused_for_good_is_dropped_and_counted() -> None:
    box = outbox()
    fill(box, 2)
    entry = box.take(0.0)
    assert entry is not None
    box.refuse(entry.number)
    box.refuse(entry.number)
    assert (len(box), box.counts().dropped) == (1, {"refused": 1})


def test_a_message_refused_for_the_moment_is_tried_a_bounded_number_of_times() -> None:
    box = outbox()
    fill(box, 2)
    seen = []
    while (entry := box.take(0.0)) is not None:
        seen.append(entry.number)
        box.refuse(entry.number, retry=True)
    assert seen == [0] * MAX_ATTEMPTS + [1] * MAX_ATTEMPTS
    assert (box.counts().dropped, box.counts().size_bytes) == ({"refused": 2}, 0)


def test_smaller_bounds_apply_at_once() -> None:
    box = outbox(messages=5)
    fill(box, 5)
    box.resize(2 * (100 + ENTRY_BYTES), 60.0, 0.0)
    assert (len(box), box.counts().dropped) == (2, {"bytes": 3})


def test_what_is_left_at_the_end_is_counted() -> None:
    box = outbox()
    fill(box, 3)
    box.take(0.0)
    box.abandon()
    assert (len(box), box.counts().dropped) == (0, {"closed": 3})


def test_the_bound_is_one_of_real_memory() -> None:
    box = Outbox(1_000_000, 60.0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(10_000):
            box.offer(TOPIC, bytes(bytearray(100 + index % 50)), 0.0)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0 < used <= 1_000_000


@pytest.mark.parametrize("seed", range(20))
def test_random_walks_lose_nothing_that_is_not_counted(seed: int) -> None:
    dice = random.Random(seed)
    box = outbox(messages=20, max_age_s=30.0)
    offered, in_flight, now_s = 0, [], 0.0
    last_live = -1
    for _ in range(2_000):
        now_s += dice.random()
        move = dice.randrange(6)
        if move <= 1:
            box.offer(TOPIC, b"x" * dice.randrange(300), now_s)
            offered += 1
        elif move == 2 and (entry := box.take(now_s)) is not None:
            in_flight.append(entry)
            assert box.is_replay(entry) or entry.number > last_live
            last_live = max(last_live, entry.number) if not box.is_replay(entry) else last_live
        elif move == 3 and in_flight:
            box.ack(in_flight.pop(dice.randrange(len(in_flight))).number)
        elif move == 4 and in_flight:
            box.refuse(in_flight.pop(0).number)
        elif move == 5 and dice.random() < 0.1:
            box.disconnected()
            box.connected()
            in_flight = []
        counts = box.counts()
        assert counts.queued + counts.in_flight + counts.acked + sum(counts.dropped.values()) == offered
        assert counts.in_flight == len(in_flight)
    for entry in in_flight:
        box.ack(entry.number)
    for entry in take_all(box, now_s):
        box.ack(entry.number)
    assert box.counts().size_bytes == 0
