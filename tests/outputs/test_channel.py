"""The connection of the outputs: what it says, and what it drops."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from ports import free_port
from waiting import LIMIT_S, wait_for

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.outputs.channel import MOST_FRAMES, MOST_WAITING, Channel
from vajra_edge.outputs.sighted import Message

WILL = "site/available", b"offline"
ONLINE = Message("site/available", b"online", qos=1, retain=True)


@pytest.fixture
def mqtt() -> Iterator[MqttSettings]:
    broker = Broker()
    host, port = broker.open()
    yield MqttSettings(host=host, port=port, protocol=broker.protocol)
    broker.close()


def heard(ears: Subscription, count: int) -> list[tuple[str, bytes]]:
    """The next so many messages."""
    told: list[tuple[str, bytes]] = []

    def come() -> bool:
        told.extend((one.path, one.payload) for one in ears.poll(0.05))
        return len(told) >= count

    wait_for(come)
    return told


def test_it_says_what_is_known_then_what_comes_then_its_last_words(mqtt: MqttSettings) -> None:
    with Subscription(mqtt, ["site/#"]) as ears:
        wait_for(lambda: ears.poll(0.05) or ears.ready)
        channel = Channel(mqtt, "dev-outputs", WILL, lambda: [ONLINE])
        channel.start()
        assert heard(ears, 1) == [("site/available", b"online")]
        channel.do(lambda: [Message("site/events", b"1"), Message("site/events", b"2")])
        channel.leave(lambda: [Message("site/available", b"stopped", qos=1, retain=True)], LIMIT_S)
        channel.join(LIMIT_S)
        assert heard(ears, 3) == [("site/events", b"1"), ("site/events", b"2"), ("site/available", b"stopped")]


def test_a_burst_that_is_larger_than_the_window_goes_through(mqtt: MqttSettings) -> None:
    with Subscription(mqtt, ["site/#"]) as ears:
        wait_for(lambda: ears.poll(0.05) or ears.ready)
        burst = [Message("site/all", str(number).encode()) for number in range(MOST_WAITING // 2)]
        channel = Channel(mqtt, "dev-outputs", None, lambda: burst)
        channel.start()
        assert [payload for _, payload in heard(ears, len(burst))] == [one.payload for one in burst]
        channel.leave(list, LIMIT_S)
        channel.join(LIMIT_S)


def test_without_a_broker_nothing_is_kept_and_nobody_waits() -> None:
    made: list[int] = []
    channel = Channel(MqttSettings(host="127.0.0.1", port=free_port()), "dev-outputs", WILL, lambda: [ONLINE])
    for number in range(2 * MOST_FRAMES):
        channel.do(lambda number=number: made.append(number) or [ONLINE], is_frame=True)
    channel.start()
    wait_for(lambda: len(made) == MOST_FRAMES)
    channel.do(lambda: made.append(-1) or [ONLINE])
    wait_for(lambda: made[-1] == -1)
    assert not channel._waiting
    channel.leave(lambda: [ONLINE], LIMIT_S)
    channel.join(LIMIT_S)
    assert not channel._thread.is_alive()


def test_one_that_follows_another_under_its_id_lets_it_say_its_last_words(mqtt: MqttSettings) -> None:
    with Subscription(mqtt, ["site/#"]) as ears:
        wait_for(lambda: ears.poll(0.05) or ears.ready)
        first = Channel(mqtt, "dev-outputs", WILL, lambda: [ONLINE])
        first.start()
        heard(ears, 1)
        first.leave(lambda: [Message("site/available", b"stopped")], LIMIT_S)
        second = Channel(mqtt, "dev-outputs", WILL, lambda: [ONLINE], after=first)
        second.start()
        assert [payload for _, payload in heard(ears, 2)] == [b"stopped", b"online"]
        second.leave(list, LIMIT_S)
        second.join(LIMIT_S)


def test_a_fault_of_ours_costs_the_connection_and_not_the_thread(
    mqtt: MqttSettings, caplog: pytest.LogCaptureFixture
) -> None:
    faults = threading.Semaphore(1)

    def present() -> list[Message]:
        if faults.acquire(blocking=False):
            raise RuntimeError("of ours")
        return [ONLINE]

    with Subscription(mqtt, ["site/#"]) as ears, caplog.at_level(logging.ERROR):
        wait_for(lambda: ears.poll(0.05) or ears.ready)
        channel = Channel(mqtt, "dev-outputs", None, present)
        channel.start()
        assert heard(ears, 1) == [("site/available", b"online")]
        channel.leave(list, LIMIT_S)
        channel.join(LIMIT_S)
    assert "goes on after a fault of its own" in caplog.text
