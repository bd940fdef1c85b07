"""Backlog: everything that waits for the broker, in the order in which it is sent; many callers, one sender, a lock.

States go first: the newest value of each retained topic, sent again whenever a connection comes up. They pass the
outbox by. Then responses, then detections in their order, and pictures last.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from vajra_edge.clock import is_synchronised
from vajra_edge.mqtt import events
from vajra_edge.mqtt.commands import ReplyTo
from vajra_edge.mqtt.gaps import Gap
from vajra_edge.mqtt.messages import Draft, Number, encode_gap, mark_replayed
from vajra_edge.mqtt.outbox import Outbox
from vajra_edge.mqtt.outbox_values import DiskBatch, OutboxBounds, OutboxCounts, Queued, Recovered, Retry
from vajra_edge.mqtt.picture import Receipt, Snapshot, SnapshotSent, encode_picture
from vajra_edge.mqtt.topics import Topic, Topics, topic_of


class LastValues:
    """Remembers the newest value of each topic and which of them the broker has not been given.

    A value that is replaced before it was sent is never sent: a build's percents do not queue. Not locked: the
    Publisher owns the lock.
    """

    def __init__(self) -> None:
        self._values: dict[Topic, bytes] = {}
        self._unsent: dict[Topic, None] = {}
        self._refused: set[Topic] = set()

    def set(self, topic: Topic, payload: bytes) -> None:
        """The newest value; an empty one takes the topic off the broker."""
        self._values[topic] = payload
        self._unsent[topic] = None
        self._refused.discard(topic)

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

    def refused(self, topic: Topic) -> None:
        """The broker did not want it for the moment: else it would go on showing an older value."""
        if topic in self._values and topic not in self._unsent:
            self._refused.add(topic)

    def retry(self) -> None:
        """Send again what was refused."""
        self._unsent.update(dict.fromkeys(self._refused))
        self._refused.clear()

    def resend(self) -> None:
        """A new connection: the broker may have restarted, and it has announced the last will."""
        self._unsent = dict.fromkeys(self._values)
        self._refused.clear()

    def holds(self, topic: Topic) -> bool:
        """Whether it has a value; a topic that is taken off the broker has one until the broker knows."""
        return topic in self._values

    def __len__(self) -> int:
        """Values that were not sent yet."""
        return len(self._unsent)


HOLD_S = 1.0
"""Pause of the detections after the broker refused one for the moment."""

STATE_HOLD_S = 10.0
"""Likewise of the states that it refused."""

_MAX_RESPONSES = 64


@dataclass(frozen=True)
class Parcel:
    """One message on its way.

    Attributes:
        path: full MQTT topic.
        payload: its bytes.
        topic: quality of service and retention.
        number: in the outbox, negative for a gap record; None for what passes it by.
        reply_to: of a response, else None.
        user: user properties, which MQTT 5 has.
        sent: to be posted once it is; None: nobody waits for it.
    """

    path: str
    payload: bytes
    topic: Topic
    number: int | None = None
    reply_to: ReplyTo | None = None
    user: tuple[tuple[str, str], ...] = ()
    sent: SnapshotSent | None = None

    @property
    def is_gap(self) -> bool:
        """Whether it says which messages do not come."""
        return self.number is not None and self.number < 0


class Backlog:
    """States go first, then responses, detections in their order, and pictures.

    Args:
        bounds: of the outbox.
        epoch: see ``Outbox``.
    """

    def __init__(self, bounds: OutboxBounds, epoch: str | None = None) -> None:
        self._lock = threading.Lock()
        self._outbox = Outbox(bounds, epoch)
        self._states = LastValues()
        self._responses: deque[tuple[ReplyTo, bytes]] = deque(maxlen=_MAX_RESPONSES)
        self._pictures: dict[str, Snapshot] = {}
        self._hold_until_s = self._states_hold_until_s = 0.0
        self._is_refused = False

    def expect(self, cameras: Sequence[str]) -> None:
        """See ``Outbox``."""
        with self._lock:
            self._outbox.expect(cameras)

    def offer(self, draft: Draft, now_s: float) -> Receipt:
        """A detection message."""
        with self._lock:
            return self._outbox.offer(draft, now_s)

    def set_state(self, topic: Topic, payload: bytes) -> None:
        """The newest value of a retained topic."""
        with self._lock:
            self._states.set(topic, payload)

    def holds_state(self, topic: Topic) -> bool:
        """See ``LastValues.holds``."""
        with self._lock:
            return self._states.holds(topic)

    def resend_states(self) -> None:
        """Send every retained topic's value again."""
        with self._lock:
            self._states.resend()

    def set_picture(self, snapshot: Snapshot) -> None:
        """The newest picture of a camera."""
        with self._lock:
            before = self._pictures.get(snapshot.camera)
            asked = snapshot.asked or (before is not None and before.asked)
            self._pictures[snapshot.camera] = replace(snapshot, asked=asked)

    def answer(self, reply_to: ReplyTo, payload: bytes) -> None:
        """A response; beyond 64 that wait the oldest is forgotten, as its caller has given up."""
        with self._lock:
            self._responses.append((reply_to, payload))

    def take(self, topics: Topics, now_s: float) -> Parcel | None:
        """The next parcel; None when nothing may be sent now."""
        with self._lock:
            if now_s >= self._states_hold_until_s:
                self._states.retry()
            state = self._states.take()
            if state is not None:
                return Parcel(topics.path(state[0]), state[1], state[0])
            if self._responses:
                reply, payload = self._responses.popleft()
                return Parcel(reply.path, payload, Topic("", 1, retain=False), reply_to=reply)
            entry = self._outbox.take(now_s) if self._may_send(now_s) else None
            if entry is not None:
                return self._parcel(entry, topics)
            return self._picture(topics)

    def _may_send(self, now_s: float) -> bool:
        """After a refusal for the moment one is sent alone: what comes behind it is not to be taken before it."""
        return now_s >= self._hold_until_s and not (self._is_refused and self._outbox.is_under_way)

    def _picture(self, topics: Topics) -> Parcel | None:
        """One whose detection message has its number."""
        camera = next((name for name, one in self._pictures.items() if one.receipt.is_settled), None)
        if camera is None:
            return None
        topic, snapshot = topics.snapshot(camera), self._pictures.pop(camera)
        picture = encode_picture(snapshot, topics.device)
        sent = SnapshotSent(camera, picture.told) if snapshot.asked else None
        return Parcel(topics.path(topic), picture.payload, topic, user=picture.user, sent=sent)

    def _parcel(self, entry: Queued | tuple[int, Gap], topics: Topics) -> Parcel:
        if isinstance(entry, Queued):
            payload = mark_replayed(entry.payload) if self._outbox.is_replay(entry) else entry.payload
            number, camera = entry.number, entry.camera
        else:
            number, gap = entry
            first, camera = Number(topics.device, gap.epoch, gap.camera, gap.first), gap.camera
            known = is_synchronised()
            payload = encode_gap(first, gap.last, gap.why, datetime.now(timezone.utc), clock_synchronised=known)
        topic = topic_of(camera, topics)
        return Parcel(topics.path(topic), payload, topic, number)

    def settle(self, parcel: Parcel, code: int, now_s: float) -> None:
        """The broker has a parcel, or refused it with a code from 0x80 on."""
        with self._lock:
            if parcel.number is None:
                self._settle_state(parcel.topic, code, now_s)
            elif code < events.FAILURE:
                self._outbox.ack(parcel.number)
                self._is_refused = False
            else:
                self._refuse(parcel.number, code, now_s)

    def _settle_state(self, topic: Topic, code: int, now_s: float) -> None:
        """One that is refused for good waits for its next value."""
        if code in events.TRANSIENT and topic.retain:
            self._states.refused(topic)
            self._states_hold_until_s = now_s + STATE_HOLD_S
        else:
            self._states.arrived(topic)

    def _refuse(self, number: int, code: int, now_s: float) -> None:
        retry = Retry.BOUNDED if code in events.TRANSIENT else Retry.NEVER
        retry = Retry.PATIENT if code == events.QUOTA_EXCEEDED else retry
        reason = "too_large" if code == events.PACKET_TOO_LARGE else "refused"
        self._outbox.refuse(number, now_s, reason, code=code, retry=retry)
        if retry is not Retry.NEVER and number > 0:
            self._hold_until_s, self._is_refused = now_s + HOLD_S, True

    def drop(self, parcel: Parcel, reason: str, now_s: float) -> None:
        """This parcel is not sent (again): the connection breaks over it, or over such. A state has its next value."""
        if parcel.number is not None:
            with self._lock:
                self._outbox.refuse(parcel.number, now_s, reason)

    def connected(self) -> None:
        """A connection came up: all states are sent again, and what waited is replayed."""
        with self._lock:
            self._outbox.connected()
            self._states.resend()
            self._hold_until_s, self._is_refused = 0.0, False

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

    def resize(self, bounds: OutboxBounds, now_s: float) -> None:
        """Other bounds of the outbox."""
        with self._lock:
            self._outbox.resize(bounds, now_s)

    def abandon(self) -> None:
        """Drop, counted, the detections that are left in memory alone."""
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

    # Of the outbox's writer; each as the method of ``Outbox`` of that name.

    @property
    def is_durable(self) -> bool:
        """See ``Outbox``."""
        with self._lock:
            return self._outbox.is_durable

    def opened(self, found: Recovered) -> None:
        """See ``Outbox``."""
        with self._lock:
            self._outbox.opened(found)

    def failed(self, why: str) -> bool:
        """See ``Outbox``."""
        with self._lock:
            return self._outbox.failed(why)

    def collect(self) -> DiskBatch | None:
        """See ``Outbox``."""
        with self._lock:
            return self._outbox.collect()

    def committed(self, batch: DiskBatch) -> bool:
        """See ``Outbox``."""
        with self._lock:
            return self._outbox.committed(batch)

    def wanted(self) -> int | None:
        """See ``Outbox``."""
        with self._lock:
            return self._outbox.wanted()

    def read(self, found: Sequence[Queued]) -> None:
        """See ``Outbox``."""
        with self._lock:
            self._outbox.read(found)

    def done_upto(self) -> int:
        """See ``Outbox``."""
        with self._lock:
            return self._outbox.done_upto()
