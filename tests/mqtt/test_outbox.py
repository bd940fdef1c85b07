from __future__ import annotations

import random
import tracemalloc

import pytest

from vajra_edge.mqtt.gaps import HOLD_S, MOST_A_CAMERA, Gap, Gaps
from vajra_edge.mqtt.messages import Draft
from vajra_edge.mqtt.outbox import AHEAD, LIVE_AGE_S, MAX_ATTEMPTS, Outbox
from vajra_edge.mqtt.outbox_values import (
    ENTRY_BYTES,
    MEMORY_BYTES,
    DiskBatch,
    KeptIn,
    OutboxBounds,
    Queued,
    Recovered,
    Retry,
)
from vajra_edge.mqtt.picture import Receipt

REST = b"x" * 20
DRAFT = Draft("gate", "dev", REST)
SIZE_BYTES = len(Draft("gate", "dev", REST).numbered("e1", 0)) + ENTRY_BYTES


def outbox(messages: int = 100, max_age_s: float = 60.0, kept: KeptIn = KeptIn.MEMORY) -> Outbox:
    return Outbox(OutboxBounds(kept, messages * SIZE_BYTES, max_age_s), "e1")


def fill(box: Outbox, count: int, now_s: float = 0.0, camera: str = "gate", rest: bytes = REST) -> None:
    for _ in range(count):
        box.offer(Draft(camera, "dev", rest), now_s)


def take_all(box: Outbox, now_s: float = 0.0) -> tuple[list[Queued], list[tuple[int, Gap]]]:
    messages, gaps = [], []
    while (entry := box.take(now_s)) is not None:
        if isinstance(entry, Queued):
            messages.append(entry)
        else:
            gaps.append(entry)
    return messages, gaps


def seqs(box: Outbox, now_s: float = 0.0) -> list[int]:
    return [entry.seq for entry in take_all(box, now_s)[0]]


def ranges(gaps: list[tuple[int, Gap]]) -> list[tuple[int, int, str]]:
    return [(gap.first, gap.last, gap.why) for _, gap in gaps]


def test_messages_leave_in_the_order_in_which_they_came() -> None:
    box = outbox()
    fill(box, 5)
    assert seqs(box) == [0, 1, 2, 3, 4]


def test_each_camera_has_its_own_count() -> None:
    box = outbox()
    for camera in ("gate", "yard", "gate"):
        fill(box, 1, camera=camera)
    assert [(entry.camera, entry.seq) for entry in take_all(box)[0]] == [("gate", 0), ("yard", 0), ("gate", 1)]


def test_what_is_acknowledged_is_forgotten() -> None:
    box = outbox()
    fill(box, 2)
    for entry in take_all(box)[0]:
        box.ack(entry.number)
    assert (len(box), box.counts().acked, box.counts().size_bytes) == (0, 2, 0)


def test_an_acknowledgement_that_comes_twice_or_for_nothing_changes_nothing() -> None:
    box = outbox()
    fill(box, 1)
    entry = take_all(box)[0][0]
    for number in (entry.number, entry.number, 99):
        box.ack(number)
    assert (box.counts().acked, box.counts().size_bytes) == (1, 0)


def test_beyond_its_bytes_the_oldest_goes_and_is_announced_before_what_follows() -> None:
    box = outbox(messages=3)
    fill(box, 5)
    assert box.counts().dropped == {"bytes": 2}
    first = box.take(0.0)
    assert isinstance(first, tuple)
    assert ranges([first]) == [(0, 1, "bytes")]
    assert seqs(box) == [2, 3, 4]


def test_a_message_larger_than_the_whole_outbox_is_dropped_alone_and_announced() -> None:
    box = outbox(messages=3)
    fill(box, 1, rest=b"x" * 10_000)
    messages, gaps = take_all(box)
    assert (messages, ranges(gaps), box.counts().dropped) == ([], [(0, 0, "bytes")], {"bytes": 1})


def test_what_is_in_flight_is_counted_but_never_dropped() -> None:
    box = outbox(messages=3)
    fill(box, 3)
    under_way, _ = take_all(box)
    fill(box, 5)
    for entry in under_way:
        box.ack(entry.number)
    assert box.counts().acked == 3


