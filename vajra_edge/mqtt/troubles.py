"""Troubles: what goes wrong on a connection that stands, said for as long as it lasts and a while longer.

A connection that is up and a broker that refuses every message look alike from afar: so whatever was refused, dropped
or taken away is said beside "connected", with how often, until it has not happened for ten minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

SAID_FOR_S = 600.0
"""Who looks into a device that does badly now and then sees what it did lately."""


class Trouble(Enum):
    """What is counted together; the newest is said."""

    REFUSED = "refused"
    BROKE = "broke"
    SUBSCRIPTION = "subscription"
    RIVAL = "rival"
    REQUESTS = "requests"
    UNINVITED = "uninvited"
    OUTBOX = "outbox"


@dataclass(frozen=True)
class _Told:
    text: str
    times: int
    least: int
    until_s: float


class Troubles:
    """Of one broker. Any thread may read.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[Trouble, _Told] = {}

    def happened(self, trouble: Trouble, text: str, for_s: float = SAID_FOR_S, least: int = 1) -> None:
        """Once more.

        Args:
            trouble: of this kind.
            text: one line, with its remedy.
            for_s: how long it is said, if it does not happen again.
            least: so often must it happen before it is worth a word.
        """
        with self._lock:
            now_s = self._clock()
            before = self._told.get(trouble)
            times = before.times if before and now_s < before.until_s else 0
            self._told[trouble] = _Told(text, times + 1, least, now_s + for_s)

    def over(self, trouble: Trouble) -> None:
        """It is mended."""
        with self._lock:
            self._told.pop(trouble, None)

    def told(self) -> tuple[str, ...]:
        """A line for each kind that happened lately."""
        with self._lock:
            now_s = self._clock()
            lately = [one for one in self._told.values() if now_s < one.until_s and one.times >= one.least]
        return tuple(one.text if one.times == 1 else f"{one.text} ({one.times} times)" for one in lately)
