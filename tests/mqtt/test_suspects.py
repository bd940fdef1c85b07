"""Messages that a broker breaks the connection over: found, dropped, named; the queue behind them goes on."""

from __future__ import annotations

import secrets
from typing import Any

import orjson
import pytest

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.events import LossCause
from vajra_edge.mqtt.messages import EngineTag, ServiceStatus, encode
from vajra_edge.mqtt.suspects import JUST_S, LONELY_BREAKS, SIZE_HOLDS_S, TOPIC_HOLDS_S, Key, Sent, Suspects
from vajra_edge.mqtt.topics import Topics

TOPICS = Topics("vajra", "dev")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def message(number: int | None, size_bytes: int = 500, path: str = "detections") -> Sent:
    return Sent(Key(path, number), size_bytes)


class Wire:
    """A connection to a broker that hangs up over some messages; what waits is sent again, in order."""

    def __init__(self, hangs_up: Any, clock: Clock | None = None, window: int = 20) -> None:
        self.clock, self.hangs_up, self.window = clock or Clock(), hangs_up, window
        self.suspects = Suspects(self.clock)
        self.arrived: list[Sent] = []
        self.guilty: list[Sent] = []
        self.kept_back: list[Sent] = []
        self.connections = 0

    def send(self, queue: list[Sent], states: tuple[Sent, ...] = (message(None, 200, "status"),)) -> None:
        """Until all are gone."""
        while queue:
            self.connections += 1
            assert self.connections < 100, "it never ends"
            self.clock.now_s += 1.0
            queue = self._connect(list(queue), list(states))

    def _connect(self, queue: list[Sent], states: list[Sent]) -> list[Sent]:
        todo, under_way = [*states, *queue], []
        while todo or under_way:
            while todo and len(under_way) < self.window and not self.suspects.alone:
                if under_way and self.suspects.has(todo[0].key):
                    break
                one = todo.pop(0)
                if self.suspects.refused(one):
                    self.kept_back.append(one)
                    continue
                self.suspects.sent(one)
                under_way.append(one)
            if under_way and self.hangs_up(under_way[0]):
                guilty = self.suspects.broken(LossCause.HUNG_UP, under_way)
                self.guilty += [guilty] if guilty else []
                return [one for one in [*under_way, *todo] if one not in states and one != guilty]
            if under_way:
                self.arrived.append(under_way[0])
                self.suspects.acked(under_way.pop(0))
        return []


def test_the_one_message_is_found_among_those_under_way_and_everything_else_arrives_in_order() -> None:
    wire = Wire(lambda one: one.key.number == 7)
    wire.send([message(number) for number in range(40)])
    assert [one.key.number for one in wire.guilty] == [7]
    assert [one.key.number for one in wire.arrived if one.key.path == "detections"] == [*range(7), *range(8, 40)]
    assert wire.connections == 4


def test_after_two_that_are_larger_than_all_that_arrived_larger_ones_are_not_sent_for_an_hour() -> None:
    wire = Wire(lambda one: one.size_bytes > 2000)
    sizes = [4000 - 10 * number if number % 10 == 3 else 900 for number in range(100)]
    wire.send([message(number, size) for number, size in enumerate(sizes)])
    assert len(wire.arrived) >= 90
    assert {one.size_bytes for one in wire.arrived} == {900, 200}
    assert len(wire.guilty) + len(wire.kept_back) == 10
    larger = message(1000, 5000)
    assert wire.suspects.refused(larger) == "too_large"
    assert wire.suspects.refused(message(1001, 900)) == ""
    wire.clock.now_s += SIZE_HOLDS_S + 1.0
    assert wire.suspects.refused(larger) == ""


def test_a_topic_that_costs_the_connection_is_left_alone_for_a_while() -> None:
    wire = Wire(lambda one: one.key.path == "forbidden")
    queue = [message(number, 900) for number in range(30)]
    queue[5::10] = [message(number, 100, "forbidden") for number in (5, 15, 25)]
    wire.send(queue)
    assert [one.key.number for one in wire.guilty] == [5, 15]
    assert [one.key.number for one in wire.kept_back] == [25]
    assert wire.suspects.refused(message(99, 100, "forbidden")) == "refused"
    wire.clock.now_s += TOPIC_HOLDS_S + 1.0
    assert wire.suspects.refused(message(99, 100, "forbidden")) == ""


def test_a_state_that_is_sent_first_of_all_is_found_too() -> None:
    bad = message(None, 9000, "engine")
    wire = Wire(lambda one: one == bad)
    wire.send([message(number) for number in range(5)], (bad, message(None, 200, "status")))
    assert set(wire.guilty) == {bad}
    assert wire.connections == 2 * (2 + LONELY_BREAKS) + 1
    assert [one.key.number for one in wire.arrived if one.key.path == "detections"] == [*range(5)]


