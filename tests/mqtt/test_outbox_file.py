"""The outbox's file: what it holds after an end in order, a kill, another device, damage, and a disk that refuses."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vajra_edge.errors import PublishError
from vajra_edge.mqtt.gaps import Gap
from vajra_edge.mqtt.outbox_file import BLOCK, DAMAGED_KEPT, DEAD_KEPT, NAME, Damaged, OutboxFile
from vajra_edge.mqtt.outbox_values import DeadLetter, DiskBatch, Queued, Recovered


class Clock:
    """Monotonic seconds, and Unix time where somebody vouches for it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.unix_s: float | None = 1.8e9

    def __call__(self) -> float:
        return self.now_s

    def wall(self) -> float | None:
        return self.unix_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.unix_s = None if self.unix_s is None else self.unix_s + seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., tuple[OutboxFile, Recovered]]]:
    made: list[OutboxFile] = []

    def open_one(device: str = "dev") -> tuple[OutboxFile, Recovered]:
        made.append(OutboxFile(tmp_path / "outbox", device, clock, clock.wall))
        return made[-1], made[-1].open()

    yield open_one
    for each in made:
        each.close(tidy=False)


def queued(number: int, found: Recovered, camera: str = "gate", offered_s: float = 1000.0) -> Queued:
    return Queued(number, camera, found.epoch, number - 1, b"m%d" % number, offered_s)


def batch(found: Recovered, first: int, last: int, upto: int = 0) -> DiskBatch:
    return DiskBatch(tuple(queued(number, found) for number in range(first, last + 1)), upto)


def test_a_new_file_is_the_owners_alone_and_begins_a_count(tmp_path: Path, opened: Callable) -> None:
    _, found = opened()
    assert (found.next_seq, found.messages, found.gaps) == ({}, 0, ())
    assert stat.S_IMODE((tmp_path / "outbox").stat().st_mode) == 0o700


def test_after_an_end_in_order_the_count_goes_on_without_a_gap(opened: Callable) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5, upto=2), sync=False)
    file.close(tidy=True)
    file, again = opened()
    assert (again.epoch, again.next_seq, again.messages, again.last, again.gaps) == (
        found.epoch,
        {"gate": 5},
        3,
        5,
        (),
    )
    assert [(one.number, one.seq, one.payload) for one in file.read(0)] == [
        (3, 2, b"m3"),
        (4, 3, b"m4"),
        (5, 4, b"m5"),
    ]


def test_after_an_end_without_a_word_the_rest_of_the_block_is_one_gap(opened: Callable) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5), sync=False)
    file.close(tidy=False)
    file, again = opened()
    (gap,) = again.fresh_gaps
    assert (gap.camera, gap.epoch, gap.first, gap.why, gap.place) == ("gate", found.epoch, 5, "died", 6)
    assert gap.last <= 5 + BLOCK
    assert again.next_seq == {"gate": gap.last + 1}
    assert again.messages == 5
    file.close(tidy=False)
    _, third = opened()
    assert third.gaps == (gap,), "it gave no numbers, so that none of them is missing"


def test_what_is_lost_before_a_cameras_first_message_is_on_disk_is_a_gap_too(opened: Callable) -> None:
    file, found = opened()
    file.commit(DiskBatch((), 0, cameras=("gate", "yard")), sync=False)
    file.close(tidy=False)  # a kill: nobody knows whether either had given a message
    file, again = opened()
    assert [(gap.camera, gap.first, gap.last, gap.why) for gap in again.fresh_gaps] == [
        (camera, 0, BLOCK - 1, "died") for camera in ("gate", "yard")
    ]
    assert again.next_seq == {"gate": BLOCK, "yard": BLOCK}
    assert again.epoch == found.epoch
    file.commit(DiskBatch((), 0, cameras=("gate",)), sync=False)
    file.close(tidy=False)
    _, third = opened()
    assert [(gap.camera, gap.first) for gap in third.fresh_gaps] == [("gate", BLOCK)], "the yard is in use no more"


