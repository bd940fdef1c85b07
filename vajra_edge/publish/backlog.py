"""Backlog: everything that waits for the broker, and which of it goes next. Locked: many callers, one sender."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from vajra_edge.publish import reasons
from vajra_edge.publish.last_values import LastValues
from vajra_edge.publish.messages import mark_replayed
from vajra_edge.publish.outbox import Outbox, OutboxCounts
from vajra_edge.publish.requests import ReplyTo
from vajra_edge.publish.topics import Topic, Topics

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
            elif code < reasons.FAILURE:
                self._outbox.ack(parcel.number)
            else:
                retry = code in reasons.TRANSIENT
                reason = "too_large" if code == reasons.PACKET_TOO_LARGE else "refused"
                self._outbox.refuse(parcel.number, reason, retry=retry)
                self._hold_until_s = now_s + HOLD_S if retry else self._hold_until_s

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
