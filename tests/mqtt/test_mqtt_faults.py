"""The Publisher on brokers that are absent, killed, frozen, full or doubled."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt import client as client_module
from vajra_edge.mqtt import publisher as publisher_module
from vajra_edge.mqtt.link import MOST_DIALS
from vajra_edge.mqtt.messages import Draft, ServiceStatus, encode
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topics

TOPICS = Topics("vajra", "dev")
DETECTIONS = "vajra/dev/camera/+/detections"


def at(port: int, **more: Any) -> MqttSettings:
    """Also with a keep alive of one second, which the settings do not allow: tests would take five times as long."""
    return MqttSettings(host="127.0.0.1", port=port).model_copy(update={"keepalive_s": 1, **more})


def by_seq(items: list[Any]) -> dict[int, dict[str, Any]]:
    messages = [orjson.loads(item.payload) for item in items]
    return {message["seq"]: message for message in messages if "gap" not in message}


def test_it_starts_without_a_broker_and_finds_it_later(mosquitto: Any, daemon: Any, ear: Any, until: Any) -> None:
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    until(lambda: device.events)
    assert device.events[0].connected is False
    assert "check that it runs" in device.events[0].reason
    device.send(20)
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device.until_connected()
    device.send(5)
    device.until_acked(25)
    until(lambda: 24 in by_seq(hearing.received))
    live = [message["seq"] for message in by_seq(hearing.received).values() if not message["replayed"]]
    assert live == [20, 21, 22, 23, 24]


def test_a_thousand_messages_through_an_outage_arrive_in_order(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mosquitto.start()
    device = daemon(at(mosquitto.port))
    device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", "serving")))
    device.publisher.start()
    device.until_connected()
    device.send(300)
    device.until_acked(100)
    mosquitto.stop(signal.SIGKILL)
    until(lambda: not device.counts.connected)
    device.send(400)
    assert device.counts.outbox.queued >= 400
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device.until_connected()
    device.send(300)
    device.until_acked(1_000)
    assert device.counts.outbox.dropped == {}
    until(lambda: 999 in by_seq(hearing.received))
    seen = by_seq(hearing.received)
    held_back = [seq for seq in range(300, 700) if seq in seen]
    assert all(seen[seq]["replayed"] for seq in held_back)
    assert not any(seen[seq]["replayed"] for seq in range(700, 1_000))
    order = [orjson.loads(item.payload)["seq"] for item in hearing.received]
    after = order[order.index(700) :]
    assert after == sorted(after)


def test_nothing_acknowledged_late_is_lost_when_the_subscriber_stays(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    """The connection breaks three times under load while the broker and its subscriber stay: every message arrives."""
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    for cut in range(1, 4):
        until(lambda cut=cut: device.counts.connections == cut)
        device.send(60)
        device.publisher._link._session._client.socket().shutdown(2)
        device.send(40)
    until(lambda: len(by_seq(hearing.received)) == 300)
    first_seen = list(by_seq(hearing.received))
    assert first_seen == sorted(first_seen)
    assert len(hearing.received) - 300 <= 3 * 20


def test_the_bound_of_the_outbox_holds_and_the_newest_survive(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    device = daemon(at(mosquitto.port, outbox_bytes=65_536))
    device.send(500)
    counts = device.counts.outbox
    assert counts.size_bytes <= 65_536
    assert counts.dropped["bytes"] + counts.queued == 500
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device.publisher.start()
    until(lambda: len(hearing.received) == counts.queued + 1)
    assert list(by_seq(hearing.received)) == list(range(500 - counts.queued, 500))
    gap = orjson.loads(hearing.received[0].payload)["gap"]
    assert gap == {"from": 0, "to": 499 - counts.queued, "why": "bytes"}, "said before what follows"


def test_old_messages_are_dropped_during_an_outage(daemon: Any, until: Any) -> None:
    device = daemon(at(1, outbox_age_s=0.2))
    device.publisher.start()
    device.send(10)
    until(lambda: device.counts.outbox.dropped == {"age": 10})


def test_a_frozen_broker_is_noticed_blocks_nobody_and_loses_nothing(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    device.until_connected()
    mosquitto.send(signal.SIGSTOP)
    beats = device.beats
    device.send(200)
    assert device.counts.outbox.acked == 0, "nobody waits for a broker that is frozen"
    until(lambda: not device.counts.connected)
    assert device.beats > beats
    assert device.counts.outbox.queued == 200
    mosquitto.send(signal.SIGCONT)
    device.until_acked(200)
    until(lambda: len(by_seq(hearing.received)) == 200)


def test_closing_with_a_frozen_broker_keeps_to_its_deadline(mosquitto: Any, daemon: Any, until: Any) -> None:
    mosquitto.start()
    device = daemon(at(mosquitto.port, keepalive_s=60))
    device.publisher.start()
    device.until_connected()
    mosquitto.send(signal.SIGSTOP)
    device.send(100)
    device.publisher.close(0.5)
    until(lambda: device.counts.outbox.dropped == {"closed": 100})


def test_closing_without_a_broker_does_not_wait(daemon: Any, until: Any) -> None:
    device = daemon(at(1))
    device.publisher.start()
    until(lambda: device.events)
    device.send(3)
    device.publisher.close(600.0)
    assert device.counts.outbox.dropped == {"closed": 3}


def test_a_backlog_far_above_receive_maximum_goes_through_in_one_connection(mosquitto: Any, daemon: Any) -> None:
    """paho alone sends the whole backlog at once and is kicked for ever."""
    device = daemon(at(mosquitto.port, keepalive_s=60, max_inflight=1_000))
    device.send(500)
    mosquitto.start("allow_anonymous true", "max_inflight_messages 3")
    device.publisher.start()
    device.until_acked(500)
    assert device.counts.connections == 1


def test_a_message_above_the_brokers_packet_limit_is_dropped_and_the_others_pass(
    mosquitto: Any, daemon: Any, until: Any
) -> None:
    mosquitto.start("allow_anonymous true", "max_packet_size 2000")
    device = daemon(at(mosquitto.port, keepalive_s=60))
    device.publisher.start()
    device.until_connected()
    device.publisher._backlog.offer(Draft("gate", "dev", b'"x":"' + b"x" * 5_000 + b'"}'), time.monotonic())
    device.send(3)
    device.until_acked(3)
    assert device.counts.outbox.dropped == {"too_large": 1}
    assert device.counts.connections == 1


def test_two_devices_under_one_id_do_not_storm_the_broker_and_are_told(mosquitto: Any, daemon: Any, until: Any) -> None:
    mosquitto.start()
    one, two = (daemon(at(mosquitto.port, keepalive_s=60)) for _ in range(2))
    one.publisher.start()
    one.until_connected()
    two.publisher.start()
    until(lambda: "device_id" in one.counts.last_error)
    time.sleep(1.0)
    assert one.counts.connections + two.counts.connections < 10


def test_a_name_that_cannot_be_resolved_does_not_stop_the_heart(daemon: Any, until: Any) -> None:
    device = daemon(MqttSettings(host="no-such-host.invalid"))
    device.publisher.start()
    until(lambda: device.events)
    assert "check [mqtt] host" in device.events[0].reason
    beats = device.beats
    until(lambda: device.beats > beats)


def test_the_thread_survives_an_owner_that_raises(mosquitto: Any, until: Any, caplog: pytest.LogCaptureFixture) -> None:
    mosquitto.start()
    calls: list[object] = []

    def post(event: object) -> None:
        calls.append(event)
        if len(calls) == 1:
            raise RuntimeError("inbox is full")

    publisher = Publisher(at(mosquitto.port, keepalive_s=60), TOPICS, post)
    publisher.start()
    until(lambda: publisher.counters().connections == 2 and publisher.counters().connected)
    assert "inbox is full" in caplog.text
    publisher.close(1.0)


def test_no_thread_or_socket_is_left_behind(mosquitto: Any, daemon: Any, until: Any) -> None:
    mosquitto.start()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    threads_before = threading.active_count()
    for _ in range(5):
        device = daemon(at(mosquitto.port, keepalive_s=60))
        device.publisher.start()
        device.until_connected()
        device.publisher.reconnect(at(mosquitto.port, keepalive_s=60), TOPICS)
        until(lambda device=device: device.counts.connections == 2)
        device.publisher.close(1.0)
    until(lambda: threading.active_count() <= threads_before)
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= open_before)


def test_a_name_server_that_is_silent_is_told_and_holds_up_neither_the_thread_nor_the_stop(
    monkeypatch: pytest.MonkeyPatch, daemon: Any, until: Any
) -> None:
    answered = threading.Event()

    def silent(*_arguments: Any, **_named: Any) -> Any:
        answered.wait(60.0)
        raise OSError("nobody answered")

    monkeypatch.setattr(client_module.socket, "create_connection", silent)
    monkeypatch.setattr(publisher_module, "SLOW_DIAL_S", 0.2)
    monkeypatch.setattr(publisher_module, "DIAL_TIMEOUT_S", 0.1)
    device = daemon(at(1))
    device.send(5)
    device.publisher.start()
    until(lambda: device.events)
    assert "cannot be reached so far: no name server or no route answers" in device.events[0].reason
    beats = device.beats
    until(lambda: device.beats > beats + 2)
    for port in range(2, 40):
        device.publisher.reconnect(at(port), TOPICS)
    until(device.publisher._redirects.empty)
    dials = [thread for thread in threading.enumerate() if thread.name == "mqtt-dial" and thread.is_alive()]
    assert len(dials) <= 2 * MOST_DIALS, "ours, and what other tests left"
    began_s = time.monotonic()
    device.publisher.close(60.0)
    assert time.monotonic() - began_s < 30.0
    answered.set()
