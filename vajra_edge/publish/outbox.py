"""Outbox: the bounded memory between the detector and the broker.

Messages go queued -> in flight -> acknowledged, or are dropped, oldest first, by bytes and age, and counted. It is in
memory: a durable one takes its place behind the same methods. Not locked: the Publisher owns the lock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from vajra_edge.publish.topics import Topic

ENTRY_BYTES = 400
"""Memory of one entry beside its payload (objects, deque and dict slots), counted so that the bound is honest."""
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Entry:
    """One message that waits or is under way.

    Attributes:
        number: counts what was offered; the order of sending.
        topic: where it goes.
        payload: as encoded when it was live.
        offered_s: monotonic seconds.
        attempts: how often the broker refused it for the moment.
    """

    number: int
    topic: Topic
    payload: bytes
    offered_s: float
    attempts: int = 0


@dataclass(frozen=True)
class OutboxCounts:
    """What became of the messages.

    Attributes:
        queued: waiting to be sent.
        in_flight: sent, not yet acknowledged.
        size_bytes: memory of both.
        acked: acknowledged by the broker (for quality of service 0: written to it).
        dropped: by reason: ``bytes``, ``age``, ``refused``, ``too_large``, ``closed``.
    """

    queued: int
    in_flight: int
    size_bytes: int
    acked: int
    dropped: Mapping[str, int]


class Outbox:
    """Keeps messages in order until the broker has them.

    Args:
        max_bytes: bound of the memory; the oldest queued message goes first.
        max_age_s: an older queued message goes.
    """

    def __init__(self, max_bytes: int, max_age_s: float) -> None:
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._queued: deque[Entry] = deque()
        self._in_flight: dict[int, Entry] = {}
        self._size_bytes = 0
        self._next_number = 0
        self._live_from = 0
        self._acked = 0
        self._dropped: Counter[str] = Counter()

    def offer(self, topic: Topic, payload: bytes, now_s: float) -> None:
        """Queue a message; what no longer fits is dropped, oldest first."""
        self._queued.append(Entry(self._next_number, topic, payload, now_s))
        self._next_number += 1
        self._size_bytes += len(payload) + ENTRY_BYTES
        self._trim(now_s)

    def take(self, now_s: float) -> Entry | None:
        """The next message to send, now in flight; None when nothing waits."""
        self._trim(now_s)
        if not self._queued:
            return None
        entry = self._queued.popleft()
        self._in_flight[entry.number] = entry
        return entry

    def is_replay(self, entry: Entry) -> bool:
        """Whether a message was offered before the present connection came up, and so is not live any more."""
        return entry.number < self._live_from

    def ack(self, number: int) -> None:
        """The broker has it. A number that is not in flight is ignored: brokers repeat themselves."""
        if self._leave(number) is not None:
            self._acked += 1

    def refuse(self, number: int, reason: str = "refused", *, retry: bool = False) -> None:
        """The broker does not want it; with ``retry`` it may later, a bounded number of times."""
        entry = self._leave(number)
        if entry is None:
            return
        if retry and entry.attempts + 1 < MAX_ATTEMPTS:
            self._queued.appendleft(replace(entry, attempts=entry.attempts + 1))
            self._size_bytes += len(entry.payload) + ENTRY_BYTES
        else:
            self._dropped[reason] += 1

    def connected(self) -> None:
        """From here on new messages are live; what waits was held back and is replayed."""
        self._live_from = self._next_number

    def disconnected(self) -> None:
        """What was in flight goes back to the front of the queue, in order, to be sent again."""
        if self._in_flight:
            again = sorted([*self._in_flight.values(), *self._queued], key=lambda entry: entry.number)
            self._queued, self._in_flight = deque(again), {}

    def expire(self, now_s: float) -> None:
        """Drop what became too old."""
        self._trim(now_s)

    def resize(self, max_bytes: int, max_age_s: float, now_s: float) -> None:
        """Other bounds, from the settings."""
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._trim(now_s)

    def abandon(self) -> None:
        """Drop everything: the daemon ends."""
        self._dropped["closed"] += len(self._queued) + len(self._in_flight)
        self._queued.clear()
        self._in_flight.clear()
        self._size_bytes = 0

    def counts(self) -> OutboxCounts:
        """A snapshot."""
        return OutboxCounts(
            len(self._queued), len(self._in_flight), self._size_bytes, self._acked, dict(+self._dropped)
        )

    def __len__(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self._queued) + len(self._in_flight)

    def _leave(self, number: int) -> Entry | None:
        entry = self._in_flight.pop(number, None)
        if entry is not None:
            self._size_bytes -= len(entry.payload) + ENTRY_BYTES
        return entry

    def _trim(self, now_s: float) -> None:
        oldest_s = now_s - self._max_age_s
        while self._queued and self._queued[0].offered_s < oldest_s:
            self._drop_oldest("age")
        while self._queued and self._size_bytes > self._max_bytes:
            self._drop_oldest("bytes")

    def _drop_oldest(self, reason: str) -> None:
        entry = self._queued.popleft()
        self._size_bytes -= len(entry.payload) + ENTRY_BYTES
        self._dropped[reason] += 1
