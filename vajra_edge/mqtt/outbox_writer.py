"""The outbox's writer: the one thread that touches its file, so that neither frames nor the broker wait for a disk.

It writes what came since its last turn in one transaction and only then lets it be sent; a disk that is damaged, full,
read-only or silent costs durability, never service: messages then pass through memory, and the disk is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from vajra_edge.errors import PublishError
from vajra_edge.mqtt.backlog import Backlog
from vajra_edge.mqtt.outbox_file import Damaged, OutboxFile
from vajra_edge.mqtt.outbox_values import DiskBatch

_Answer = TypeVar("_Answer")
_LOG = logging.getLogger(__name__)

GROUP_S = 0.02
"""Least time between two transactions: so long a message may wait for others to share its pages with."""

STUCK_S = 5.0
"""A disk that does not answer for so long is done without; worn SD cards pause for a second or two."""

OPENING_S = 60.0
"""Likewise while the whole file is read and checked."""

RETRY_S = 30.0
"""After so long a disk that failed is tried again."""

LOOK_S = 2.0
"""Looks at a busy disk are half a second apart. Where they are further apart than this, the rest does not count: a
library that loads kept every thread waiting, or the board stood still, and the disk may have answered meanwhile."""


class Disk(Protocol):
    """Where the outbox's messages are kept, if anywhere."""

    def start(self) -> None:
        """Begin."""

    def wake(self) -> None:
        """There is something to write; from any thread, never waits."""

    def news(self) -> list[str]:
        """What befell it since the last call; notices a disk that does not answer."""

    def close(self, patience_s: float) -> None:
        """Write what is left and end; a disk that takes longer is left behind."""


class NoDisk:
    """Messages are kept in memory alone, or not at all."""

    def start(self) -> None:
        """Nothing to begin."""

    def wake(self) -> None:
        """Nothing to write."""

    def news(self) -> list[str]:
        """Nothing befalls it."""
        return []

    def close(self, patience_s: float) -> None:
        """Nothing to end."""


