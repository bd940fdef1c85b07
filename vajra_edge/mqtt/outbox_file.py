"""The outbox's file: SQLite with a write-ahead log, so that a kill or a power cut at any moment leaves a whole one.

A transaction survives a kill of the process once it is committed, and a power cut once the log was synced, which every
``commit_every_s`` one is. Before a camera's numbers are used a block of them is reserved, synced: after an end without
a word the count goes on behind the block, so that no number is used twice, and what is left of the block is one gap.
That is done at a start for every camera that may give messages, so that what is lost of its first ones is a gap too.

Of what was acknowledged only the highest number is written at once; the rows go when the log is synced.

Each row has its checksum, for SQLite finds no bit that a worn card turned within a value. A message whose payload is
damaged is one gap; whatever else is damaged puts the file aside.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vajra_edge import clock as clocks
from vajra_edge import durable
from vajra_edge.errors import PublishError
from vajra_edge.mqtt.gaps import Gap
from vajra_edge.mqtt.outbox_place import Identity, identity, require_files, require_same
from vajra_edge.mqtt.outbox_values import ENTRY_BYTES, DeadLetter, DiskBatch, Queued, Recovered
from vajra_edge.wording import Setting, Text, say

NAME = "outbox.sqlite"

VERSION = 1
"""Of the tables (``PRAGMA user_version``)."""

BLOCK = 1000
"""Numbers of a camera that are reserved at one time: half a minute of frames."""

READ_AT_ONCE = 250
DEAD_KEPT = 100
"""Letters that the broker did not want, the newest, kept for somebody to look at."""

DAMAGED_KEPT = 2
_VACUUM_PAGES, _VACUUM_FROM_PAGES = 512, 2048
_LOG_PAGES, _LOG_BYTES = 2000, 8 * 1024**2

_TABLES = """
PRAGMA auto_vacuum = INCREMENTAL;
BEGIN IMMEDIATE;
CREATE TABLE count (device TEXT, epoch TEXT, upto INTEGER, service_s REAL, crc32 INTEGER);
CREATE TABLE cameras (camera TEXT PRIMARY KEY, next_seq INTEGER, reserved INTEGER, crc32 INTEGER) WITHOUT ROWID;
CREATE TABLE messages (
    number INTEGER PRIMARY KEY, camera TEXT, epoch TEXT, seq INTEGER, service_s REAL, unix_s REAL, upto INTEGER,
    crc32 INTEGER, payload_crc32 INTEGER, payload BLOB
);
CREATE TABLE gaps (epoch TEXT, camera TEXT, first INTEGER, last INTEGER, why TEXT, place INTEGER, crc32 INTEGER);
CREATE TABLE dead (
    letter INTEGER PRIMARY KEY, camera TEXT, epoch TEXT, seq INTEGER, why TEXT, code INTEGER, unix_s REAL, payload BLOB
);
"""

_REMEDIES: Mapping[str, Text] = {
    "full": say("free space on that disk, or lower ", Setting.MAX_BYTES),
    "no space": say("free space on that disk, or lower ", Setting.MAX_BYTES),
    "readonly": "mount that disk writable, and give the folder to the service's user",
    "read-only": "mount that disk writable",
    "unable to open": "give the folder to the service's user",
    "permission": "give the folder and what is in it to the service's user",
    "not permitted": "take the immutable flag off what is in that folder",
    "exists": "remove what lies in the folder's place",
    "not a directory": "remove what lies in the folder's place",
    "locked": "another process has it open: end that",
    "disk i/o": "check that disk",
}
"""What a disk or another process does to a file that is whole; whatever else SQLite says is damage."""


def wall_clock() -> float | None:
    """Unix time in seconds; None while nobody vouches for it."""
    return time.time() if clocks.is_synchronised() else None


class Damaged(PublishError):
    """The file is no whole database."""


class OutboxFile:
    """The file, open. Used by one thread.

    Args:
        folder: where it lies; made if absent.
        device: the device's id.
        clock: monotonic seconds.
        wall: Unix time in seconds, or None.

    Attributes:
        damage: what was put aside at the opening, in one line; empty where nothing was.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float | None] = wall_clock,
    ) -> None:
        self._folder, self._path, self._device = folder, folder / NAME, device
        self._clock, self._wall = clock, wall
        self._base: sqlite3.Connection | None = None
        self._epoch, self.damage = "", ""
        self._next: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self._active: set[str] = set()
        self._reserved: dict[str, int] = {}
        self._given: tuple[str, Mapping[str, int]] = ("", {})
        self._service_s = self._opened_s = 0.0
        self._upto = 0
        self._taken_upto: int | None = None
        self._suspected = ""
        self._opened: Identity | None = None

    def open(self, why: str = "died", upto: int = 0) -> Recovered:
        """Open it, or make it; one that is damaged is put aside.

        Args:
            why: of the gap that the last use left if it ended without a word.
            upto: every message up to this number is done with, whatever the file says.

        Raises:
            PublishError: it can be neither opened nor made.
        """
        try:
            with self._reported("opened"):
                durable.make_folder(self._folder)
                found = self._open(why, upto)
                self._mistrust(found)
        except Damaged as error:
            self._suspected = ""
            self._put_aside(error)
        else:
            self._suspected = ""
            return found
        with self._reported("made"):
            return self._open(why, 0)

    def commit(self, batch: DiskBatch, *, sync: bool) -> None:
        """Write a batch; with ``sync`` it, and all before it, survives a power cut.

        Raises:
            PublishError: it cannot be written; nothing of it is.
        """
        with self._reported("written"):
            for each in batch.messages:
                if each.epoch == self._epoch:
                    self._next[each.camera] = each.seq + 1
                    self._active.add(each.camera)
            for camera in batch.cameras:
                self._next.setdefault(camera, 0)
                self._active.add(camera)
            sync |= any(self._next[name] > self._reserved.get(name, 0) - BLOCK // 4 for name in self._active)
            if sync:
                require_same(self._path, self._opened)
            with self._transaction(sync=sync) as base:
                self._upto = max(self._upto, batch.upto)
                self._insert(base, batch)
                if sync or not batch.messages:  # else the messages' rows say it, and a page less is written
                    self._write_count(base, self._now_service_s())
                if sync:
                    self._tidy(base)
            self._taken_upto = max(self._taken_upto or 0, *(each.number for each in batch.messages[-1:]), 0)
            if sync and base.execute("PRAGMA freelist_count").fetchone()[0] > _VACUUM_FROM_PAGES:
                base.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")  # execute() frees a single page

    def read(self, after: int) -> list[Queued]:
        """The next messages after a number, in order; at most ``READ_AT_ONCE``.

        Raises:
            PublishError: they cannot be read.
        """
        with self._reported("read"):
            rows = self._connection.execute(
                "SELECT * FROM messages WHERE number > ? ORDER BY number LIMIT ?",
                (max(after, self._upto), READ_AT_ONCE),
            ).fetchall()
            if not all(map(_is_whole, rows)):
                raise Damaged(f"{self._path} is damaged: a message changed in it")
        now_s, wall_s, service_s = self._clock(), self._wall(), self._now_service_s()
        return [
            Queued(number, camera, epoch, seq, payload, now_s - self._age_s(service_s, at_s, unix_s, wall_s))
            for number, camera, epoch, seq, at_s, unix_s, *_, payload in rows
        ]

    def _age_s(self, service_s: float, at_s: float, unix_s: float | None, wall_s: float | None) -> float:
        """Of a message: time of service, which no clock that is set can change, and that between two uses.

        The latter only the wall clock knows, if somebody vouched for it both times.
        """
        served_s = max(service_s - at_s, 0.0)
        is_of_this_use = at_s > self._service_s
        return served_s if is_of_this_use or unix_s is None or wall_s is None else max(wall_s - unix_s, served_s)

    def withdraw(self, batch: DiskBatch) -> None:
        """Take the messages of a batch out again, for they are sent under other numbers; they become gaps.

        Raises:
            PublishError: it cannot be written.
        """
        self._taken_upto = min((self._taken_upto or 0, *(each.number - 1 for each in batch.messages)))
        with self._reported("written"), self._transaction(sync=True) as base:
            base.executemany("DELETE FROM messages WHERE number = ?", ((each.number,) for each in batch.messages))
            gaps = [Gap(each.camera, each.epoch, each.seq, each.seq, "disk", each.number) for each in batch.messages]
            _write_gaps(base, [gap for gap in gaps if gap.epoch == self._epoch])

    def close(self, *, tidy: bool) -> None:
        """Close it; with ``tidy`` it has all that was numbered, so that the next use begins without a gap."""
        if self._base is None:
            return
        try:
            if tidy:
                self._release()
                with self._transaction(sync=True) as base:
                    self._tidy(base)
        finally:
            base, self._base = self._base, None
            with contextlib.suppress(sqlite3.Error):
                base.close()

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._base is None:
            raise PublishError("the outbox is closed", remedy="report it with the log")
        return self._base

    def _mistrust(self, found: Recovered) -> None:
        """Raise where it was damaged in use and looks whole: it would fail in use again."""
        if self._suspected and not any(gap.why == "damaged" for gap in found.fresh_gaps):
            raise Damaged(self._suspected)

    def _open(self, why: str, upto: int) -> Recovered:
        require_files(self._path)
        base = sqlite3.connect(self._path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self._base = base
        base.execute("PRAGMA locking_mode = EXCLUSIVE")  # one process, and no shared memory beside the file
        version = base.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise PublishError(f"{self._path} is of a newer release", remedy="upgrade, or remove it")
        if version == 0:
            base.executescript(f"{_TABLES}PRAGMA user_version = {VERSION}; COMMIT;")
        elif (found := base.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Damaged(f"{self._path} is damaged: {found}")
        base.execute("PRAGMA journal_mode = WAL")
        base.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        base.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        durable.sync_folder(self._folder)
        self._opened = identity(self._path)
        return self._recover(why, upto)

    def _recover(self, why: str, upto: int) -> Recovered:
        with self._transaction(sync=True) as base:
            device = self._read_count(base)
            fresh = self._drop_damaged(base)
            told = base.execute("SELECT coalesce(max(upto), 0), coalesce(max(service_s), 0) FROM messages").fetchone()
            self._upto, self._service_s = max(self._upto, told[0]), max(self._service_s, told[1])
            if device != self._device:
                fresh += self._begin_count(base)
            self._upto = max(self._upto, upto)
            self._opened_s = self._clock()
            last = max(self._upto, base.execute("SELECT coalesce(max(number), 0) FROM messages").fetchone()[0])
            gaps = _read_gaps(base, self._path)
            fresh += self._drop_untold(base)
            self._find_next(base, [*gaps, *fresh])
            fresh += self._skip_given(why, last + 1)
            _write_gaps(base, fresh)
            self._release()
            self._tidy(base)
            messages, size_bytes = base.execute(
                "SELECT count(*), coalesce(sum(length(payload) + ?), 0) FROM messages", (ENTRY_BYTES,)
            ).fetchone()
            gaps = _read_gaps(base, self._path)
        self._taken_upto = last
        self._given = self._epoch, self._next  # what is read the next time goes into another dict
        return Recovered(self._epoch, dict(self._next), last, messages, size_bytes, tuple(gaps), tuple(fresh))

    def _read_count(self, base: sqlite3.Connection) -> str:
        """Whose count it is; that of nobody in a new file."""
        row = base.execute("SELECT * FROM count").fetchone()
        if row is None:
            self._epoch, self._upto, self._service_s = "", 0, 0.0
            return ""
        device, self._epoch, self._upto, self._service_s = _checked(row, self._path)
        return str(device)

    def _write_count(self, base: sqlite3.Connection, service_s: float) -> None:
        row = (self._device, self._epoch, self._upto, service_s)
        base.execute("UPDATE count SET device = ?, epoch = ?, upto = ?, service_s = ?, crc32 = ?", _summed(*row))

    def _drop_damaged(self, base: sqlite3.Connection) -> list[Gap]:
        """Messages whose payload changed on the disk; whose they are is known, so that each is a gap.

        Raises:
            Damaged: nor is that known.
        """
        gaps = []
        for row in base.execute("SELECT * FROM messages WHERE number > ?", (self._upto,)):
            if not _is_whole(row):
                number, camera, epoch, seq, *_ = _checked(row[:-2], self._path)
                gaps.append(Gap(camera, epoch, seq, seq, "damaged", number))
        base.executemany("DELETE FROM messages WHERE number = ?", ((gap.place,) for gap in gaps))
        return gaps

    def _drop_untold(self, base: sqlite3.Connection) -> list[Gap]:
        """Messages that this process was told the disk had not taken, and sent under other numbers: it had."""
        if self._taken_upto is None or self._given[0] != self._epoch:
            return []
        rows = base.execute("SELECT camera, epoch, seq, number FROM messages WHERE number > ?", (self._taken_upto,))
        gaps = [Gap(camera, epoch, seq, seq, "disk", number) for camera, epoch, seq, number in rows]
        base.execute("DELETE FROM messages WHERE number > ?", (self._taken_upto,))
        return [gap for gap in gaps if gap.epoch == self._epoch]

    def _begin_count(self, base: sqlite3.Connection) -> list[Gap]:
        """The first of this device; what another device left is not sent under this one's name."""
        base.execute("DELETE FROM messages WHERE number <= ?", (self._upto,))
        rows = base.execute(
            "SELECT camera, epoch, min(seq), max(seq), 'moved', min(number) FROM messages GROUP BY camera, epoch"
        ).fetchall()
        last = base.execute("SELECT coalesce(max(number), 0) FROM messages").fetchone()[0]
        self._epoch, self._upto = secrets.token_hex(4), max(self._upto, last)
        for table in ("count", "cameras", "messages"):
            base.execute(f"DELETE FROM {table}")  # noqa: S608  our own names
        base.execute("INSERT INTO count VALUES (NULL, NULL, NULL, NULL, NULL)")
        self._write_count(base, self._service_s)
        return [Gap(*row) for row in rows]

    def _find_next(self, base: sqlite3.Connection, gaps: list[Gap]) -> None:
        """What each camera's next number is, from all that the file knows."""
        rows = [_checked(row, self._path) for row in base.execute("SELECT * FROM cameras")]
        self._next = {camera: next_seq for camera, next_seq, _ in rows}
        self._noted, self._reserved = dict(self._next), {camera: reserved for camera, _, reserved in rows}
        used = base.execute("SELECT camera, max(seq) FROM messages WHERE epoch = ? GROUP BY camera", (self._epoch,))
        lost = ((gap.camera, gap.last) for gap in gaps if gap.epoch == self._epoch)
        for camera, seq in (*used, *lost):
            self._next[camera] = max(self._next.get(camera, 0), seq + 1)

    def _skip_given(self, why: str, place: int) -> list[Gap]:
        """What was perhaps given to messages that came to nothing.

        By a process before this one that is all that is left of its blocks. This one knows what it gave; a disk that
        failed may lack of that even what it said it had.
        """
        epoch, given = self._given
        gaps = []
        for camera, upto in (given if epoch == self._epoch else self._reserved).items():
            if upto > (next_seq := self._next.get(camera, 0)):
                gaps.append(Gap(camera, self._epoch, next_seq, upto - 1, why, place))
                self._next[camera] = upto
        return gaps

    def _insert(self, base: sqlite3.Connection, batch: DiskBatch) -> None:
        ahead_s, wall_s = self._service_s - self._opened_s, self._wall() if batch.messages or batch.dead else None
        to_wall_s = None if wall_s is None else wall_s - self._clock()
        base.executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    *_summed(
                        each.number,
                        each.camera,
                        each.epoch,
                        each.seq,
                        each.offered_s + ahead_s,
                        None if to_wall_s is None else each.offered_s + to_wall_s,
                        self._upto,
                    ),
                    zlib.crc32(each.payload),
                    each.payload,
                )
                for each in batch.messages
            ),
        )
        if batch.gaps is not None:
            base.execute("DELETE FROM gaps")
            _write_gaps(base, batch.gaps)
        if batch.dead:
            _bury(base, batch.dead, wall_s)

    def _release(self) -> None:
        """No numbers are reserved: a camera that gives none any more leaves no gap behind it."""
        self._active.clear()
        self._reserved, self._noted = dict(self._next), {}

    def _tidy(self, base: sqlite3.Connection) -> None:
        """Due when the log is synced: rows of what arrived go, and half used blocks are followed by new ones."""
        base.execute("DELETE FROM messages WHERE number <= ?", (self._upto,))
        for camera, next_seq in self._next.items():
            used = camera in self._active and next_seq > self._reserved.get(camera, 0) - BLOCK // 2
            if used:
                self._reserved[camera] = next_seq + BLOCK
            if used or self._noted.get(camera) != next_seq:
                row = _summed(camera, next_seq, self._reserved[camera])
                base.execute("INSERT OR REPLACE INTO cameras VALUES (?, ?, ?, ?)", row)
                self._noted[camera] = next_seq

    @contextmanager
    def _transaction(self, *, sync: bool) -> Iterator[sqlite3.Connection]:
        base = self._connection
        base.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
        base.execute("BEGIN IMMEDIATE")
        try:
            yield base
            base.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                base.execute("ROLLBACK")
            raise

    def _now_service_s(self) -> float:
        return self._service_s + self._clock() - self._opened_s

    @contextmanager
    def _reported(self, verb: str) -> Iterator[None]:
        """Turn what SQLite and the system raise into one line; the file is closed then.

        Raises:
            Damaged: it is no whole database.
            PublishError: any other reason.
        """
        try:
            yield
        except Damaged as error:
            self.close(tidy=False)
            self._suspected = str(error)
            raise
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            self.close(tidy=False)
            what = str(getattr(error, "strerror", None) or error).lower()
            remedy = next((text for word, text in _REMEDIES.items() if word in what), None)
            ours = isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError)  # no fault of the file's
            if remedy is None and not ours and not isinstance(error, OSError):
                self._suspected = f"{self._path} is damaged: {what}"
                raise Damaged(self._suspected) from error
            raise PublishError(f"{self._path} cannot be {verb}: {what}", remedy=remedy or "check that disk") from error
        except PublishError:
            self.close(tidy=False)
            raise

    def _put_aside(self, error: Damaged) -> None:
        aside = self._folder / f"damaged-{time.time_ns()}"
        with self._reported("put aside"):
            for path in self._folder.glob(f"{NAME}*"):
                path.rename(aside.with_name(aside.name + path.name.removeprefix(NAME.removesuffix(".sqlite"))))
            durable.sync_folder(self._folder)
            for path in sorted(self._folder.glob("damaged-*.sqlite"))[:-DAMAGED_KEPT]:
                for one in self._folder.glob(f"{path.name}*"):
                    one.unlink()
        self.damage = f"{error.message}; it is put aside as {aside.name}.sqlite, and what waited in it is not sent"