def test_after_an_end_in_order_a_camera_that_gave_nothing_leaves_no_gap(opened: Callable) -> None:
    file, _ = opened()
    file.commit(DiskBatch((), 0, cameras=("gate",)), sync=False)
    file.close(tidy=True)
    _, again = opened()
    assert (again.next_seq, again.gaps) == ({"gate": 0}, ())


def test_a_number_is_never_used_before_its_block_is_reserved(opened: Callable) -> None:
    """Whatever was committed, synced or not, lies below what the last synced state would begin with."""
    file, found = opened()
    for first in range(1, 5 * BLOCK, 50):
        file.commit(batch(found, first, first + 49, upto=first), sync=False)
        reserved = file._connection.execute("SELECT reserved FROM cameras").fetchone()[0]
        assert reserved > first + 48


def test_acknowledged_messages_do_not_come_back(opened: Callable) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5), sync=False)
    file.commit(DiskBatch((), 4), sync=False)
    file.close(tidy=False)
    file, again = opened()
    assert [one.number for one in file.read(0)] == [5]
    assert again.next_seq["gate"] >= 5


def test_gaps_stay_until_they_were_told(opened: Callable) -> None:
    file, found = opened()
    gap = Gap("gate", found.epoch, 0, 3, "age", 1)
    file.commit(DiskBatch((), 4, (gap,)), sync=True)
    file.close(tidy=True)
    file, again = opened()
    assert again.gaps == (gap,)
    assert again.next_seq == {"gate": 4}
    file.commit(DiskBatch((), 4, ()), sync=True)
    file.close(tidy=True)
    assert opened()[1].gaps == ()


def test_the_newest_dead_letters_are_kept_with_the_brokers_reason(opened: Callable) -> None:
    file, found = opened()
    for number in range(1, DEAD_KEPT + 20):
        letter = DeadLetter(queued(number, found), "refused", 0x99)
        file.commit(DiskBatch((), number, None, (letter,)), sync=False)
    rows = file._connection.execute("SELECT seq, why, code, payload FROM dead ORDER BY letter").fetchall()
    assert len(rows) == DEAD_KEPT
    assert rows[-1] == (DEAD_KEPT + 18, "refused", 0x99, b"m%d" % (DEAD_KEPT + 19))


def test_age_is_that_of_the_wall_clock_where_it_can_be_trusted(opened: Callable, clock: Clock) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 1), sync=True)
    file.close(tidy=True)
    assert clock.unix_s is not None
    clock.unix_s += 3600.0  # the device was off for an hour
    file, _ = opened()
    assert clock.now_s - file.read(0)[0].offered_s == pytest.approx(3600.0)


def test_age_is_time_of_service_where_the_wall_clock_cannot_be_trusted(opened: Callable, clock: Clock) -> None:
    clock.unix_s = None
    file, found = opened()
    file.commit(batch(found, 1, 1), sync=True)
    clock.advance(40.0)
    file.commit(DiskBatch((), 0, ()), sync=True)
    file.close(tidy=True)
    clock.now_s, clock.unix_s = 5.0, 3.0e9  # another boot, then the time is told: half a century later
    file, _ = opened()
    clock.advance(2.0)
    assert clock.now_s - file.read(0)[0].offered_s == pytest.approx(42.0)


@pytest.mark.parametrize("by_s", [3.2e7, -3.2e7], ids=["a year forward", "a year back"])
def test_a_clock_that_is_set_in_use_makes_nothing_older_or_younger(opened: Callable, clock: Clock, by_s: float) -> None:
    file, found = opened()
    clock.advance(10.0)
    file.commit(DiskBatch((queued(1, found, offered_s=clock.now_s),), 0), sync=True)
    assert clock.unix_s is not None
    clock.unix_s += by_s
    clock.advance(5.0)
    assert clock.now_s - file.read(0)[0].offered_s == pytest.approx(5.0)


