"""Client: one connection over paho-mqtt, from CONNECT to its end.

paho 2.2 is used for its wire format only, because of what it does beyond that: a reconnect sends its whole backlog at
once and so livelocks with a broker that enforces Receive Maximum, an exception in a callback kills its thread unseen,
and its queue is capped at 65,535 messages. So there is a new client for each connection, no paho thread, no more
messages in it than the window, and callbacks that only append to a deque.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError
from vajra_edge.mqtt import events, identity
from vajra_edge.mqtt.connection import Dial, Doubt
from vajra_edge.mqtt.events import Acked, Down, Happening, LossCause, Received, Subscribed, Up
from vajra_edge.wording import Setting, say

DIAL_TIMEOUT_S = 5.0
"""A broker in the same site answers in milliseconds; over a mobile network TCP may repeat its first packet twice."""

ANSWER_TIMEOUT_S = 10.0
"""A loaded broker may take seconds to look up a user; systems time out at 10 s or more by habit."""

UNACKED_KEEPALIVES = 2.0
"""A broker that acknowledges nothing for this many keep-alive times is gone, whatever its socket says."""

MOST_PACKET_BYTES = 1 << 28
"""The protocol's own limit, where the broker names none."""

EXACTLY_ONCE = 2
"""The highest quality of service, where the broker names no lower one."""

MOST_IN_FLIGHT = 100
"""What a kill of the process may make arrive twice, and what paho's set of them takes no time for."""

PACKETS_A_TURN = 100
"""Read before anything is sent: some milliseconds."""

PROBE_TIMEOUT_S = 3.0
"""Wait for the answer to an MQTT 5 CONNECT where 3.1.1 may be tried next: amqtt, for one, never gives one."""
_OVERHEAD_BYTES = 64
"""Header, properties and lengths of a packet, at the most."""

_MALFORMED = (MQTTException, ValueError, KeyError, IndexError, struct.error, OSError)
_DO_NOT_SEND_RETAINED = 2


@dataclass(frozen=True)
class PublishProperties:
    """What MQTT 5 sends beside a payload; MQTT 3.1.1 has no such thing.

    Attributes:
        correlation: of a response, given back as it came.
        user: names and values.
    """

    correlation: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return self.correlation is not None or bool(self.user)

    @property
    def size_bytes(self) -> int:
        """In a packet: the identifier of each, and the length of each of its parts."""
        user = sum(5 + len(name.encode()) + len(value.encode()) for name, value in self.user)
        return user + (3 + len(self.correlation) if self.correlation is not None else 0)


NO_PROPERTIES = PublishProperties()


@dataclass(frozen=True)
class BrokerEndpoint:
    """Whom to connect to, and as whom.

    Attributes:
        mqtt: the settings.
        client_id: a second connection under the same id ends the first.
        will: path and payload, retained, that the broker publishes when the connection breaks; None: no will.
        inbound_bytes: a larger packet is not accepted; MQTT 5 tells the broker so.
    """

    mqtt: MqttSettings
    client_id: str
    will: tuple[str, bytes] | None = None
    inbound_bytes: int | None = None


