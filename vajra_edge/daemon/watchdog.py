"""Watchdog: fed with proof that every loop makes progress, or waits on purpose, and with nothing else."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from vajra_edge.daemon.stall import Stall, Stillness
from vajra_edge.daemon.systemd import Notify

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Late:
    """A loop that has not been heard of for longer than it may."""

    name: str
    silent_s: float

    def __str__(self) -> str:
        return f"{self.name} has been silent for {self.silent_s:.0f} s"


class Beats:
    """The last sign of life of each loop. Any thread may beat.

    Args:
        clock: monotonic seconds.
        still_s: without any sign of life for longer than this everything stood still, and nobody is late for that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, still_s: float = math.inf) -> None:
        self._clock = clock
        self._stillness = Stillness(still_s)
        self._lock = threading.Lock()
        self._deadlines_s: dict[str, float] = {}
        self._heard_s: dict[str, float] = {}

    def expect(self, name: str, deadline_s: float) -> Callable[[], None]:
        """Watch a loop from now on.

        Args:
            name: for people.
            deadline_s: longest time between two beats; a loop that waits on purpose beats meanwhile.

        Returns:
            What the loop calls; after ``forget`` it does nothing.
        """
        with self._lock:
            self._deadlines_s[name] = deadline_s
            self._heard_s[name] = self._clock()
        return lambda: self._beat(name)

    def forget(self, name: str) -> None:
        """The loop has ended on purpose."""
        with self._lock:
            self._deadlines_s.pop(name, None)
            self._heard_s.pop(name, None)

    def late(self) -> tuple[Late, ...]:
        """Loops that are silent for too long, the longest first."""
        with self._lock:
            now_s = self._clock()
            self._excuse(now_s)
            silent = [Late(name, now_s - at_s) for name, at_s in self._heard_s.items()]
            late = [item for item in silent if item.silent_s > self._deadlines_s[item.name]]
        return tuple(sorted(late, key=lambda item: -item.silent_s))

    def stalls(self) -> tuple[Stall, ...]:
        """Times in which everything stood still, the newest last."""
        with self._lock:
            return tuple(self._stillness.stalls)

    def _beat(self, name: str) -> None:
        with self._lock:
            now_s = self._clock()
            self._excuse(now_s)
            if name in self._heard_s:
                self._heard_s[name] = now_s

    def _excuse(self, now_s: float) -> None:
        """Time in which all loops stood still is no loop's: each gets the rest of its deadline to beat again."""
        still_s = self._stillness.alive(now_s)
        if still_s:
            self._heard_s = {name: min(at_s + still_s, now_s) for name, at_s in self._heard_s.items()}


class Watchdog:
    """Pings systemd at half of its patience while nobody is late, and says who is.

    Args:
        notify: where pings go.
        beats: who must be alive.
    """

    def __init__(self, notify: Notify, beats: Beats) -> None:
        self._notify, self._beats = notify, beats
        self._every_s = notify.watchdog_s / 2 if notify.watchdog_s else None
        self._next_s = float("-inf")
        self._named: frozenset[str] = frozenset()

    def tick(self, now_s: float) -> tuple[Late, ...]:
        """Look at everybody.

        Args:
            now_s: monotonic.

        Returns:
            Who is late; the log names each once.
        """
        late = self._beats.late()
        for item in late:
            if item.name not in self._named:
                log.error("%s; the watchdog is not fed until it moves", item)
        self._named = frozenset(item.name for item in late)
        if not late and self._every_s is not None and now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            self._notify.watchdog()
        return late
