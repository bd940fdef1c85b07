"""Publisher: takes detections and states from the daemon, and sees to it that the broker gets them.

Callers never wait: detections go to the outbox, states to the last values, and one thread moves them to the broker as
far as its window allows. That thread dials, reads, writes and beats; nothing else touches the connection.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_never

from vajra_edge.admission import Admission, AdmissionLimits, Bucket, RequestPace, Verdict
from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError
from vajra_edge.mqtt import events
from vajra_edge.mqtt.backlog import Backlog, Parcel
from vajra_edge.mqtt.client import DIAL_TIMEOUT_S, BrokerEndpoint, PublishProperties
from vajra_edge.mqtt.commands import MAX_REQUEST_BYTES, ReplyTo, Requested, parse, reply_to, verb_of
from vajra_edge.mqtt.events import Acked, Down, Happening, LossCause, Received, Subscribed, Up
from vajra_edge.mqtt.invitation import Invitation
from vajra_edge.mqtt.link import Link
from vajra_edge.mqtt.messages import Draft, EngineTag, Response, ServiceStatus, encode, encode_detections
from vajra_edge.mqtt.outbox_values import DISK_BYTES, MEMORY_BYTES, KeptIn, OutboxBounds, OutboxCounts
from vajra_edge.mqtt.outbox_writer import Disk, NoDisk, OutboxWriter
from vajra_edge.mqtt.picture import Receipt, Snapshot, SnapshotSent
from vajra_edge.mqtt.suspects import Key, Sent, Suspects
from vajra_edge.mqtt.topics import INSTALL, VERBS, Topic, Topics
from vajra_edge.mqtt.troubles import SAID_FOR_S, Trouble, Troubles
from vajra_edge.types import Detections, Frame

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_MAX_NOTED = 64

LIMITS = AdmissionLimits(
    caller=RequestPace(5.0, 32.0), all_callers=RequestPace(10.0, 40.0), refusals=RequestPace(2.0, 10.0), open=32
)
"""Of requests. Who sends one is not said by MQTT, so that a caller is whoever shares a response topic.

Who leaves the house turns all cameras off at once, a request each.
"""

BIRTHS = RequestPace(0.1, 3.0)
"""Starts of Home Assistant at which all states are sent again; whoever sends more has another thing in mind."""

FLOOD = RequestPace(50.0, 500.0)
"""Requests that are not even refused, up to which the broker is still asked for them: each has to be read, and holds up
the acknowledgements behind it."""

BEHIND_S = 2.0
"""An acknowledgement that waits behind a flood for so long is not waited for: the broker has more of it in store."""

SURELY_RIVAL = 3
"""A network or a restart breaks a connection now and then; so many breaks within minutes have another cause."""

SLOW_DIAL_S = 10.0
"""An attempt to connect that takes longer is told: the network's part in it ends after half of this."""

KEEP_S = 2.0
"""For the last messages to get onto the disk at a stop."""

_BORN = b"online"
_BUSY = "the daemon is busy: requests come too often; wait for the answers and ask less often"
_FLOOD = "requests over MQTT come too often and are not all taken; find who sends them"


@dataclass(frozen=True)
class BrokerChanged:
    """Event: the connection came up or went away, or the reason why it is away is another.

    Attributes:
        connected: whether messages get through.
        protocol: ``5`` or ``3.1.1`` when connected, else empty.
        reason: one line with a remedy when not connected, else empty.
    """

    connected: bool
    protocol: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """What a response says; see ``messages.Response``."""

    status: str
    content: Mapping[str, object] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class PublishCounts:
    """A snapshot of the MQTT side.

    Attributes:
        outbox: what became of the detection messages.
        connected: whether messages get through.
        protocol: of the connection, else empty.
        connections: how often one came up.
        last_error: the newest trouble, kept after it passed.
        troubles: what was refused, dropped or taken away lately, a line each, be it connected or not.
        requests_refused: requests that came too often, since the start.
    """

    outbox: OutboxCounts
    connected: bool
    protocol: str
    connections: int
    last_error: str
    troubles: tuple[str, ...] = ()
    requests_refused: int = 0