def _read_gaps(base: sqlite3.Connection, path: Path) -> list[Gap]:
    rows = (_checked(row, path) for row in base.execute("SELECT * FROM gaps ORDER BY epoch, camera, first"))
    return [Gap(camera, epoch, first, last, why, place) for epoch, camera, first, last, why, place in rows]


def _write_gaps(base: sqlite3.Connection, gaps: Iterable[Gap]) -> None:
    rows = (_summed(each.epoch, each.camera, each.first, each.last, each.why, each.place) for each in gaps)
    base.executemany("INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _summed(*values: str | float | None) -> tuple[str | float | None, ...]:
    """A row with its checksum behind it."""
    return (*values, zlib.crc32(repr(values).encode()))


def _checked(row: tuple[Any, ...], path: Path) -> tuple[Any, ...]:
    """A row without its checksum.

    Raises:
        Damaged: it does not fit.
    """
    if _summed(*row[:-1]) != row:
        raise Damaged(f"{path} is damaged: a row changed in it")
    return row[:-1]


def _is_whole(row: tuple[Any, ...]) -> bool:
    """Whether a message's row and payload are as they were written."""
    *told, payload_crc32, payload = row
    return isinstance(payload, bytes) and _summed(*told[:-1]) == tuple(told) and zlib.crc32(payload) == payload_crc32


def _bury(base: sqlite3.Connection, dead: tuple[DeadLetter, ...], wall_s: float | None) -> None:
    rows = (
        (one.message.camera, one.message.epoch, one.message.seq, one.why, one.code, wall_s, one.message.payload)
        for one in dead[-DEAD_KEPT:]
    )
    base.executemany("INSERT INTO dead VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
    base.execute("DELETE FROM dead WHERE letter <= (SELECT max(letter) FROM dead) - ?", (DEAD_KEPT,))