@pytest.mark.parametrize("cause", [LossCause.OTHER, LossCause.RIVAL, LossCause.MONSTER])
def test_an_end_that_says_nothing_about_messages_makes_no_suspects(cause: LossCause) -> None:
    suspects = Suspects(Clock())
    for _ in range(20):
        suspects.sent(message(1))
        assert suspects.broken(cause, [message(1)]) is None
    assert not suspects.has(message(1).key)


def test_a_network_that_breaks_now_and_then_costs_nothing() -> None:
    clock, suspects = Clock(), None
    suspects = Suspects(clock)
    for number in range(50):  # each message got through at its second try
        suspects.sent(message(number))
        assert suspects.broken(LossCause.HUNG_UP, [message(number)]) is None
        suspects.sent(message(number))
        suspects.acked(message(number))
        clock.now_s += 5.0


def test_the_brokers_word_that_one_is_too_large_is_enough() -> None:
    suspects = Suspects(Clock())
    under_way = [message(number, 1000 + 100 * (number == 3)) for number in range(5)]
    for one in under_way:
        suspects.sent(one)
    assert suspects.broken(LossCause.TOO_LARGE, under_way) == under_way[3]
    assert suspects.refused(message(9, 1100)) == "too_large"
    assert suspects.refused(message(9, 1099)) == ""


def test_what_needs_no_acknowledgement_is_suspect_while_it_is_fresh_and_is_cleared_by_time() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    picture = message(None, 90_000, "snapshot")
    for _ in range(2):
        suspects.sent(picture)
        assert suspects.broken(LossCause.HUNG_UP, []) is None
    assert suspects.has(picture.key)
    suspects.sent(picture)
    suspects.written(picture)
    assert suspects.alone
    clock.now_s += JUST_S + 0.1
    assert not suspects.alone
    assert not suspects.has(picture.key)
    for _ in range(2):
        suspects.sent(picture)
        clock.now_s += JUST_S + 0.1
        assert suspects.broken(LossCause.HUNG_UP, []) is None
    assert not suspects.has(picture.key)


def at(port: int, protocol: str) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=port, protocol=protocol, keepalive_s=60)


SMALL = EngineTag("ab" * 32, "fp32", "cpu", ("person", "shop"))
LARGE = EngineTag("ab" * 32, "fp32", "cpu", ("person" * 500, "shop" * 800))
"""With this the message of a frame has several thousand bytes."""


@pytest.mark.parametrize(
    ("limit", "protocol"), [("max_packet_size 2000", "3.1.1"), ("message_size_limit 2000", "5"), ("", "3.1.1")]
)
def test_detections_over_a_brokers_limit_are_dropped_and_named_and_the_rest_arrives(
    mosquitto: Any, daemon: Any, ear: Any, until: Any, caplog: pytest.LogCaptureFixture, limit: str, protocol: str
) -> None:
    mosquitto.start("allow_anonymous true", limit)
    hearing = ear(at(mosquitto.port, "3.1.1"), "vajra/dev/camera/+/detections")
    device = daemon(at(mosquitto.port, protocol))
    device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", "serving")))
    device.publisher.start()
    device.until_connected()
    for number in range(40):
        device.send(1, tag=LARGE if number % 10 == 3 else SMALL)
    until(lambda: sum(device.counts.outbox.dropped.values()) + device.counts.outbox.acked >= 40)

    def arrived() -> set[int]:
        heard = [orjson.loads(item.payload) for item in list(hearing.received)]
        return {message["seq"] for message in heard if "gap" not in message}

    if not limit:
        until(lambda: len(arrived()) == 40)
        assert device.counts.troubles == ()
        return
    until(lambda: len(arrived()) == 36)
    assert arrived() == {number for number in range(40) if number % 10 != 3}
    assert device.counts.outbox.dropped == {"too_large": 4}
    (trouble,) = device.counts.troubles
    assert "camera/gate/detections of " in trouble
    assert "raise the broker's packet limit, or lower [engine] max_det" in trouble
    assert "breaks the connection over" in caplog.text
    assert device.counts.connections <= 8


def test_a_snapshot_over_a_brokers_limit_is_dropped_and_detections_go_on(
    mosquitto: Any, daemon: Any, until: Any
) -> None:
    mosquitto.start("allow_anonymous true", "max_packet_size 20000")
    device = daemon(at(mosquitto.port, "3.1.1"))
    device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", "serving")))
    device.publisher.start()
    device.until_connected()

    def kept_back() -> bool:
        device.picture(b"\xff\xd8" + secrets.token_bytes(90_000))
        return any("breaks the connection over such" in trouble for trouble in device.counts.troubles)

    until(kept_back)
    assert "turn this camera's snapshots off" in device.counts.troubles[0]
    connections = device.counts.connections
    device.picture(b"\xff\xd8" + secrets.token_bytes(90_000))
    device.send(20)
    device.until_acked(device.sent)
    assert device.counts.connections == connections
    assert device.counts.outbox.dropped == {}
