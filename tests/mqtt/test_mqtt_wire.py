"""The Publisher on answers that real brokers give too rarely, or should never give."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt import backlog, client
from vajra_edge.mqtt.topics import Topics

TOPICS = Topics("vajra", "dev")
ACCEPT_5 = b"\x20\x03\x00\x00\x00"


def at(port: int, **more: Any) -> MqttSettings:
    """Also with a keep alive of one second, which the settings do not allow: tests would take five times as long."""
    return MqttSettings(host="127.0.0.1", port=port).model_copy(update={"keepalive_s": 1, **more})


class ScriptedBroker:
    """Speaks just enough MQTT to give one wrong answer on purpose.

    ``connack`` is the whole CONNACK packet; ``on_publish`` answers each QoS 1 PUBLISH (given its packet id and how many
    were not answered before it) with bytes, and may raise ``ConnectionError`` to kick.
    """

    def __init__(self, connack: bytes | None, on_publish: Callable[[int, int], bytes] | None = None) -> None:
        self.connack = connack
        self.on_publish = on_publish or (lambda mid, _pending: struct.pack("!BBH", 0x40, 2, mid))
        self.connects: list[bytes] = []
        self.published: list[bytes] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.open_sockets: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            self.open_sockets.append(sock)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        pending = 0
        with sock:
            try:
                while True:
                    kind, body = read_packet(sock)
                    if kind >> 4 == 1:
                        self.connects.append(body)
                        if self.connack is None:
                            continue
                        sock.sendall(self.connack)
                    elif kind >> 4 == 3:
                        self.published.append(body)
                        pending += 1
                        (length,) = struct.unpack("!H", body[:2])
                        if kind & 0x06:
                            (mid,) = struct.unpack("!H", body[2 + length : 4 + length])
                            answer = self.on_publish(mid, pending)
                            pending -= answer.count(b"\x40")
                            sock.sendall(answer)
                    elif kind >> 4 == 12:
                        sock.sendall(b"\xd0\x00")
            except OSError:
                return

    def close(self) -> None:
        self.server.close()
        for sock in self.open_sockets:
            sock.close()


def read_packet(sock: socket.socket) -> tuple[int, bytes]:
    kind = read_exactly(sock, 1)[0]
    length = shift = 0
    while True:
        byte = read_exactly(sock, 1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return kind, read_exactly(sock, length)


def read_exactly(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = sock.recv(count - len(got))
        if not part:
            raise ConnectionError
        got += part
    return got


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedBroker]]:
    made: list[ScriptedBroker] = []

    def make(connack: bytes | None, on_publish: Callable[[int, int], bytes] | None = None) -> ScriptedBroker:
        made.append(ScriptedBroker(connack, on_publish))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_receive_maximum_is_kept_to_the_letter(scripted: Any, daemon: Any) -> None:
    """Receive Maximum 4; acknowledgements come only when four messages wait, and a fifth is a kick."""
    waiting: list[int] = []

    def strict(mid: int, _pending: int) -> bytes:
        waiting.append(mid)
        if len(waiting) > 4:
            raise ConnectionError
        if len(waiting) < 4:
            return b""
        answer = b"".join(struct.pack("!BBH", 0x40, 2, each) for each in waiting)
        waiting.clear()
        return answer

    broker = scripted(b"\x20\x06\x00\x00\x03\x21\x00\x04", strict)
    device = daemon(at(broker.port, max_inflight=100))
    device.send(200)
    device.publisher.start()
    device.until_acked(200)
    assert len(broker.connects) == 1


@pytest.mark.parametrize(
    ("code", "tries", "acked", "dropped"),
    [(0x87, 1, 0, {"refused": 1}), (0x99, 1, 0, {"refused": 1}), (0x97, 2, 1, {})],
    ids=["not authorised", "payload invalid", "quota, once"],
)
def test_a_refused_message_is_tried_again_only_where_that_can_help(
    scripted: Any, daemon: Any, until: Any, code: int, tries: int, acked: int, dropped: dict[str, int]
) -> None:
    answers = [code, 0]

    def refuse(mid: int, _pending: int) -> bytes:
        return struct.pack("!BBHBB", 0x40, 4, mid, answers.pop(0) if answers else 0, 0)

    broker = scripted(ACCEPT_5, refuse)
    device = daemon(at(broker.port))
    device.publisher.start()
    device.until_connected()
    device.send(1)
    until(lambda: len(device.publisher._backlog._outbox) == 0)
    gap_records = len(dropped)
    assert (len(broker.published), device.counts.outbox.acked) == (tries + gap_records, acked)
    assert device.counts.outbox.dropped == dropped
    assert f"0x{code:02X}" in device.counts.last_error


def test_a_quota_that_is_used_up_for_a_while_costs_no_message_and_no_order(
    scripted: Any, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "HOLD_S", 0.05)
    count, tries = 30, 10
    refused: list[int] = []

    def refuse(mid: int, _pending: int) -> bytes:
        if len(refused) < count + tries:
            refused.append(mid)
            return struct.pack("!BBHBB", 0x40, 4, mid, 0x97, 0)
        return struct.pack("!BBH", 0x40, 2, mid)

    broker = scripted(ACCEPT_5, refuse)
    device = daemon(at(broker.port))
    device.publisher.start()
    device.until_connected()
    device.send(count)
    device.until_acked(count)
    assert device.counts.outbox.dropped == {}
    seqs = [int(re.findall(rb'"seq":(\d+)', body)[0]) for body in broker.published]
    assert seqs[-count:] == list(range(count))
    assert any("quota exceeded" in trouble for trouble in device.counts.troubles)


def test_a_broker_that_forgets_acknowledgements_is_left_and_asked_again(scripted: Any, daemon: Any) -> None:
    forgotten: list[int] = []

    def forget(mid: int, _pending: int) -> bytes:
        if len(forgotten) < 2:
            forgotten.append(mid)
            return b""
        return struct.pack("!BBH", 0x40, 2, mid)

    broker = scripted(ACCEPT_5, forget)
    device = daemon(at(broker.port))
    device.publisher.start()
    device.until_connected()
    device.send(5)
    device.until_acked(5)
    assert len(broker.connects) == 2
    assert "no acknowledgement" in device.counts.last_error


def test_a_broker_that_never_answers_5_is_asked_in_3(scripted: Any, daemon: Any, until: Any) -> None:
    broker = scripted(None)
    device = daemon(at(broker.port))
    device.publisher.start()
    until(lambda: len(broker.connects) == 2)
    assert [connect[6] for connect in broker.connects] == [5, 4]
    assert device.events == []


def test_a_broker_that_says_it_does_not_know_5_is_asked_in_3_at_once(
    scripted: Any, daemon: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PROBE_TIMEOUT_S", 600.0)
    broker = scripted(b"\x20\x02\x00\x01")
    device = daemon(at(broker.port))
    device.publisher.start()
    until(lambda: len(broker.connects) == 2)
    assert [connect[6] for connect in broker.connects] == [5, 4]


@pytest.mark.parametrize("noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x03\x00\xff\x00", b"\x00" * 50])
def test_what_is_no_broker_is_said_to_be_none(scripted: Any, daemon: Any, until: Any, noise: bytes) -> None:
    broker = scripted(noise)
    device = daemon(at(broker.port, protocol="5"))
    device.publisher.start()
    until(lambda: device.events)
    assert "name an MQTT broker" in device.events[0].reason
    device.send(1)
    until(lambda: len(broker.connects) >= 2)


def test_a_broker_that_names_the_double_is_quoted(scripted: Any, daemon: Any, until: Any) -> None:
    """mosquitto 2.0 closes without a word, others send DISCONNECT with reason 0x8E."""
    broker = scripted(ACCEPT_5 + b"\xe0\x06\x8e\x04\x1f\x00\x01!")
    device = daemon(at(broker.port))
    device.publisher.start()
    until(lambda: "another client has the same id" in device.counts.last_error)