def test_a_clock_that_was_set_back_makes_nothing_younger_than_it_was_served(opened: Callable, clock: Clock) -> None:
    file, found = opened()
    clock.advance(10.0)
    file.commit(DiskBatch((queued(1, found, offered_s=clock.now_s),), 0), sync=True)
    clock.advance(40.0)
    file.commit(DiskBatch((), 0, ()), sync=True)
    file.close(tidy=True)
    assert clock.unix_s is not None
    clock.unix_s -= 3.2e7
    file, _ = opened()
    assert clock.now_s - file.read(0)[0].offered_s == pytest.approx(40.0)


def test_another_devices_messages_are_announced_and_not_sent(opened: Callable) -> None:
    file, found = opened("old")
    file.commit(batch(found, 1, 5, upto=2), sync=True)
    file.close(tidy=True)
    file, again = opened("new")
    assert again.epoch != found.epoch
    assert (again.messages, file.read(0), again.next_seq) == (0, [], {})
    assert [(gap.first, gap.last, gap.why, gap.epoch) for gap in again.gaps] == [(2, 4, "moved", found.epoch)]
    assert again.last >= 5, "a number of the order of sending is not given twice"


def test_messages_that_a_slow_disk_took_too_late_are_taken_back(opened: Callable) -> None:
    file, found = opened()
    late = batch(found, 1, 3)
    file.commit(late, sync=False)
    file.withdraw(late)
    file.close(tidy=False)
    file, again = opened()
    assert file.read(0) == []
    assert {(gap.why, gap.first) for gap in again.gaps} >= {("disk", 0), ("disk", 1), ("disk", 2)}


def test_a_disk_that_comes_back_to_the_same_process_leaves_no_gap_but_what_it_did_not_take(
    tmp_path: Path, opened: Callable
) -> None:
    path = tmp_path / "outbox" / NAME
    file, found = opened()
    file.commit(batch(found, 1, 3), sync=True)
    file._connection.execute("PRAGMA max_page_count = 1")  # no more than there are: as on a disk that is full
    with pytest.raises(PublishError, match="free space"):
        file.commit(DiskBatch((replace(queued(4, found), payload=bytes(1_000_000)),), 0), sync=False)
    path.rename(path.with_suffix(".kept"))
    path.mkdir()
    with pytest.raises(PublishError, match="is a folder"):
        file.open("disk")
    path.rmdir()
    path.with_suffix(".kept").rename(path)
    again = file.open("disk")
    assert (again.epoch, again.messages, again.next_seq) == (found.epoch, 3, {"gate": 4})
    assert [(gap.first, gap.last, gap.why) for gap in again.gaps] == [(3, 3, "disk")]


def test_what_a_disk_took_and_said_it_had_not_is_not_sent_a_second_time(opened: Callable) -> None:
    """It was sent from memory meanwhile, under another number."""
    file, found = opened()
    file.commit(batch(found, 1, 3), sync=True)
    file.commit(batch(found, 4, 5), sync=True)
    file._taken_upto = 3  # as where the disk fails after the end of the transaction was written
    file.close(tidy=False)
    again = file.open("disk")
    assert [one.number for one in file.read(0)] == [1, 2, 3]
    assert {(gap.first, gap.last, gap.why) for gap in again.gaps} == {(3, 3, "disk"), (4, 4, "disk")}