class Session:
    """One connection. Made and dialled in one thread, then used by one other.

    Args:
        endpoint: whom to connect to.
        dial: the protocol, ``5`` or ``3.1.1``, and the quality of service of the will.
        clock: monotonic seconds.
    """

    def __init__(self, endpoint: BrokerEndpoint, dial: Dial, clock: Callable[[], float]) -> None:
        self._endpoint, self._mqtt = endpoint, endpoint.mqtt
        self._protocol, self._clock = dial.protocol, clock
        self._happened: deque[Happening] = deque()
        self._unacked: dict[int, float] = {}
        self._up = self._over = False
        self._window = min(self._mqtt.max_inflight, MOST_IN_FLIGHT)
        self._max_qos, self._packet_bytes = EXACTLY_ONCE, MOST_PACKET_BYTES
        self._asked_s = clock()
        self._client = self._make_client(dial.will_qos)

    def dial(self) -> None:
        """Connect and send CONNECT; blocks for some seconds at most, or as long as the system's resolver does.

        Raises:
            PublishError: the broker cannot be reached, or a file that the settings name cannot be read.
        """
        host, port = events.address(self._mqtt)
        try:
            own = identity.read(self._mqtt)
            if self._mqtt.username is not None:
                self._client.username_pw_set(self._mqtt.username, own.password)
            if own.tls is not None:
                self._client.tls_set_context(own.tls)
            self._client.connect(host, port, self._mqtt.keepalive_s, properties=self._connect_properties())
        except (OSError, ValueError, PublishError) as error:
            self.close()
            raise events.unreachable(self._mqtt, error) from error
        self._asked_s = self._clock()

    @property
    def acknowledges(self) -> bool:
        """Whether the broker says of messages that it has them."""
        return self._max_qos > 0

    @property
    def room(self) -> int:
        """How many messages may be sent now: none before the broker accepted, and none once it is gone."""
        if not self._up or self._over or self._client.socket() is None:
            return 0
        return max(0, self._window - len(self._unacked))

    @property
    def waits_s(self) -> float:
        """For how long the oldest message waits for its acknowledgement; 0 where none does."""
        return self._clock() - next(iter(self._unacked.values()), self._clock())

    def publish(
        self, path: str, payload: bytes, qos: int, *, retain: bool, told: PublishProperties = NO_PROPERTIES
    ) -> int:
        """Send a message; ``Acked`` with the returned token follows, or ``Down``.

        Raises:
            PublishError: the broker does not take so large a packet, or nobody takes such a topic.
        """
        if len(payload) + len(path) + told.size_bytes + _OVERHEAD_BYTES > self._packet_bytes:
            raise events.not_sent(events.PACKET_TOO_LARGE, path, len(payload))
        properties = _properties(told) if told and self._protocol == "5" else None
        try:
            info = self._client.publish(path, payload, min(qos, self._max_qos), retain, properties)
        except ValueError as error:
            raise PublishError(
                f"cannot publish on {path!r}: {error}", remedy=say("check ", Setting.MQTT_ROOT)
            ) from error
        self._unacked[info.mid] = self._clock()
        return info.mid

    def subscribe(self, paths: Sequence[str], *, retained: bool) -> None:
        """Ask for messages; ``Subscribed`` follows. Without ``retained`` the broker is told to keep stored ones."""
        if self._protocol == "5":
            handling = 0 if retained else _DO_NOT_SEND_RETAINED
            self._client.subscribe([(path, SubscribeOptions(qos=1, retainHandling=handling)) for path in paths])
        else:
            self._client.subscribe([(path, 1) for path in paths])

    def unsubscribe(self, paths: Sequence[str]) -> None:
        """Ask for these messages no more."""
        self._client.unsubscribe(list(paths))

    def pump(self, wake: socket.socket, timeout_s: float) -> list[Happening]:
        """Wait for the network or for ``wake``, move bytes, and tell what happened since the last call."""
        try:
            self._move_bytes(wake, timeout_s)
        except _Monster as error:
            self._end(events.monster(error.size_bytes, self._endpoint.inbound_bytes or 0), cause=LossCause.MONSTER)
        except _MALFORMED as error:
            self._end(events.silent(self._mqtt, f"sent what is not MQTT: {error}"), Doubt.SILENT)
        self._check_deadlines()
        happened = list(self._happened)
        self._happened.clear()
        for item in happened:
            if isinstance(item, Acked):
                self._unacked.pop(item.token, None)
        return happened

    def close(self) -> None:
        """Say goodbye, so that the broker withholds the will, and close; may be called again."""
        self._over = True
        sock = self._client.socket()
        if sock is None:
            return
        with contextlib.suppress(*_MALFORMED):
            self._client.disconnect()
        self._drop(sock)

    def _drop(self, sock: Any) -> None:
        with contextlib.suppress(OSError):
            sock.close()

    def _move_bytes(self, wake: socket.socket, timeout_s: float) -> None:
        sock: Any = self._client.socket()
        if sock is None:
            return
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        number = sock.fileno()
        ready = dict(poll.poll(max(0.0, timeout_s) * 1000.0)).get(number, 0)
        if ready & ~select.POLLOUT:
            self._read(sock)
        if ready & select.POLLOUT:
            self._client.loop_write()
        self._client.loop_misc()

    def _read(self, sock: Any) -> None:
        """Some packets at once: acknowledgements must not wait behind a flood for as many turns of the loop."""
        more = select.poll()
        more.register(sock, select.POLLIN)
        for _ in range(PACKETS_A_TURN):
            self._client.loop_read()
            if self._over or self._client.socket() is None:
                return
            # what OpenSSL has decrypted already makes no socket readable
            if not (isinstance(sock, ssl.SSLSocket) and sock.pending()) and not more.poll(0):
                return

    def _check_deadlines(self) -> None:
        now_s = self._clock()
        limit_s = PROBE_TIMEOUT_S if self._protocol == "5" and self._mqtt.protocol == "auto" else ANSWER_TIMEOUT_S
        oldest_s = next(iter(self._unacked.values()), now_s)
        if not self._up and now_s - self._asked_s > limit_s:
            self._end(events.silent(self._mqtt, f"did not answer within {limit_s:g} s"), Doubt.SILENT)
        elif self._up and now_s - oldest_s > UNACKED_KEEPALIVES * self._mqtt.keepalive_s:
            self._end(events.lost(self._mqtt, f"no acknowledgement for {now_s - oldest_s:.0f} s"))
        elif self._client.socket() is None:
            self._end(
                events.lost(self._mqtt, "connection closed"), cause=LossCause.HUNG_UP if self._up else LossCause.OTHER
            )

    def _end(self, error: PublishError, doubt: Doubt = Doubt.NONE, cause: LossCause = LossCause.OTHER) -> None:
        """The first reason counts: paho reports some ends twice. The will stays in force."""
        if self._over:
            return
        self._over = True
        self._happened.append(Down(error, doubt, cause))
        sock = self._client.socket()
        if sock is not None:
            self._drop(sock)

    def _make_client(self, will_qos: int) -> _Client:
        version = MQTTProtocolVersion.MQTTv5 if self._protocol == "5" else MQTTProtocolVersion.MQTTv311
        client = _Client(self._endpoint.client_id, version, self._endpoint.inbound_bytes)
        client.suppress_exceptions = True
        client.max_inflight_messages = 0  # the window is ours
        client.connect_timeout = DIAL_TIMEOUT_S
        client.on_socket_open = _send_at_once
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        if self._endpoint.will is not None:
            path, payload = self._endpoint.will
            client.will_set(path, payload, will_qos, retain=True)
        return client

    def _connect_properties(self) -> Properties | None:
        if self._protocol != "5" or self._endpoint.inbound_bytes is None:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
        properties.MaximumPacketSize = self._endpoint.inbound_bytes
        return properties

    def _on_connect(self, _client: Any, _user: Any, _flags: Any, code: Any, properties: Any) -> None:
        if code.is_failure:
            self._end(events.refused(self._mqtt, code.value, code.getName()), events.doubt_of(code.value))
            return
        self._window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        self._max_qos = getattr(properties, "MaximumQoS", self._max_qos)
        self._packet_bytes = getattr(properties, "MaximumPacketSize", self._packet_bytes)
        self._up = True
        self._happened.append(Up(self._protocol))

    def _on_disconnect(self, _client: Any, _user: Any, flags: Any, code: Any, _properties: Any) -> None:
        alert = self._client.alert
        if flags.is_disconnect_packet_from_server:
            self._end(events.kicked(self._mqtt, code.value, code.getName()), cause=events.cause_of(code.value))
        elif self._up:
            name = code.getName().lower()
            how = "connection broken" if code.value == events.FAILURE else name
            self._end(events.lost(self._mqtt, how), cause=LossCause.HUNG_UP)
        elif alert is not None:
            self._end(events.alerted(self._mqtt, alert))
        else:
            self._end(events.silent(self._mqtt, "closed the connection without an answer"), Doubt.SILENT)

    def _on_publish(self, _client: Any, _user: Any, token: int, code: Any, _properties: Any) -> None:
        self._happened.append(Acked(token, code.value))

    def _on_subscribe(self, _client: Any, _user: Any, _token: int, codes: Any, _properties: Any) -> None:
        self._happened.append(Subscribed(not any(code.is_failure for code in codes)))

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        properties = message.properties
        with contextlib.suppress(UnicodeDecodeError):  # a topic that is not UTF-8 is none of ours
            self._happened.append(
                Received(
                    message.topic,
                    bytes(message.payload),
                    bool(message.retain),
                    getattr(properties, "ResponseTopic", None),
                    getattr(properties, "CorrelationData", None),
                )
            )


def _properties(told: PublishProperties) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own
    if told.correlation is not None:
        properties.CorrelationData = told.correlation
    if told.user:
        properties.UserProperty = list(told.user)
    return properties


def _send_at_once(_client: Any, _user: Any, sock: Any) -> None:
    """Nagle's algorithm would hold small messages back for a round trip."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Monster(Exception):
    """The broker announced a packet that is too large; ``size_bytes`` is what its header said."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


class _Client(paho.Client):
    """paho's, which takes no packet beyond a limit and remembers the last word of a TLS broker.

    paho 2 has no limit for packets that come and no hook at their header: it reads what was announced, up to 256 MB,
    into memory. What it calls for all that it reads is ``_sock_recv``, with the number of bytes that the packet still
    lacks; that is not public, so a test sends a monster to see that it still holds with the installed release.
    """

    def __init__(self, client_id: str, version: MQTTProtocolVersion, most_bytes: int | None) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False)
        self._most_bytes = most_bytes
        self.alert: ssl.SSLError | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._most_bytes is not None and bufsize > self._most_bytes:
            raise _Monster(bufsize)
        try:
            return super()._sock_recv(bufsize)
        except ssl.SSLError as error:
            self.alert = error
            raise