class Publisher:
    """The device's side of the broker.

    Args:
        mqtt: the settings.
        topics: the table of topics.
        post: takes ``BrokerChanged``, ``Requested`` and ``SnapshotSent`` events; must not block.
        beat: called at least every second while the thread lives.
        clock_ns: monotonic, the clock of ``Frame.captured_ns``.
        epoch: names the counts of messages that are not on disk; None: another one each time.
        folder: where the outbox may keep its file; None: messages are kept in memory, whatever the settings say.
    """

    def __init__(
        self,
        mqtt: MqttSettings,
        topics: Topics,
        post: Callable[[BrokerChanged | Requested | SnapshotSent], None],
        beat: Callable[[], None] = lambda: None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        epoch: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self._mqtt, self._topics, self._post, self._beat, self._clock_ns = mqtt, topics, post, beat, clock_ns
        bounds = _bounds(mqtt, topics, folder)
        self._folder, self._kept, self._backlog = folder, bounds.kept, Backlog(bounds, epoch)
        self._under_way: dict[int, Parcel] = {}
        self._unanswered: set[int] = set()
        self._redirects: SimpleQueue[tuple[MqttSettings, Topics]] = SimpleQueue()
        self._broker = BrokerChanged(connected=False)
        self._connections = 0
        self._last_error = ""
        self._noted: set[str] = set()
        self._close_by_s: float | None = None
        self._link = Link(self._endpoint(), self._now_s)
        self._disk: Disk = NoDisk()
        if folder is not None and bounds.kept is KeptIn.DISK:
            wake = self._link.wake
            self._disk = OutboxWriter(folder, topics.device, self._backlog, mqtt.commit_every_s, wake, self._now_s)
        self._held: Parcel | None = None
        self._suspects = Suspects(self._now_s)
        self._invitation, self._invited, self._unheard = Invitation(self._now_s), False, 0
        self._admission, self._flood = Admission(LIMITS, self._now_s), Bucket(FLOOD, self._now_s())
        self._births = Bucket(BIRTHS, self._now_s())
        self._troubles = Troubles(self._now_s)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def expect(self, cameras: Sequence[str]) -> None:
        """These may give detections from now on, see ``Outbox.expect``; before ``start`` for those of the start."""
        self._backlog.expect(cameras)
        self._disk.wake()

    def start(self) -> None:
        """Start the thread; a broker need not be there."""
        self._disk.start()
        self._thread.start()

    def detections(
        self, frame: Frame, detections: Detections, tag: EngineTag, tracks: NDArray[np.int64] | None = None
    ) -> Receipt:
        """Queue one detection message; what the bounds of the outbox do not hold is dropped, oldest first."""
        draft = encode_detections(frame, detections, tag, self._topics.device, self._clock_ns(), tracks)
        return self.event(draft)

    def event(self, draft: Draft) -> Receipt:
        """Queue one message of any stream of the outbox, as ``detections`` does."""
        receipt = self._backlog.offer(draft, self._now_s())
        if self._kept is KeptIn.DISK:
            self._disk.wake()
        else:
            self._link.wake()
        return receipt

    def state(self, topic: Topic, payload: bytes) -> None:
        """The newest value of a retained topic, sent now and at every connect; an empty one takes it off the broker."""
        self._backlog.set_state(topic, payload)
        self._link.wake()

    def holds(self, topic: Topic) -> bool:
        """Whether a value of this retained topic is kept; one that was taken off is, until the broker knows."""
        return self._backlog.holds_state(topic)

    def snapshot(self, snapshot: Snapshot) -> None:
        """A picture, sent if the broker is there, and replaced by a newer one if it has to wait."""
        self._backlog.set_picture(snapshot)
        self._link.wake()

    def accept(self, request: Requested, content: Mapping[str, object]) -> None:
        """Say that a request is being done; ``respond`` follows."""
        self._answer(request.verb, request.transaction, request.reply_to, Answer("accepted", content))

    def respond(self, request: Requested, content: Mapping[str, object], error: str = "") -> None:
        """Answer a request; with ``error``, that it failed. The last word."""
        self._admission.done(request.verb)
        answer = Answer("error" if error else "ok", content, error)
        self._answer(request.verb, request.transaction, request.reply_to, answer)

    def reconnect(self, mqtt: MqttSettings, topics: Topics) -> None:
        """Use other settings: leaves the broker and connects again; messages and states are kept."""
        self._redirects.put((mqtt, topics))
        self._link.wake()

    def counters(self) -> PublishCounts:
        """What happened so far."""
        outbox, broker = self._backlog.counts(), self._broker
        return PublishCounts(
            outbox,
            broker.connected,
            broker.protocol,
            self._connections,
            self._last_error,
            self._told(outbox),
            self._admission.refused,
        )

    def close(self, drain_s: float) -> None:
        """Say ``stopped``, send what waits, for at most ``drain_s`` and while the broker is there; may be repeated."""
        if self._thread.ident is None:
            self._link.close()
            self._disk.close(drain_s)
        elif self._close_by_s is None:
            self.state(self._topics.status, encode(ServiceStatus(self._topics.device, "stopped")))
            self._close_by_s = self._now_s() + drain_s
            self._link.wake()
            self._thread.join(drain_s + 2.0 * _POLL_S)
            self._disk.close(KEEP_S)
            self._backlog.abandon()
            self._say_what_is_left()

    def _say_what_is_left(self) -> None:
        outbox = self._backlog.counts()
        if outbox.queued:
            _LOG.info("%d messages wait on disk for the next start", outbox.queued)
        if lost := outbox.dropped.get("closed", 0):
            _LOG.warning("%d messages that waited in memory are lost with this process", lost)

    def _told(self, outbox: OutboxCounts) -> tuple[str, ...]:
        """Troubles that pass, and one that lasts."""
        told, lasting = self._troubles.told(), f"unsent messages are kept in memory only: {outbox.trouble}"
        is_told = not outbox.trouble or any(line.startswith(lasting) for line in told)
        return told if is_told else (lasting, *told)

    def _now_s(self) -> float:
        return self._clock_ns() / 1e9

    def _endpoint(self) -> BrokerEndpoint:
        will = encode(ServiceStatus(self._topics.device, "lost", "the device left without a word"))
        path = self._topics.path(self._topics.status)
        return BrokerEndpoint(self._mqtt, f"vajra-edge-{self._topics.device}", (path, will), 2 * MAX_REQUEST_BYTES)

    def _run(self) -> None:
        while not self._is_done():
            self._beat()
            try:
                self._step()
            except Exception as error:  # noqa: BLE001  top of the thread: it becomes an event, and the thread goes on
                _LOG.exception("the MQTT thread goes on after a fault of its own")
                self._link.abort()
                self._lose(PublishError(f"fault in the MQTT thread: {error}", remedy="report it with the log"))
                time.sleep(_POLL_S)
        self._link.close()
        self._broker = BrokerChanged(connected=False)

    def _is_done(self) -> bool:
        if self._close_by_s is None:
            return False
        idle = self._backlog.is_empty() and not self._under_way
        dials = self._link.dialling and self._link.dialling_s < DIAL_TIMEOUT_S  # a silent name server is not waited for
        gone = not self._broker.connected and not dials
        return idle or gone or self._now_s() >= self._close_by_s

    def _step(self) -> None:
        self._backlog.expire(self._now_s())
        for text in self._disk.news():
            _LOG.error("%s", text)
            self._last_error = text
            self._troubles.happened(Trouble.OUTBOX, text)
        with contextlib.suppress(Empty):
            self._move(*self._redirects.get_nowait())
        for item in self._link.poll(_POLL_S):
            self._take(item)
        if self._link.dialling_s > SLOW_DIAL_S:
            self._tell_slow_dial()
        if self._broker.connected and not self._invited:
            self._invite()
        while self._link.room and not self._suspects.alone:
            parcel = self._held or self._backlog.take(self._topics, self._now_s())
            self._held = parcel if parcel is not None and self._must_wait(parcel) else None
            if parcel is None or self._held is not None:
                break
            self._send(parcel)

    def _must_wait(self, parcel: Parcel) -> bool:
        """Whether it has to be the only one under way, and is not."""
        return bool(self._under_way) and self._suspects.has(_key(parcel))

    def _send(self, parcel: Parcel) -> None:
        sent = _sent(parcel)
        if reason := self._suspects.refused(sent):
            self._backlog.drop(parcel, reason, self._now_s())
            error = events.kept_back(parcel.path, sent.size_bytes, too_large=reason == "too_large")
            self._trouble(Trouble.BROKE, error, f"{reason} {parcel.path}")
            return
        correlation = parcel.reply_to.correlation if parcel.reply_to is not None else None
        told = PublishProperties(correlation, parcel.user)
        topic, suspect = parcel.topic, self._suspects.has(sent.key)
        qos = max(topic.qos, 1) if suspect else topic.qos  # the broker has to say that it has a suspect
        try:
            token = self._link.publish(parcel.path, parcel.payload, qos, retain=topic.retain, told=told)
        except PublishError:
            self._settle(parcel, events.PACKET_TOO_LARGE)
        else:
            self._under_way[token] = parcel
            self._suspects.sent(sent)
            self._unanswered.update([token] if qos == 0 or not self._link.acknowledges else [])
            if parcel.sent is not None:
                self._post(parcel.sent)

    def _acked(self, token: int, code: int) -> None:
        parcel = self._under_way.pop(token, None)
        if parcel is None:
            return
        if token in self._unanswered:
            self._unanswered.discard(token)
            self._suspects.written(_sent(parcel))
        else:
            self._suspects.acked(_sent(parcel))
        self._settle(parcel, code)

    def _settle(self, parcel: Parcel, code: int) -> None:
        self._backlog.settle(parcel, code, self._now_s())
        self._disk.wake()
        if code >= events.FAILURE and not parcel.is_gap:
            error = events.not_sent(code, parcel.path, len(parcel.payload))
            self._trouble(Trouble.REFUSED, error, f"{code} {parcel.path}")

    def _move(self, mqtt: MqttSettings, topics: Topics) -> None:
        before = events.address(self._mqtt), self._topics.path(self._topics.status)
        if self._link.room and before != (events.address(mqtt), topics.path(topics.status)):
            farewell = encode(ServiceStatus(self._topics.device, "stopped", "the device moved to another broker"))
            self._link.publish(before[1], farewell, 0, retain=True)
        if before[0] != events.address(mqtt):
            self._suspects, self._invitation = Suspects(self._now_s), Invitation(self._now_s)
            self._troubles = Troubles(self._now_s)
        self._mqtt, self._topics = mqtt, topics
        self._link.redirect(self._endpoint())
        self._backlog.resize(_bounds(mqtt, topics, self._folder), self._now_s())
        self._lose(None)

    def _take(self, item: Happening) -> None:
        match item:
            case Acked(token, code):
                self._acked(token, code)
            case Up():
                self._greet(item)
            case Down(error, _, cause):
                self._lose(error, cause)
            case Received():
                self._hear(item)
            case Subscribed(granted):
                self._unheard = 0
                if granted:
                    self._troubles.over(Trouble.SUBSCRIPTION)
                else:
                    self._trouble(Trouble.SUBSCRIPTION, events.not_granted(self._mqtt), for_s=float("inf"))
            case _:
                assert_never(item)

    def _greet(self, up: Up) -> None:
        self._backlog.connected()
        self._noted.clear()
        self._connections += 1
        host, port = events.address(self._mqtt)
        _LOG.info("connected to MQTT broker %s:%d, protocol %s", host, port, up.protocol)
        self._tell(BrokerChanged(connected=True, protocol=up.protocol))

    def _invite(self) -> None:
        """Ask for requests and Home Assistant's birth message, unless somebody abused that."""
        if (paths := self._heard_paths()) and self._invitation.stands:
            self._invited, self._flood = True, Bucket(FLOOD, self._now_s())
            self._unheard += 1
            self._link.subscribe(paths, retained=False)

    def _heard_paths(self) -> list[str]:
        there = self._mqtt.home_assistant != "off"  # who else may ask with one word that says not even when?
        verbs = [verb for verb in VERBS if there or verb != INSTALL] if self._mqtt.commands else []
        requests = [self._topics.path(self._topics.request(verb)) for verb in verbs]
        return [*requests, *([self._birth_path] if there else [])]

    @property
    def _birth_path(self) -> str:
        return f"{self._mqtt.discovery_prefix}/status"

    def _lose(self, error: PublishError | None, cause: LossCause = LossCause.OTHER) -> None:
        parcels = [*self._under_way.values(), *((self._held,) if self._held else ())]
        if guilty := self._suspects.broken(cause, [_sent(parcel) for parcel in self._under_way.values()]):
            error = self._convicted(guilty, cause)
            parcels = [parcel for parcel in parcels if _key(parcel) != guilty.key]
        elif error is not None and cause is LossCause.MONSTER:
            error = self._abused(error)
        elif cause is LossCause.HUNG_UP and self._invited and self._unheard > 1:
            error = self._abused(events.not_heard(self._mqtt))
            self._link.mended()
        elif error is not None and cause in (LossCause.RIVAL, LossCause.HUNG_UP):
            # many brokers let the newer of two clients in without a word to the older one
            self._troubles.happened(Trouble.RIVAL, str(error), least=1 if cause is LossCause.RIVAL else SURELY_RIVAL)
        self._backlog.disconnected(parcels)
        self._under_way.clear()
        self._unanswered.clear()
        self._held, self._invited = None, False
        if error is not None:
            self._note(error)
        self._tell(BrokerChanged(connected=False, reason=str(error or "")))

    def _convicted(self, guilty: Sent, cause: LossCause) -> PublishError:
        """Drop the message that the connection breaks over, and come back soon: nothing else is wrong."""
        path, size_bytes = guilty.key.path, guilty.size_bytes
        too_large = cause is LossCause.TOO_LARGE or self._suspects.exceeds(size_bytes)
        for parcel in self._under_way.values():
            if _key(parcel) == guilty.key:
                self._backlog.drop(parcel, "too_large" if too_large else "refused", self._now_s())
        self._link.mended()
        self._troubles.over(Trouble.RIVAL)
        error = events.broke(path, size_bytes, too_large=too_large)
        self._troubles.happened(Trouble.BROKE, str(error))
        return error

    def _abused(self, error: PublishError) -> PublishError:
        """Come back without asking for requests, for a while: it cost the connection."""
        self._unheard = 0
        off_s = self._invitation.abused()
        error = PublishError(f"{error.message}; no requests are taken for {off_s:.0f} s", remedy=error.remedy)
        self._troubles.over(Trouble.REQUESTS)
        self._troubles.happened(Trouble.UNINVITED, str(error), for_s=off_s)
        return error

    def _tell_slow_dial(self) -> None:
        error = events.slow(self._mqtt)
        self._note(error)
        self._tell(BrokerChanged(connected=False, reason=str(error)))

    def _tell(self, broker: BrokerChanged) -> None:
        if broker != self._broker:
            self._broker = broker
            self._post(broker)

    def _trouble(self, trouble: Trouble, error: PublishError, kind: str = "", for_s: float = SAID_FOR_S) -> None:
        self._troubles.happened(trouble, str(error), for_s)
        self._note(error, kind)

    def _note(self, error: PublishError, kind: str = "") -> None:
        """Log each kind of trouble once, until a connection came up again; each text is a kind unless one is named."""
        self._last_error = text = str(error)
        kind = kind or text
        if kind not in self._noted:
            _LOG.warning("%s", text)
            self._noted = {*self._noted, kind} if len(self._noted) < _MAX_NOTED else {kind}

    def _hear(self, received: Received) -> None:
        if received.path == self._birth_path:
            self._hear_birth(received)
            return
        verb = verb_of(received, self._topics)
        if verb is None:
            return
        reply = reply_to(received, verb, self._topics)
        verdict = self._admission.ask(reply.path, verb)
        if verdict is not Verdict.TAKEN and self._invitation.stands:
            self._troubles.happened(Trouble.REQUESTS, _FLOOD, for_s=60.0)
        if verdict is Verdict.SILENT:
            self._endure()
            return
        try:
            request = parse(received, verb, self._topics)
        except PublishError as error:
            self._note(error, f"request {verb}")
            if verdict is Verdict.TAKEN:
                self._admission.done(verb)
            transaction = error.values.get("transaction")
            told = transaction if isinstance(transaction, str) else None
            self._answer(verb, told, reply, Answer("error", error=str(error)))
            return
        if verdict is Verdict.BUSY:
            self._answer(verb, request.transaction, reply, Answer("error", error=_BUSY))
        else:
            self._post(request)

    def _hear_birth(self, received: Received) -> None:
        """Home Assistant started: it asks to be told anew what a broker without a memory has lost."""
        started = received.payload == _BORN and not received.retained  # a retained one came with the connection
        if started and self._births.take(self._now_s()):
            self._backlog.resend_states()

    def _endure(self) -> None:
        """One more that is only counted; beyond all measure, or where frames wait for it, none is asked for."""
        behind = self._link.waits_s > BEHIND_S
        if not self._invited or (not behind and self._flood.take(self._now_s())):
            return
        self._invited = False
        error = self._abused(PublishError("requests over MQTT come in a flood", remedy="find who sends them"))
        if behind:  # a new connection is rid of what the broker has in store for this one
            self._link.abort()
            self._link.mended()
            self._lose(error)
        else:
            self._link.unsubscribe(self._heard_paths())
            self._note(error)

    def _answer(self, verb: str, transaction: str | None, reply: ReplyTo, answer: Answer) -> None:
        response = Response(self._topics.device, verb, transaction, answer.status, answer.error, answer.content)
        self._backlog.answer(reply, encode(response))
        self._link.wake()


def _bounds(mqtt: MqttSettings, topics: Topics, folder: Path | None) -> OutboxBounds:
    kept = KeptIn.LIVE if topics.delivery == "live" else KeptIn(mqtt.outbox)
    if kept is KeptIn.DISK and folder is None:
        kept = KeptIn.MEMORY
    room_bytes = DISK_BYTES if kept is KeptIn.DISK else MEMORY_BYTES
    return OutboxBounds(kept, mqtt.outbox_bytes or room_bytes, mqtt.outbox_age_s)


def _key(parcel: Parcel) -> Key:
    return Key(parcel.path, parcel.number)


def _sent(parcel: Parcel) -> Sent:
    return Sent(_key(parcel), len(parcel.payload))
