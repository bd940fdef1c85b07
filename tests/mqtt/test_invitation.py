"""Requests that are monsters or a flood: refused at the header, answered at a pace, and never the end of the device."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt import publisher as publisher_module
from vajra_edge.mqtt.commands import MAX_REQUEST_BYTES, Requested
from vajra_edge.mqtt.invitation import FIRST_OFF_S, FORGIVEN_S, LONGEST_OFF_S, Invitation
from vajra_edge.mqtt.publisher import FLOOD, LIMITS

MONSTER_BYTES = 8 << 20
REQUEST = "vajra/dev/request/status"


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_requests_are_not_asked_for_ever_longer_each_time_and_after_a_good_hour_it_begins_anew() -> None:
    clock = Clock()
    invitation, offs = Invitation(clock), []
    assert invitation.stands
    for _ in range(10):
        offs.append(invitation.abused())
        assert not invitation.stands
        clock.now_s += offs[-1]
        assert invitation.stands
    assert offs[:3] == [FIRST_OFF_S, 2 * FIRST_OFF_S, 4 * FIRST_OFF_S]
    assert offs[-1] == LONGEST_OFF_S
    clock.now_s += FORGIVEN_S
    assert invitation.abused() == FIRST_OFF_S


def at(port: int, protocol: str, **more: Any) -> MqttSettings:
    settings = MqttSettings(host="127.0.0.1", port=port, protocol=protocol, keepalive_s=60, commands=True)
    return settings.model_copy(update=more)


@pytest.fixture
def stranger(mosquitto: Any) -> Any:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    mosquitto.start()
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    yield client
    client.loop_stop()
    client.disconnect()


@pytest.mark.parametrize("retained", [False, True])
def test_a_monster_is_refused_at_its_header_and_requests_are_not_asked_for_for_a_while(
    mosquitto: Any, stranger: Any, daemon: Any, until: Any, retained: bool
) -> None:
    if retained:
        stranger.publish(REQUEST, bytes(MONSTER_BYTES), qos=1, retain=True).wait_for_publish(30.0)
    device = daemon(at(mosquitto.port, "3.1.1"))
    device.publisher.start()
    if not retained:
        device.until_connected()
        stranger.publish(REQUEST, b"{}", qos=1).wait_for_publish(30.0)
        until(lambda: any(isinstance(event, Requested) for event in device.events))
        stranger.publish(REQUEST, bytes(MONSTER_BYTES), qos=1).wait_for_publish(30.0)
    until(lambda: device.counts.connections == 2 and device.counts.connected)
    (trouble,) = device.counts.troubles
    assert f"send at most {2 * MAX_REQUEST_BYTES} bytes" in trouble
    assert "no requests are taken for 60 s" in trouble
    assert "costs the connection" in trouble
    heard = len(device.events)
    for _ in range(3):
        stranger.publish(REQUEST, bytes(MONSTER_BYTES), qos=1).wait_for_publish(30.0)
        stranger.publish(REQUEST, b"{}", qos=1).wait_for_publish(30.0)
    device.send(50)
    device.until_acked(50)
    assert device.counts.connections == 2
    assert len(device.events) == heard
    device.publisher._invitation._off_until_s = 0.0
    stranger.publish(REQUEST, b"", qos=1, retain=True).wait_for_publish(30.0)
    until(lambda: stranger.publish(REQUEST, b"{}") and isinstance(device.events[-1], Requested))


def test_nothing_of_a_monster_is_kept_in_memory(mosquitto: Any, stranger: Any, daemon: Any, until: Any) -> None:
    device = daemon(at(mosquitto.port, "3.1.1"))
    monster = bytes(64 << 20)
    device.publisher.start()
    device.until_connected()
    stranger.publish(REQUEST, b"{}", qos=1).wait_for_publish(30.0)
    until(lambda: any(isinstance(event, Requested) for event in device.events))
    most = [0]
    over = threading.Event()

    def watch() -> None:
        session = device.publisher._link._session
        while not over.wait(0.001):
            client = session._client if session is not None else None
            most[0] = max(most[0], len(client._in_packet["packet"]) if client is not None else 0)

    watching = threading.Thread(target=watch)
    watching.start()
    stranger.publish(REQUEST, monster, qos=1).wait_for_publish(60.0)
    until(lambda: device.counts.connections == 2)
    over.set()
    watching.join()
    assert most[0] <= 2 * MAX_REQUEST_BYTES


def test_a_flood_is_answered_at_a_pace_then_not_asked_for_and_detections_flow(
    mosquitto: Any, stranger: Any, daemon: Any, until: Any
) -> None:
    told: Counter[str] = Counter()

    def count(_client: Any, _user: Any, item: Any) -> None:
        answer = orjson.loads(item.payload)
        told[answer["error"][:18] or answer["status"]] += 1

    device = daemon(at(mosquitto.port, "auto"))
    device.publisher.start()
    device.until_connected()
    stranger.on_message = count
    stranger.subscribe("vajra/dev/response/#", 1)

    def given_up() -> bool:
        for _ in range(300):
            stranger.publish(REQUEST, b"{}", qos=0)
        return not device.publisher._invitation.stands

    until(given_up)
    device.send(100)
    device.until_acked(100)
    taken = [event for event in device.events if isinstance(event, Requested)]
    assert 0 < len(taken) <= LIMITS.open
    assert device.counts.requests_refused >= FLOOD.at_once
    assert device.counts.troubles == (
        "requests over MQTT come in a flood; no requests are taken for 60 s; find who sends them",
    )
    until(lambda: told["the daemon is busy"])
    for request in taken:
        device.publisher.respond(request, {"status": {}})
    until(lambda: told["ok"] == len(taken))
    stranger.publish(REQUEST, b"{}", qos=1).wait_for_publish(30.0)
    device.send(1)
    device.until_acked(101)
    refused, heard = device.counts.requests_refused, len(device.events)
    stranger.publish(REQUEST, b"{}", qos=1).wait_for_publish(30.0)
    device.send(1)
    device.until_acked(102)
    assert (device.counts.requests_refused, len(device.events)) == (refused, heard)
    assert device.counts.connections == 1
    device.publisher._invitation._off_until_s = 0.0
    until(lambda: stranger.publish(REQUEST, b"{}") and len(device.events) > heard)


def test_a_busy_answer_carries_the_callers_transaction(mosquitto: Any, stranger: Any, daemon: Any, until: Any) -> None:
    answers: list[Any] = []
    device = daemon(at(mosquitto.port, "auto"))
    device.publisher.start()
    device.until_connected()
    stranger.on_message = lambda _c, _u, item: answers.append(orjson.loads(item.payload))
    stranger.subscribe("vajra/dev/response/#", 1)

    def busy() -> Any:
        stranger.publish(REQUEST, b'{"transaction": "t7"}', qos=1)
        return next((answer for answer in answers if answer["status"] == "error"), None)

    answer = until(busy)
    assert (answer["transaction"], answer["verb"]) == ("t7", "status")
    assert answer["error"].startswith("the daemon is busy")


def test_a_flood_that_acknowledgements_wait_behind_costs_the_connection_and_no_message(
    mosquitto: Any, stranger: Any, daemon: Any, until: Any, ear: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "BEHIND_S", -1.0)  # whatever waits has waited for long
    hearing = ear(at(mosquitto.port, "3.1.1", commands=False), "vajra/dev/camera/+/detections")
    device = daemon(at(mosquitto.port, "auto"))
    device.publisher.start()
    device.until_connected()

    def given_up() -> bool:
        stranger.publish(REQUEST, b"{}", qos=0)
        device.send(1)
        return not device.publisher._invitation.stands

    until(given_up)
    until(lambda: device.counts.connections == 2)
    device.until_acked(device.sent)
    until(lambda: {orjson.loads(item.payload)["seq"] for item in list(hearing.received)} == set(range(device.sent)))
    assert "requests over MQTT come in a flood; no requests are taken for 60 s" in device.counts.troubles[0]
