"""Background: one thread for what would keep the supervisor waiting (hashing, libraries that load, fsync), in order.

Tasks take as long as they take, and few of them could say meanwhile that they live. So the thread's processor time
speaks for them: a task that reads, hashes or loads spends some, and one that a disk or a library holds spends none.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vajra_edge.daemon.watchdog import DESK, Beats, Loop
from vajra_edge.errors import VajraError

Event_contra = TypeVar("Event_contra", contravariant=True)
"""What a background thread's tasks may end with; a background thread that takes more kinds does for who has fewer."""

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""Longest wait for a task between two beats."""

LEAST_CPU_S = 1e-4
"""Processor time between two looks that counts as progress; a call that hangs and is interrupted spends less."""

LONGEST_S = 1800.0
"""A task that is busy for longer than this goes round in circles: its processor time speaks for it no more."""


@dataclass(frozen=True)
class TaskFailed:
    """Event: a task ended with an error that it did not turn into an event of its own.

    Attributes:
        name: of the task, for people.
        reason: one line.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class TaskMended:
    """Event: a task that failed the last time has succeeded, so that its failure is no trouble any more."""

    name: str


class Background(Generic[Event_contra]):
    """Does tasks one after the other, and posts the event that each returns.

    Args:
        post: takes the events; only enqueues.
        beats: watches the thread; None: nobody does.
        loop: as what.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        post: Callable[[Event_contra | TaskFailed | TaskMended], None],
        beats: Beats | None = None,
        loop: Loop = DESK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._post, self._beats, self._loop, self._clock = post, beats or Beats(), loop, clock
        self._failing: set[str] = set()
        self._tasks: queue.SimpleQueue[tuple[str, Callable[[], Event_contra | None]] | None] = queue.SimpleQueue()
        self._looks: set[str] = set()
        self._busy_since_s: float | None = None
        self._cpu_s = 0.0
        # A daemon thread: a library that hangs while it loads must not keep the process from its exit.
        self._thread = threading.Thread(target=self._run, name=loop.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._beats.expect(*self._loop)
        self._thread.start()

    def do(self, name: str, task: Callable[[], Event_contra | None]) -> None:
        """Put a task behind the others. Callable from any thread."""
        self._tasks.put((name, task))

    def look(self, name: str, task: Callable[[], Event_contra | None]) -> None:
        """As ``do``, for what is done now and then: nothing where the last one of this name still waits."""
        if name not in self._looks:
            self._looks.add(name)
            self.do(name, task)

    def tick(self) -> None:
        """Beat for a task that gets anywhere. Called by the supervisor, now and then."""
        since_s, number = self._busy_since_s, self._thread.ident
        if since_s is None or number is None or self._clock() - since_s > LONGEST_S or not self._thread.is_alive():
            return
        spent_s = time.clock_gettime(time.pthread_getcpuclockid(number))
        if spent_s - self._cpu_s >= LEAST_CPU_S:
            self._beats.beat(self._loop.name)
        self._cpu_s = spent_s

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued; whether that was done in time."""
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._beats.forget(self._loop.name)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._beats.beat(self._loop.name, "")
            try:
                item = self._tasks.get(timeout=IDLE_S)
            except queue.Empty:
                continue
            if item is None:
                return
            self._beats.beat(self._loop.name, item[0])
            self._busy_since_s = self._clock()
            event = self._done(*item)
            self._busy_since_s = None
            if event is not None:
                self._post(event)

    def _done(self, name: str, task: Callable[[], Event_contra | None]) -> Event_contra | TaskFailed | None:
        self._looks.discard(name)
        try:
            event = task()
        except VajraError as error:
            log.warning("%s: %s", name, error)
            return self._failed(name, str(error))
        except Exception as error:  # the top of a thread: a bug in one task is told and must not end the others
            log.exception("%s failed", name)
            return self._failed(name, f"{type(error).__name__}: {error}")
        self._mended(name)
        return event

    def _failed(self, name: str, reason: str) -> TaskFailed:
        self._failing.add(name)
        return TaskFailed(name, reason)

    def _mended(self, name: str) -> None:
        if name in self._failing:
            self._failing.discard(name)
            self._post(TaskMended(name))
