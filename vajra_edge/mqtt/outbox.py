"""Outbox: the bounded memory between the detector and the broker.

Messages go queued -> in flight -> acknowledged, or are dropped, oldest first, by bytes and age, and counted. It is in
memory: a durable one takes its place behind the same methods. Not locked: the Publisher owns the lock.

Beside it are the retained states, one value a topic, sent again whenever a connection comes up; and the backlog of
both, which is locked: many callers, one sender.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from vajra_edge.mqtt import events
from vajra_edge.mqtt.commands import ReplyTo
from vajra_edge.mqtt.messages import mark_replayed
from vajra_edge.mqtt.topics import Topic, Topics

ENTRY_BYTES = 400
"""Memory of one entry beside its payload (objects, deque and dict slots), counted so that the bound is honest."""
MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class Queued:
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
        self._queued: deque[Queued] = deque()
        self._in_flight: dict[int, Queued] = {}
        self._size_bytes = 0
        self._next_number = 0
        self._live_from = 0
        self._acked = 0
        self._dropped: Counter[str] = Counter()

    def offer(self, topic: Topic, payload: bytes, now_s: float) -> None:
        """Queue a message; what no longer fits is dropped, oldest first."""
        self._queued.append(Queued(self._next_number, topic, payload, now_s))
        self._next_number += 1
        self._size_bytes += len(payload) + ENTRY_BYTES
        self._trim(now_s)

    def take(self, now_s: float) -> Queued | None:
        """The next message to send, now in flight; None when nothing waits."""
        self._trim(now_s)
        if not self._queued:
            return None
        entry = self._queued.popleft()
        self._in_flight[entry.number] = entry
        return entry

    def is_replay(self, entry: Queued) -> bool:
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

    def _leave(self, number: int) -> Queued | None:
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


class LastValues:
    """Remembers the newest value of each topic and which of them the broker has not been given.

    A value that is replaced before it was sent is never sent: a build's percents do not queue. Not locked: the
    Publisher owns the lock.
    """

    def __init__(self) -> None:
        self._values: dict[Topic, bytes] = {}
        self._unsent: dict[Topic, None] = {}

    def set(self, topic: Topic, payload: bytes) -> None:
        """The newest value; an empty one takes the topic off the broker."""
        self._values[topic] = payload
        self._unsent[topic] = None

    def take(self) -> tuple[Topic, bytes] | None:
        """The next value to send; None when the broker was given all of them."""
        if not self._unsent:
            return None
        topic = next(iter(self._unsent))
        del self._unsent[topic]
        return topic, self._values[topic]

    def arrived(self, topic: Topic) -> None:
        """The broker has it; a topic that was taken off the broker need not be remembered."""
        if self._values.get(topic) == b"" and topic not in self._unsent:
            del self._values[topic]

    def resend(self) -> None:
        """A new connection: the broker may have restarted, and it has announced the last will."""
        self._unsent = dict.fromkeys(self._values)

    def __len__(self) -> int:
        """Values that were not sent yet."""
        return len(self._unsent)


HOLD_S = 1.0
"""Pause of the detections after the broker refused one for the moment."""
_MAX_RESPONSES = 64


@dataclass(frozen=True)
class Parcel:
    """One message on its way.

    Attributes:
        path: full MQTT topic.
        payload: its bytes.
        topic: quality of service and retention.
        number: in the outbox; None for what is not a detection message.
        reply_to: of a response, else None.
    """

    path: str
    payload: bytes
    topic: Topic
    number: int | None = None
    reply_to: ReplyTo | None = None


class Backlog:
    """States go first, then responses, detections in their order, and pictures.

    Args:
        max_bytes: bound of the outbox.
        max_age_s: bound of the outbox.
    """

    def __init__(self, max_bytes: int, max_age_s: float) -> None:
        self._lock = threading.Lock()
        self._outbox = Outbox(max_bytes, max_age_s)
        self._states = LastValues()
        self._responses: deque[tuple[ReplyTo, bytes]] = deque(maxlen=_MAX_RESPONSES)
        self._pictures: dict[Topic, bytes] = {}
        self._hold_until_s = 0.0

    def offer(self, topic: Topic, payload: bytes, now_s: float) -> None:
        """A detection message."""
        with self._lock:
            self._outbox.offer(topic, payload, now_s)

    def set_state(self, topic: Topic, payload: bytes) -> None:
        """The newest value of a retained topic."""
        with self._lock:
            self._states.set(topic, payload)

    def set_picture(self, topic: Topic, jpeg: bytes) -> None:
        """The newest picture of a camera."""
        with self._lock:
            self._pictures[topic] = jpeg

    def answer(self, reply_to: ReplyTo, payload: bytes) -> None:
        """A response; beyond 64 that wait the oldest is forgotten, as its caller has given up."""
        with self._lock:
            self._responses.append((reply_to, payload))

    def take(self, topics: Topics, now_s: float) -> Parcel | None:
        """The next parcel; None when nothing may be sent now."""
        with self._lock:
            state = self._states.take()
            if state is not None:
                return Parcel(topics.path(state[0]), state[1], state[0])
            if self._responses:
                reply, payload = self._responses.popleft()
                return Parcel(reply.path, payload, Topic("", 1, retain=False), reply_to=reply)
            entry = self._outbox.take(now_s) if now_s >= self._hold_until_s else None
            if entry is not None:
                payload = mark_replayed(entry.payload) if self._outbox.is_replay(entry) else entry.payload
                return Parcel(topics.path(entry.topic), payload, entry.topic, entry.number)
            if self._pictures:
                topic, jpeg = self._pictures.popitem()
                return Parcel(topics.path(topic), jpeg, topic)
        return None

    def settle(self, parcel: Parcel, code: int, now_s: float) -> None:
        """The broker has a parcel, or refused it with a code from 0x80 on; refused states wait for their next value."""
        with self._lock:
            if parcel.number is None:
                self._states.arrived(parcel.topic)
            elif code < events.FAILURE:
                self._outbox.ack(parcel.number)
            else:
                retry = code in events.TRANSIENT
                reason = "too_large" if code == events.PACKET_TOO_LARGE else "refused"
                self._outbox.refuse(parcel.number, reason, retry=retry)
                self._hold_until_s = now_s + HOLD_S if retry else self._hold_until_s

    def drop(self, parcel: Parcel, reason: str) -> None:
        """This parcel is not sent (again): the connection breaks over it, or over such. A state has its next value."""
        if parcel.number is not None:
            with self._lock:
                self._outbox.refuse(parcel.number, reason)

    def connected(self) -> None:
        """A connection came up: all states are sent again, and what waited is replayed."""
        with self._lock:
            self._outbox.connected()
            self._states.resend()
            self._hold_until_s = 0.0

    def disconnected(self, under_way: Iterable[Parcel]) -> None:
        """The connection is gone: detections and responses that were under way wait again, pictures are forgotten."""
        with self._lock:
            self._outbox.disconnected()
            again = [(parcel.reply_to, parcel.payload) for parcel in under_way if parcel.reply_to is not None]
            self._responses.extendleft(reversed(again))
            self._pictures.clear()

    def expire(self, now_s: float) -> None:
        """Drop what became too old."""
        with self._lock:
            self._outbox.expire(now_s)

    def resize(self, max_bytes: int, max_age_s: float, now_s: float) -> None:
        """Other bounds of the outbox."""
        with self._lock:
            self._outbox.resize(max_bytes, max_age_s, now_s)

    def abandon(self) -> None:
        """Drop the detections that are left, counted."""
        with self._lock:
            self._outbox.abandon()

    def counts(self) -> OutboxCounts:
        """Of the detection messages."""
        with self._lock:
            return self._outbox.counts()

    def is_empty(self) -> bool:
        """Whether the broker has acknowledged every detection message and was given all else; pictures do not count."""
        with self._lock:
            return not (len(self._outbox) or len(self._states) or self._responses)