def test_what_a_disk_took_and_forgot_is_a_gap_and_its_numbers_are_not_given_again(
    tmp_path: Path, opened: Callable
) -> None:
    path = tmp_path / "outbox" / NAME
    file, found = opened()
    file.commit(batch(found, 1, 3), sync=True)
    file.close(tidy=False)
    old = path.read_bytes()
    again = file.open("disk")
    file.commit(batch(again, 4, 5), sync=True)
    file.close(tidy=False)
    path.write_bytes(old)
    once_more = file.open("disk")
    assert (once_more.epoch, once_more.messages, once_more.next_seq) == (found.epoch, 3, {"gate": 5})
    assert [(gap.first, gap.last, gap.why) for gap in once_more.gaps] == [(3, 4, "disk")]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(os.urandom(40_000)),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096)),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    ],
    ids=["random bytes", "half of it", "all but its first page", "zeros"],
)
def test_a_damaged_file_is_put_aside_and_said(tmp_path: Path, opened: Callable, spoil: Callable) -> None:
    path = tmp_path / "outbox" / NAME
    for count in range(1, DAMAGED_KEPT + 3):
        file, found = opened()
        file.commit(batch(found, 1, 300), sync=True)
        file.close(tidy=True)
        spoil(path)
        file, again = opened()
        assert "put aside as damaged-" in file.damage
        assert again.epoch != found.epoch
        file.commit(batch(again, 1, 1), sync=True)
        file.close(tidy=True)
        assert len(list(path.parent.glob("damaged-*.sqlite"))) == min(count, DAMAGED_KEPT)
        path.unlink()


def tamper(path: Path, *statements: str) -> None:
    """What a worn card does: a value is another, and SQLite sees nothing."""
    base = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        base.execute(statement)
    base.close()


def test_a_message_whose_payload_changed_is_a_gap_and_is_not_sent(tmp_path: Path, opened: Callable) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5), sync=True)
    file.close(tidy=True)
    tamper(tmp_path / "outbox" / NAME, "UPDATE messages SET payload = X'6d34' WHERE number = 3")
    file, again = opened()
    assert [one.number for one in file.read(0)] == [1, 2, 4, 5]
    assert [(gap.camera, gap.first, gap.last, gap.why) for gap in again.fresh_gaps] == [("gate", 2, 2, "damaged")]
    assert (again.epoch, again.messages, file.damage) == (found.epoch, 4, "")
    file.close(tidy=True)
    assert opened()[1].gaps == again.gaps, "told until the broker has it"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE messages SET seq = 7 WHERE number = 3",
        "UPDATE messages SET camera = 'yard' WHERE number = 3",
        "UPDATE messages SET upto = 5",
        "UPDATE cameras SET next_seq = 2, reserved = 2",
        "UPDATE count SET upto = 4",
        "UPDATE count SET epoch = 'other'",
        "UPDATE gaps SET last = 900",
        "DROP TABLE cameras",
    ],
)
def test_a_row_that_changed_puts_the_file_aside(tmp_path: Path, opened: Callable, statement: str) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5), sync=True)
    file.commit(DiskBatch((), 0, (Gap("yard", found.epoch, 0, 3, "age", 1),)), sync=True)
    file.close(tidy=True)
    tamper(tmp_path / "outbox" / NAME, statement)
    file, again = opened()
    assert "put aside as damaged-" in file.damage
    assert again.epoch != found.epoch


def test_a_file_that_is_damaged_in_use_and_looks_whole_afterwards_is_put_aside(opened: Callable) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5), sync=True)
    file._connection.execute("DROP TABLE dead")
    with pytest.raises(Damaged, match="no such table: dead"):
        file.commit(DiskBatch((), 1, None, (DeadLetter(queued(1, found), "refused", 0x99),)), sync=True)
    file.open()
    assert "put aside as damaged-" in file.damage
    file.commit(DiskBatch((), 1, None, (DeadLetter(queued(1, found), "refused", 0x99),)), sync=True)
    file.close(tidy=True)


def test_an_empty_file_is_a_new_one(tmp_path: Path, opened: Callable) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / NAME).touch()
    file, _ = opened()
    assert file.damage == ""