def test_an_old_message_goes_and_is_announced() -> None:
    box = outbox(max_age_s=10.0)
    fill(box, 2, now_s=0.0)
    fill(box, 1, now_s=8.0)
    box.expire(10.5)
    assert box.counts().dropped == {"age": 2}
    assert box.counts().queued == 1
    messages, gaps = take_all(box, 30.0)
    assert (messages, ranges(gaps)) == ([], [(0, 2, "age")])


def test_after_a_broken_connection_everything_is_sent_again_in_order_and_marked() -> None:
    box = outbox()
    box.connected()
    fill(box, 4)
    first, second = box.take(0.0), box.take(0.0)
    assert isinstance(first, Queued)
    assert isinstance(second, Queued)
    assert not box.is_replay(first)
    box.ack(second.number)
    box.disconnected()
    fill(box, 1)
    box.connected()
    fill(box, 1)
    again, _ = take_all(box)
    assert [entry.seq for entry in again] == [0, 2, 3, 4, 5]
    assert [box.is_replay(entry) for entry in again] == [True, True, True, True, False]


def test_a_message_refused_for_good_becomes_a_gap() -> None:
    box = outbox()
    fill(box, 2)
    entry = box.take(0.0)
    assert isinstance(entry, Queued)
    box.refuse(entry.number, 0.0)
    box.refuse(entry.number, 0.0)
    assert box.counts().dropped == {"refused": 1}
    messages, gaps = take_all(box)
    assert ([one.seq for one in messages], ranges(gaps)) == ([1], [(0, 0, "refused")])


def test_a_message_refused_for_the_moment_is_tried_a_bounded_number_of_times() -> None:
    box = outbox()
    fill(box, 2)
    seen = []
    while (entry := box.take(0.0)) is not None:
        if isinstance(entry, Queued):
            seen.append(entry.seq)
            box.refuse(entry.number, 0.0, retry=Retry.BOUNDED)
        else:
            box.ack(entry[0])
    assert seen == [0] * MAX_ATTEMPTS + [1] * MAX_ATTEMPTS
    assert (box.counts().dropped, box.counts().size_bytes) == ({"refused": 2}, 0)


def test_a_window_that_is_refused_for_the_moment_is_sent_again_in_order() -> None:
    box = outbox()
    fill(box, 5)
    window = [one.number for one in take_all(box)[0]]
    fill(box, 2)
    for number in window:
        box.refuse(number, 0.0, retry=Retry.PATIENT)
    assert seqs(box) == [0, 1, 2, 3, 4, 5, 6]


def test_a_broker_that_takes_nothing_for_the_moment_costs_no_message() -> None:
    box = outbox()
    fill(box, 3)
    for _ in range(5 * MAX_ATTEMPTS):
        for one in take_all(box)[0]:
            box.refuse(one.number, 0.0, retry=Retry.PATIENT)
    assert (box.counts().dropped, seqs(box)) == ({}, [0, 1, 2])


def test_a_message_that_is_refused_while_later_ones_are_taken_is_given_up() -> None:
    """It is this message then, and the disk must not wait for it for ever."""
    box = outbox()
    fill(box, 1)
    for _ in range(MAX_ATTEMPTS):
        fill(box, 1)
        guilty, later = take_all(box)[0]
        box.ack(later.number)
        box.refuse(guilty.number, 0.0, retry=Retry.PATIENT)
    assert (guilty.seq, box.counts().dropped) == (0, {"refused": 1})


def test_what_is_refused_for_the_moment_stays_on_disk() -> None:
    """A kill before the broker takes it costs nothing."""
    box = outbox(kept=KeptIn.DISK)
    box.opened(Recovered("e1", {}, 0, 0, 0))
    fill(box, 5)
    batch = box.collect()
    assert batch is not None
    box.committed(batch)
    for one in take_all(box)[0]:
        box.refuse(one.number, 0.0, retry=Retry.PATIENT)
    assert box.done_upto() < batch.messages[0].number