class OutboxWriter:
    """See the module.

    Args:
        folder: of the file.
        device: the device's id.
        backlog: gives batches and takes what was read.
        commit_every_s: how often what was written is made to survive a power cut; 0: each time.
        ready: called when there may be something to send.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        backlog: Backlog,
        commit_every_s: float,
        ready: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = OutboxFile(folder, device, clock)
        self._backlog, self._ready, self._clock = backlog, ready, clock
        self.commit_every_s = commit_every_s
        self._woken, self._closing = threading.Event(), threading.Event()
        self._news: deque[str] = deque()
        self._is_open = self._unsynced = False
        self._retry_s = self._synced_s = self._wrote_s = float("-inf")
        self._busy_from_s: float | None = None
        self._patience_s = OPENING_S
        self._looked_s = self._watched_s = self._excused_s = 0.0
        self._why = "died"
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Start the thread, which opens the file."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to write; from any thread, never waits."""
        if not self._woken.is_set():
            self._woken.set()

    def news(self) -> list[str]:
        """What befell it since the last call; notices a disk that does not answer."""
        began_s = self._busy_from_s
        if began_s is not None and self._waited_s(began_s) > self._patience_s:
            self._busy_from_s = None
            what = f"the disk of the outbox does not answer for {self._patience_s:.0f} s"
            self._fail(PublishError(what, remedy="check that disk"))
        told = []
        while self._news:
            told.append(self._news.popleft())
        return told

    def _waited_s(self, began_s: float) -> float:
        """For the disk alone, since it was asked; called by the one thread that looks."""
        now_s = self._clock()
        if began_s != self._watched_s:
            self._watched_s, self._looked_s, self._excused_s = began_s, began_s, 0.0
        self._excused_s += max(0.0, now_s - self._looked_s - LOOK_S)
        self._looked_s = now_s
        return now_s - began_s - self._excused_s

    def close(self, patience_s: float) -> None:
        """Write what is left and end; a disk that takes longer is left behind."""
        self._closing.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  top of the thread: it becomes an event, and the thread goes on
                _LOG.exception("the outbox's thread goes on after a fault of its own")
                self._lose(PublishError(f"fault in the outbox: {error}", remedy="report it with the log"))
            self._rest()
        try:
            self._finish()
        except Exception:  # noqa: BLE001  top of the thread, which ends: messages that were not written become a gap
            _LOG.exception("the outbox ends with a fault of its own")

    def _rest(self) -> None:
        """Until there is something to do, and not before others could join it."""
        self._woken.wait(self._idle_s())
        self._closing.wait(max(0.0, self._wrote_s + GROUP_S - self._clock()))
        self._woken.clear()

    def _idle_s(self) -> float:
        due_s = self._synced_s + self.commit_every_s if self._unsynced else float("inf")
        due_s = due_s if self._is_open else self._retry_s
        return min(max(0.0, due_s - self._clock()), RETRY_S)

    def _turn(self) -> None:
        if self._is_open and not self._backlog.is_durable:
            self._lose(None)
        if not self._is_open:
            if self._clock() < self._retry_s:
                return
            self._open()
        if self._is_open:
            self._write(self._backlog.collect())
            self._read()

    def _open(self) -> None:
        try:
            found = self._timed(OPENING_S, lambda: self._file.open(self._why, self._backlog.done_upto()))
        except PublishError as error:
            self._lose(error)
            return
        if self._file.damage:
            self._news.append(self._file.damage)
            self._file.damage = ""
        self._is_open, self._unsynced = True, False
        self._backlog.opened(found)
        self._ready()

    def _write(self, batch: DiskBatch | None) -> None:
        due = self._unsynced and self._clock() - self._synced_s >= self.commit_every_s
        if batch is None and not due:
            return
        batch = batch or DiskBatch((), self._backlog.done_upto())
        sync = due or self.commit_every_s == 0.0
        try:
            self._timed(STUCK_S, lambda: self._file.commit(batch, sync=sync))
            self._wrote_s = self._clock()
            if not self._backlog.committed(batch):
                self._file.withdraw(batch)
                self._lose(None)
                return
        except PublishError as error:
            self._lose(error)
            return
        if sync:
            self._unsynced, self._synced_s = False, self._wrote_s
        elif not self._unsynced:
            self._unsynced, self._synced_s = True, self._wrote_s
        if batch.messages or batch.gaps:
            self._ready()

    def _read(self) -> None:
        while self._is_open and (after := self._backlog.wanted()) is not None:
            try:
                found = self._timed(STUCK_S, partial(self._file.read, after))
            except PublishError as error:
                self._lose(error)
                return
            self._backlog.read(found)
            self._ready()

    def _timed(self, patience_s: float, call: Callable[[], _Answer]) -> _Answer:
        self._patience_s, self._busy_from_s = patience_s, self._clock()
        try:
            return call()
        finally:
            self._busy_from_s = None

    def _lose(self, error: PublishError | None) -> None:
        """Do without the disk for a while."""
        self._file.close(tidy=False)
        self._is_open, self._why = False, "disk"
        self._retry_s = self._clock() + (0.0 if isinstance(error, Damaged) else RETRY_S)
        if error is not None:
            self._fail(error)

    def _fail(self, error: PublishError) -> None:
        if self._backlog.failed(str(error)):
            self._news.append(f"unsent messages are kept in memory only: {error}")
        self._ready()

    def _finish(self) -> None:
        if not self._is_open:
            return
        try:
            batch = self._backlog.collect() or DiskBatch((), self._backlog.done_upto())
            self._file.commit(batch, sync=True)
            tidy = self._backlog.committed(batch)
            self._file.close(tidy=tidy)
        except PublishError as error:
            _LOG.warning("the last messages could not be kept: %s", error)