def test_a_file_of_a_newer_release_is_left_alone(tmp_path: Path, opened: Callable) -> None:
    file, _ = opened()
    file.close(tidy=True)
    with sqlite3.connect(tmp_path / "outbox" / NAME) as base:
        base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(PublishError, match="newer release"):
        opened()
    assert (tmp_path / "outbox" / NAME).exists()


def test_a_file_that_another_process_holds_is_not_used(opened: Callable) -> None:
    opened()
    with pytest.raises(PublishError, match="locked"):
        opened()


def test_a_folder_that_is_none_is_told_in_one_line(tmp_path: Path, opened: Callable) -> None:
    (tmp_path / "outbox").write_text("not a folder")
    with pytest.raises(PublishError, match="cannot be opened"):
        opened()


@pytest.mark.parametrize("end", ["", "-wal", "-journal"])
@pytest.mark.parametrize(
    ("lay", "words"),
    [
        (lambda path: path.mkdir(), "is a folder, and should be a file; remove it"),
        (os.mkfifo, "is a pipe, and should be a file; remove it"),
        (lambda path: path.symlink_to("/dev/full"), "is a device, and should be a file; remove it"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "is a link that leads to no file; remove it"),
        (lambda path: path.symlink_to(path.name), "is a link that leads to no file; remove it"),
    ],
    ids=["folder", "pipe", "device", "link to nothing", "link to itself"],
)
def test_what_is_no_file_in_its_place_is_named_and_left_alone(
    tmp_path: Path, opened: Callable, lay: Callable, words: str, end: str
) -> None:
    path = tmp_path / "outbox" / f"{NAME}{end}"
    path.parent.mkdir()
    lay(path)
    with pytest.raises(PublishError) as caught:
        opened()
    assert str(caught.value) == f"{path} {words}"
    assert path.exists() or path.is_symlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write any file")
def test_a_file_that_may_not_be_written_is_no_fault_of_the_disk(tmp_path: Path, opened: Callable) -> None:
    file, _ = opened()
    file.close(tidy=True)
    (tmp_path / "outbox" / NAME).chmod(0o400)
    with pytest.raises(PublishError, match="permission denied; give the folder and what is in it to the service"):
        opened()


@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_was_removed_in_use_is_not_written_any_more(
    tmp_path: Path, opened: Callable, is_replaced: bool
) -> None:
    """What goes there no start would find."""
    path = tmp_path / "outbox" / NAME
    file, found = opened()
    file.commit(batch(found, 1, 1), sync=True)
    path.unlink()
    if is_replaced:
        path.write_bytes(b"")
    with pytest.raises(PublishError, match="was removed or replaced while it was in use"):
        file.commit(batch(found, 2, 2), sync=True)
    again = file.open("disk")
    assert again.epoch != found.epoch
    file.commit(batch(again, 3, 3), sync=True)
    file.close(tidy=True)
    _, later = opened()
    assert (later.epoch, later.messages) == (again.epoch, 1)


def test_a_file_that_may_not_grow_says_that_the_disk_is_full_and_keeps_what_it_has(opened: Callable) -> None:
    file, found = opened()
    file.commit(batch(found, 1, 5), sync=True)
    file._connection.execute(f"PRAGMA max_page_count = {file._connection.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(PublishError, match="full") as caught:
        file.commit(batch(found, 6, 500), sync=True)
    assert "free space" in str(caught.value.remedy)
    file, _ = opened()
    assert [one.number for one in file.read(0)] == [1, 2, 3, 4, 5]


def test_a_long_backlog_that_is_gone_gives_its_room_back(tmp_path: Path, opened: Callable) -> None:
    file, found = opened()
    large = tuple(Queued(n, "gate", found.epoch, n - 1, bytes(4000), 0.0) for n in range(1, 5001))
    file.commit(DiskBatch(large, 0), sync=True)
    for _ in range(20):
        file.commit(DiskBatch((), 5000), sync=True)
    file.close(tidy=True)
    assert (tmp_path / "outbox" / NAME).stat().st_size < 12e6