def test_smaller_bounds_apply_at_once() -> None:
    box = outbox(messages=5)
    fill(box, 5)
    box.resize(OutboxBounds(KeptIn.MEMORY, 2 * SIZE_BYTES, 60.0), 0.0)
    assert (box.counts().queued, box.counts().dropped) == (2, {"bytes": 3})


def test_what_is_left_in_memory_at_the_end_is_counted() -> None:
    box = outbox()
    fill(box, 3)
    box.take(0.0)
    box.abandon()
    assert (len(box), box.counts().dropped) == (0, {"closed": 3})


def test_live_messages_do_not_wait_for_a_broker_and_say_so() -> None:
    box = outbox(kept=KeptIn.LIVE)
    fill(box, 3)
    assert box.counts().queued == 0
    box.connected()
    fill(box, 4)
    under_way = box.take(0.0)
    assert isinstance(under_way, tuple)
    assert ranges([under_way]) == [(0, 2, "live")]
    box.ack(under_way[0])
    sent = box.take(0.0)
    assert isinstance(sent, Queued)
    box.ack(sent.number)
    box.disconnected()
    box.connected()
    fill(box, 1, now_s=1.0)
    messages, gaps = take_all(box, 1.0)
    assert ([one.seq for one in messages], ranges(gaps)) == ([7], [(4, 6, "live")])


def test_a_live_message_that_a_slow_broker_holds_up_is_dropped() -> None:
    box = outbox(kept=KeptIn.LIVE)
    box.connected()
    fill(box, 2)
    messages, gaps = take_all(box, 2.0 * LIVE_AGE_S)
    assert (messages, ranges(gaps)) == ([], [(0, 1, "live")])


def durable(found: Recovered | None = None, messages: int = 10_000) -> Outbox:
    box = outbox(messages, kept=KeptIn.DISK)
    box.opened(found or Recovered("d1", {}, 0, 0, 0))
    return box


def commit(box: Outbox) -> DiskBatch:
    batch = box.collect()
    assert batch is not None
    assert box.committed(batch)
    return batch


def test_nothing_is_sent_before_the_disk_has_it() -> None:
    box = durable()
    fill(box, 3)
    assert box.take(0.0) is None
    batch = box.collect()
    assert batch is not None
    assert box.take(0.0) is None
    assert len(box) == 3
    box.committed(batch)
    assert seqs(box) == [0, 1, 2]


def test_numbers_of_cameras_in_use_are_reserved_before_they_give_a_message_and_whenever_the_disk_is_opened() -> None:
    box = outbox(kept=KeptIn.DISK)
    box.expect(("gate", "yard"))
    assert box.collect() is None, "the disk was not read yet"
    for _ in range(2):
        box.opened(Recovered("d1", {}, 0, 0, 0))
        made = commit(box)
        assert (made.messages, made.cameras) == ((), ("gate", "yard"))
        assert box.collect() is None
    box.expect(("gate",))
    assert commit(box).cameras == ("gate",)


def test_nothing_is_numbered_before_the_disk_was_read_and_nothing_is_lost_meanwhile() -> None:
    box = outbox(kept=KeptIn.DISK)
    fill(box, 2)
    assert (box.take(0.0), box.collect()) == (None, None)
    box.opened(Recovered("d1", {"gate": 40}, 7, 0, 0))
    commit(box)
    messages, _ = take_all(box)
    assert [(one.epoch, one.seq, one.number) for one in messages] == [("d1", 40, 8), ("d1", 41, 9)]


def test_a_disk_that_cannot_be_used_costs_durability_and_not_one_message() -> None:
    box = durable()
    fill(box, 2)
    commit(box)
    fill(box, 2)
    assert box.collect() is not None
    box.failed("the disk is full")
    fill(box, 2)
    messages, _ = take_all(box)
    assert [(one.epoch == "d1", one.seq) for one in messages] == [
        (True, 0),
        (True, 1),
        *[(False, seq) for seq in range(4)],
    ]
    assert (box.counts().kept, box.counts().trouble) == ("memory", "the disk is full")


def test_a_commit_that_succeeds_after_it_was_given_up_is_told_to_be_taken_back() -> None:
    box = durable()
    fill(box, 2)
    batch = box.collect()
    assert batch is not None
    box.failed("the disk does not answer")
    assert not box.committed(batch)
    assert len(take_all(box)[0]) == 2


