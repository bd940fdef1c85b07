"""Background: one thread for what would keep the supervisor waiting (hashing, libraries that load, fsync), in order."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vajra_edge.errors import VajraError

Event_contra = TypeVar("Event_contra", contravariant=True)
"""What a background thread's tasks may end with; a background thread that takes more kinds does for who has fewer."""

log = logging.getLogger(__name__)


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
        name: of the thread.
    """

    def __init__(
        self, post: Callable[[Event_contra | TaskFailed | TaskMended], None], name: str = "background"
    ) -> None:
        self._post = post
        self._failing: set[str] = set()
        self._tasks: queue.SimpleQueue[tuple[str, Callable[[], Event_contra | None]] | None] = queue.SimpleQueue()
        # A daemon thread: a library that hangs while it loads must not keep the process from its exit.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def do(self, name: str, task: Callable[[], Event_contra | None]) -> None:
        """Put a task behind the others. Callable from any thread."""
        self._tasks.put((name, task))

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued; whether that was done in time."""
        self._tasks.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._tasks.get()) is not None:
            name, task = item
            event: Event_contra | TaskFailed | None
            try:
                event = task()
            except VajraError as error:
                log.warning("%s: %s", name, error)
                event = self._failed(name, str(error))
            except Exception as error:  # the top of a thread: a bug in one task is told and must not end the others
                log.exception("%s failed", name)
                event = self._failed(name, f"{type(error).__name__}: {error}")
            else:
                self._mended(name)
            if event is not None:
                self._post(event)

    def _failed(self, name: str, reason: str) -> TaskFailed:
        self._failing.add(name)
        return TaskFailed(name, reason)

    def _mended(self, name: str) -> None:
        if name in self._failing:
            self._failing.discard(name)
            self._post(TaskMended(name))