def test_once_the_disk_is_back_what_waits_in_memory_goes_there_too() -> None:
    box = durable()
    box.failed("the disk is full")
    fill(box, 3)
    own = {one.epoch for one in list(box._ready)}
    box.opened(Recovered("d1", {"gate": 0}, 0, 0, 0))
    assert box.take(0.0) is None
    fill(box, 1)
    batch = commit(box)
    assert [(one.number, one.epoch in own, one.seq) for one in batch.messages] == [
        (1, True, 0),
        (2, True, 1),
        (3, True, 2),
        (4, False, 0),
    ]
    assert box.counts().trouble == ""
    assert seqs(box) == [0, 1, 2, 0]


def test_a_disk_that_fails_again_after_the_connection_broke_gives_no_number_twice() -> None:
    """Whoever has the number of another takes its acknowledgement, and that other is sent no more."""
    box = durable()
    box.connected()
    box.failed("the disk is full")
    fill(box, 3)
    assert len(take_all(box)[0]) == 3
    box.opened(Recovered("d1", {"gate": 0}, 0, 0, 0))
    box.disconnected()
    fill(box, 2)
    box.failed("the disk is full")
    messages, _ = take_all(box)
    assert len({one.number for one in messages}) == len(messages) == 5
    assert len({(one.epoch, one.seq) for one in messages}) == 5


def test_what_was_on_a_disk_that_comes_back_empty_and_is_in_memory_still_goes_there_again() -> None:
    box = outbox(kept=KeptIn.DISK)
    box.opened(Recovered("old", {}, 0, 0, 0))
    fill(box, 3)
    batch = box.collect()
    assert batch is not None
    box.committed(batch)
    box.failed("it was removed")
    box.opened(Recovered("new", {}, 0, 0, 0))
    again = box.collect()
    assert again is not None
    assert [(one.epoch, one.seq) for one in again.messages] == [("old", 0), ("old", 1), ("old", 2)]
    box.committed(again)
    assert seqs(box) == [0, 1, 2]


def test_a_disk_that_fails_again_while_they_go_there_loses_none() -> None:
    box = durable()
    for _ in range(3):
        box.failed("the disk is full")
        fill(box, 2)
        box.opened(Recovered("d1", {"gate": 0}, 0, 0, 0))
        assert box.collect() is not None
    box.failed("the disk is full")
    messages, _ = take_all(box)
    assert len({(one.epoch, one.seq) for one in messages}) == 6
    assert len({one.number for one in messages}) == 6


def test_what_the_disk_had_comes_before_what_is_new() -> None:
    box = durable(Recovered("d1", {"gate": 3}, 3, 3, 3 * SIZE_BYTES))
    fill(box, 1)
    assert commit(box).messages[0].seq == 3
    assert box.take(0.0) is None
    assert box.wanted() == 0
    box.read([Queued(number, "gate", "d1", number - 1, b"x", -10.0) for number in (1, 2, 3)])
    assert seqs(box) == [0, 1, 2]
    assert box.wanted() == 3
    box.read([Queued(4, "gate", "d1", 3, b"x", 0.0)])
    assert seqs(box) == [3]
    assert box.wanted() is None


def test_a_long_backlog_is_on_disk_only() -> None:
    box = durable()
    for _ in range(AHEAD + 500):
        fill(box, 1)
        commit(box)
    assert len(box._ready) == AHEAD
    assert box.counts().queued == AHEAD + 500
    for entry in take_all(box)[0]:
        box.ack(entry.number)
    assert box.wanted() == AHEAD


def test_only_what_every_earlier_message_has_left_needs_no_disk_any_more() -> None:
    box = durable()
    fill(box, 4)
    commit(box)
    entries, _ = take_all(box)
    for entry in (entries[1], entries[3]):
        box.ack(entry.number)
    assert box.done_upto() == 0
    box.ack(entries[0].number)
    assert box.done_upto() == 2
    box.ack(entries[2].number)
    assert commit(box).upto == 4


def test_gaps_are_written_until_they_were_told() -> None:
    box = durable()
    fill(box, 2)
    commit(box)
    entry = box.take(0.0)
    assert isinstance(entry, Queued)
    box.refuse(entry.number, 0.0, code=0x99)
    batch = commit(box)
    assert batch.gaps is not None
    assert [(gap.first, gap.last) for gap in batch.gaps] == [(0, 0)]
    assert [(letter.why, letter.code, letter.message.seq) for letter in batch.dead] == [("refused", 0x99, 0)]
    _, gaps = take_all(box)
    box.ack(gaps[0][0])
    assert commit(box).gaps == ()


def named(receipt: Receipt) -> tuple[str, int] | None:
    return (receipt.number.epoch, receipt.number.seq) if receipt.number else None


def test_a_receipt_says_the_number_once_the_message_keeps_it() -> None:
    memory, disk = outbox(), durable()
    at_once = memory.offer(DRAFT, 0.0)
    assert (at_once.is_settled, named(at_once)) == (True, ("e1", 0))
    later = disk.offer(DRAFT, 0.0)
    batch = disk.collect()
    assert batch is not None
    assert not later.is_settled, "it is not on disk yet, and may get another number"
    disk.committed(batch)
    assert (later.is_settled, named(later)) == (True, ("d1", 0))


def test_a_message_that_the_disk_did_not_take_has_the_number_that_it_is_sent_under() -> None:
    box = durable()
    receipts = [box.offer(DRAFT, 0.0), box.offer(DRAFT, 0.0)]
    assert box.collect() is not None
    box.failed("the disk is full")
    assert [named(one) for one in receipts] == [(one.epoch, one.seq) for one in take_all(box)[0]]
    box.disconnected()
    box.opened(Recovered("d1", {"gate": 2}, 2, 0, 0))
    receipts.append(box.offer(DRAFT, 0.0))
    commit(box)
    assert [named(one) for one in receipts] == [(one.epoch, one.seq) for one in take_all(box)[0]]


def test_a_live_message_that_cannot_be_sent_has_a_number_of_its_gap() -> None:
    box = outbox(kept=KeptIn.LIVE)
    receipt = box.offer(DRAFT, 0.0)
    box.connected()
    gap = box.take(0.0)
    assert isinstance(gap, tuple)
    assert (named(receipt), gap[1].first, gap[1].last) == (("e1", 0), 0, 0)


def test_a_message_that_was_lost_before_it_had_a_number_never_gets_one() -> None:
    box = durable()
    large = Draft("gate", "dev", b"x" * 1_000_000)
    receipts = [box.offer(large, 0.0) for _ in range(20)]
    lost = [one for one in receipts if one.is_settled]
    assert lost
    assert {named(one) for one in lost} == {None}
    batch = commit(box)
    assert [named(one) for one in receipts[len(lost) :]] == [(one.epoch, one.seq) for one in batch.messages]


def test_a_disk_that_does_not_take_them_for_long_bounds_the_memory_and_announces_what_went() -> None:
    box = durable()
    large = b"x" * 1_000_000
    fill(box, 20, rest=large)
    assert box.counts().size_bytes <= MEMORY_BYTES
    batch = commit(box)
    assert batch.gaps is not None
    lost = 20 - len(batch.messages)
    assert [(gap.first, gap.last, gap.why) for gap in batch.gaps] == [(0, lost - 1, "disk")]
    assert batch.messages[0].seq == lost


def test_gaps_follow_each_other_as_one_and_never_more_than_so_many_wait() -> None:
    gaps = Gaps()
    for seq in range(0, 4 * MOST_A_CAMERA, 2):
        gaps.add(Gap("gate", "e", seq, seq, "refused", seq))
        gaps.add(Gap("yard", "e", seq, seq + 1, "age", seq))
    assert len(gaps) == MOST_A_CAMERA + 1
    told = {}
    while (gap := gaps.take(float("inf"), 0.0)) is not None:
        told.setdefault(gap.camera, []).append(gap)
    assert [(gap.first, gap.last) for gap in told["yard"]] == [(0, 4 * MOST_A_CAMERA - 1)]
    assert told["gate"][-1].last == 4 * MOST_A_CAMERA - 2


def test_a_gap_that_was_refused_waits_and_others_do_not() -> None:
    gaps = Gaps()
    gaps.add(Gap("gate", "e", 0, 0, "refused", 1))
    gaps.add(Gap("yard", "e", 0, 0, "refused", 2))
    first = gaps.take(float("inf"), 0.0)
    assert first is not None
    gaps.put_back(first, HOLD_S)
    assert [gaps.take(float("inf"), 1.0), gaps.take(float("inf"), 1.0)] == [Gap("yard", "e", 0, 0, "refused", 2), None]
    assert gaps.take(float("inf"), HOLD_S + 1.0) == first


def test_the_bound_is_one_of_real_memory() -> None:
    box = Outbox(OutboxBounds(KeptIn.MEMORY, 1_000_000, 60.0))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index in range(10_000):
            box.offer(Draft("gate", "dev", bytes(bytearray(100 + index % 50))), 0.0)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0 < used <= 1_000_000


class Walk:
    """An outbox, the disk below it if any, and a broker that takes or refuses; keeps account of every number."""

    def __init__(self, seed: int, kept: KeptIn) -> None:
        self.dice, self.kept = random.Random(seed), kept
        self.box = outbox(messages=20, max_age_s=30.0, kept=kept)
        self.disk: dict[int, Queued] = {}
        self.in_flight: list[Queued | tuple[int, Gap]] = []
        self.offered, self.now_s = 0, 0.0
        self.settled: set[int] = set()
        self.receipts: list[Receipt] = []
        if kept is KeptIn.DISK:
            self.box.opened(Recovered("d1", {}, 0, 0, 0))

    def step(self) -> None:
        self.now_s += self.dice.random()
        moves = (self.offer, self.offer, self.take, self.ack, self.refuse, self.reconnect, self.write)
        self.dice.choice(moves)()

    def offer(self) -> None:
        rest = b"x" * self.dice.randrange(300) + b"#%d" % self.offered
        self.receipts.append(self.box.offer(Draft("gate", "dev", rest), self.now_s))
        self.offered += 1

    def take(self) -> None:
        if (entry := self.box.take(self.now_s)) is not None:
            self.in_flight.append(entry)
            if isinstance(entry, Queued):
                receipt = self.receipts[int(entry.payload.rpartition(b"#")[2])]
                assert named(receipt) == (entry.epoch, entry.seq), "a receipt names its own message"

    def ack(self) -> None:
        if self.in_flight:
            entry = self.in_flight.pop(self.dice.randrange(len(self.in_flight)))
            self.box.ack(entry.number if isinstance(entry, Queued) else entry[0])
            first, last = (entry.seq, entry.seq) if isinstance(entry, Queued) else (entry[1].first, entry[1].last)
            self.settled.update(range(first, last + 1))

    def refuse(self) -> None:
        if self.in_flight:
            entry = self.in_flight.pop(0)
            self.box.refuse(entry.number if isinstance(entry, Queued) else entry[0], self.now_s)

    def reconnect(self) -> None:
        if self.dice.random() < 0.1:
            self.box.disconnected()
            self.box.connected()
            self.in_flight = []

    def write(self) -> None:
        if (batch := self.box.collect()) is not None and self.box.committed(batch):
            self.disk.update({one.number: one for one in batch.messages})
        while (after := self.box.wanted()) is not None:
            self.box.read([one for number, one in sorted(self.disk.items()) if number > after][:7])

    def drain(self) -> None:
        for _ in range(40):
            self.now_s += HOLD_S
            self.write()
            while (entry := self.box.take(self.now_s)) is not None:
                self.in_flight.append(entry)
            while self.in_flight:
                self.ack()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kept", [KeptIn.MEMORY, KeptIn.DISK])
def test_random_walks_lose_nothing_that_is_not_announced(seed: int, kept: KeptIn) -> None:
    walk = Walk(seed, kept)
    for _ in range(2_000):
        walk.step()
    walk.drain()
    assert (len(walk.box), walk.box.counts().size_bytes) == (0, 0)
    assert walk.settled == set(range(walk.offered))
    assert [one.number.seq for one in walk.receipts if one.number] == list(range(walk.offered))
