"""The Publisher on real brokers that behave: mosquitto (MQTT 5) and amqtt (3.1.1)."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from paho.mqtt import publish
from waiting import LIMIT_S

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.messages import CameraStatus, ServiceStatus, encode
from vajra_edge.mqtt.publisher import BrokerChanged
from vajra_edge.mqtt.schema import DetectionMessage, ResponseMessage, ServiceMessage
from vajra_edge.mqtt.topics import Topic, Topics

TOPICS = Topics("vajra", "dev")
SERVING = encode(ServiceStatus("dev", "serving"))


def test_detections_arrive_in_order_valid_and_live(any_broker: Any, daemon: Any, ear: Any, until: Any) -> None:
    hearing = ear(any_broker, "vajra/dev/camera/+/detections")
    device = daemon(any_broker)
    device.publisher.start()
    device.until_connected()
    device.send(50)
    device.until_acked(50)
    until(lambda: len(hearing.received) == 50)
    messages = [DetectionMessage.model_validate_json(item.payload) for item in hearing.received]
    assert [message.seq for message in messages] == list(range(50))
    assert {message.key for message in messages} == {f"dev/e1/gate/{seq}" for seq in range(50)}
    assert not any(message.replayed for message in messages)
    assert device.beats > 0
    assert device.events == [BrokerChanged(True, "5" if any_broker.protocol == "auto" else "3.1.1")]


def test_the_newest_state_is_there_for_later_subscribers(
    any_broker: Any, daemon: Any, until: Any, retained: Any
) -> None:
    device = daemon(any_broker)
    for state in ("starting", "serving"):
        device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", state)))
    device.publisher.start()
    device.until_connected()
    stored = until(lambda: retained(any_broker, "vajra/dev/status"))
    assert ServiceMessage.model_validate_json(stored[0]).state == "serving"


def test_a_clean_end_says_stopped_after_everything_was_sent(any_broker: Any, daemon: Any, ear: Any, until: Any) -> None:
    hearing = ear(any_broker, "vajra/dev/#")
    device = daemon(any_broker)
    device.publisher.state(TOPICS.status, SERVING)
    device.publisher.start()
    device.until_connected()
    device.send(300)
    device.publisher.close(LIMIT_S)
    until(lambda: len(hearing.on("/detections")) == 300)
    until(lambda: len(hearing.on("/status")) >= 2)
    assert device.counts.outbox.acked == 300
    assert device.counts.outbox.dropped == {}
    states = [ServiceMessage.model_validate_json(item.payload).state for item in hearing.on("/status")]
    assert states[-1] == "stopped"
    time.sleep(0.1)
    assert "lost" not in states
    assert not any(thread.name == "mqtt" for thread in threading.enumerate())


def test_a_device_that_vanishes_is_announced_as_lost(mosquitto: Any, daemon: Any, ear: Any, until: Any) -> None:
    mosquitto.start()
    mqtt = MqttSettings(host="127.0.0.1", port=mosquitto.port)
    hearing = ear(mqtt, "vajra/dev/status")
    device = daemon(mqtt)
    device.publisher.state(TOPICS.status, SERVING)
    device.publisher.start()
    until(lambda: hearing.received)
    device.publisher._link._session._client.socket().close()
    until(lambda: len(hearing.received) >= 3)
    states = [ServiceMessage.model_validate_json(item.payload).state for item in hearing.received]
    assert states == ["serving", "lost", "serving"]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_broker_that_takes_no_quality_of_service_gets_everything_and_the_will(
    mosquitto: Any, daemon: Any, ear: Any, until: Any, qos: int
) -> None:
    mosquitto.start("allow_anonymous true", "max_qos 0")
    mqtt = MqttSettings(host="127.0.0.1", port=mosquitto.port, qos=qos)
    hearing = ear(mqtt, "vajra/dev/#")
    device = daemon(mqtt)
    device.publisher.state(TOPICS.status, SERVING)
    device.publisher.start()
    device.until_connected()
    device.send(5)
    until(lambda: len(hearing.on("/detections")) == 5)
    until(lambda: len(hearing.on("/status")) == 1)
    device.publisher._link._session._client.socket().close()
    until(lambda: len(hearing.on("/status")) >= 3)
    states = [ServiceMessage.model_validate_json(item.payload).state for item in hearing.on("/status")]
    assert states == ["serving", "lost", "serving"]
    assert [event for event in device.events if event.connected] == [BrokerChanged(True, "5")] * 2


def test_a_camera_that_was_removed_leaves_no_ghost(any_broker: Any, daemon: Any, until: Any, retained: Any) -> None:
    device = daemon(any_broker)
    device.publisher.state(TOPICS.camera_status("gate"), encode(CameraStatus("dev", "gate", "streaming")))
    device.publisher.start()
    until(lambda: retained(any_broker, "vajra/dev/camera/gate/status"))
    device.publisher.state(TOPICS.camera_status("gate"), b"")
    until(lambda: not retained(any_broker, "vajra/dev/camera/gate/status"))


@pytest.mark.parametrize("kept", ["disk", "memory"])
def test_a_picture_names_the_message_of_its_frame_and_arrives_whole(
    any_broker: Any, daemon: Any, ear: Any, until: Any, tmp_path: Path, kept: str
) -> None:
    hearing = ear(any_broker, "vajra/dev/camera/gate/+")
    device = daemon(any_broker, TOPICS, tmp_path / "outbox" if kept == "disk" else None)
    device.publisher.start()
    device.until_connected()
    jpeg = b"\xff\xd8" + bytes(range(256)) * 800
    device.send(3)
    device.picture(jpeg)
    device.send(3)
    shown = until(lambda: hearing.on("/snapshot"))[0].payload
    until(lambda: len(hearing.on("/detections")) == 7)
    fourth = orjson.loads(hearing.on("/detections")[3].payload)
    assert shown.startswith(b"\xff\xd8\xff\xfe")
    assert shown.endswith(jpeg[2:])
    comment = orjson.loads(shown[6 : len(shown) - len(jpeg) + 2])
    assert (comment["key"], comment["frame_seq"]) == (fourth["key"], fourth["frame_seq"])
    assert comment["frame_seq"] == 3


@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="absent here: mosquitto_sub")
def test_mqtt_5_carries_the_pictures_names_as_user_properties(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mosquitto.start()
    mqtt = MqttSettings(host="127.0.0.1", port=mosquitto.port)
    hearing = ear(mqtt, "vajra/dev/camera/gate/detections")
    command = ["mosquitto_sub", "-p", str(mosquitto.port), "-V", "5", "-t", "vajra/dev/camera/gate/snapshot", "-C", "1"]
    listening = subprocess.Popen([*command, "-F", "%P"], stdout=subprocess.PIPE)
    device = daemon(mqtt)
    device.publisher.start()
    device.until_connected()

    def heard() -> bool:
        """Nothing tells when the subscription stands."""
        device.picture(b"\xff\xd8jpeg")
        time.sleep(0.1)
        return listening.poll() is not None

    until(heard)
    told = dict(pair.split(":", 1) for pair in listening.communicate()[0].decode().split())
    until(lambda: len(hearing.received) == device.sent)
    message = next(m for m in map(orjson.loads, [item.payload for item in hearing.received]) if m["key"] == told["key"])
    assert told == {name: str(message[name]) for name in ("key", "seq", "taken_at")}


def test_quality_of_service_zero_is_counted_when_it_is_written(
    any_broker: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mqtt = any_broker.model_copy(update={"qos": 0})
    hearing = ear(mqtt, "vajra/dev/camera/+/detections")
    device = daemon(mqtt, Topics("vajra", "dev", 0))
    device.publisher.start()
    device.until_connected()
    device.send(100)
    device.until_acked(100)
    until(lambda: len(hearing.received) == 100)


def test_a_request_is_posted_and_its_answer_arrives(any_broker: Any, daemon: Any, ear: Any, until: Any) -> None:
    mqtt = any_broker.model_copy(update={"commands": True})
    hearing = ear(mqtt, "vajra/dev/response/+")
    device = daemon(mqtt)
    device.publisher.start()
    device.until_connected()
    asking = daemon(any_broker, Topics("other", "asker"))
    asking.publisher.start()
    asking.until_connected()

    def ask() -> list[Requested]:
        asking.publisher._link._session._client.publish(
            "vajra/dev/request/rebuild", b'{"transaction":"t9","force":true}', 1
        )
        time.sleep(0.1)
        return [event for event in device.events if isinstance(event, Requested)]

    request = until(ask)[0]
    assert (request.verb, request.transaction, request.payload) == ("rebuild", "t9", {"force": True})
    device.publisher.respond(request, {"job": 4})
    answer = ResponseMessage.model_validate_json(until(lambda: hearing.received)[0].payload)
    assert (answer.transaction, answer.status, answer.content) == ("t9", "ok", {"job": 4})


def test_a_bad_request_is_answered_and_harms_nothing(any_broker: Any, daemon: Any, ear: Any, until: Any) -> None:
    mqtt = any_broker.model_copy(update={"commands": True})
    hearing = ear(mqtt, "vajra/dev/response/+")
    device = daemon(mqtt)
    device.publisher.start()
    device.until_connected()

    def ask() -> bool:  # until the device listens
        for payload in (b"{", b"[]", b"\xff" * 20_000):
            hearing.subscription._link._session._client.publish("vajra/dev/request/rebuild", payload, 1)
            hearing.subscription._link.wake()
        time.sleep(0.1)
        return len(hearing.received) >= 3

    until(ask)
    answers = list(hearing.received)
    assert {ResponseMessage.model_validate_json(item.payload).status for item in answers} == {"error"}
    assert not [event for event in device.events if isinstance(event, Requested)]
    device.send(5)
    device.until_acked(5)


def test_a_stored_request_is_not_obeyed(any_broker: Any, daemon: Any, until: Any, retained: Any) -> None:
    asking = daemon(any_broker, Topics("other", "asker"))
    asking.publisher.start()
    asking.until_connected()
    asking.publisher._link._session._client.publish("vajra/dev/request/rebuild", b"{}", 1, True)
    until(lambda: retained(any_broker, "vajra/dev/request/rebuild"))
    device = daemon(any_broker.model_copy(update={"commands": True}))
    device.publisher.start()
    device.until_connected()
    time.sleep(0.3)
    assert not [event for event in device.events if isinstance(event, Requested)]


def test_requests_are_not_heard_unless_commands_are_on(any_broker: Any, daemon: Any, ear: Any, until: Any) -> None:
    hearing = ear(any_broker, "vajra/dev/request/+")
    device = daemon(any_broker)
    device.publisher.start()
    device.until_connected()
    hearing.subscription._link._session._client.publish("vajra/dev/request/rebuild", b"{}", 1)
    hearing.subscription._link.wake()
    until(lambda: hearing.received)
    time.sleep(0.1)
    assert not [event for event in device.events if isinstance(event, Requested)]


def test_mqtt_5_response_topic_and_correlation_data_come_back(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    mosquitto.start()
    mqtt = MqttSettings(host="127.0.0.1", port=mosquitto.port, commands=True)
    hearing = ear(mqtt, "app/7/answers")
    device = daemon(mqtt)
    device.publisher.start()
    device.until_connected()
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "app/7/answers"
    properties.CorrelationData = b"c7"

    def ask() -> list[Requested]:
        hearing.subscription._link._session._client.publish("vajra/dev/request/status", b"", 1, False, properties)
        hearing.subscription._link.wake()
        time.sleep(0.1)
        return [event for event in device.events if isinstance(event, Requested)]

    device.publisher.respond(until(ask)[0], {}, error="not now")
    answer = until(lambda: hearing.received)[0]
    assert answer.correlation == b"c7"
    assert orjson.loads(answer.payload)["error"] == "not now"


def test_another_broker_in_the_settings_only_reconnects(
    mosquitto: Any, any_broker: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mosquitto.start()
    first = MqttSettings(host="127.0.0.1", port=mosquitto.port)
    old_ear, new_ear = ear(first, "vajra/dev/#"), ear(any_broker, "city/dev/#")
    device = daemon(first)
    device.publisher.state(TOPICS.status, SERVING)
    device.publisher.start()
    device.until_connected()
    device.send(10)
    device.until_acked(10)
    device.publisher.reconnect(any_broker, Topics("city", "dev"))
    until(lambda: device.counts.connections == 2)
    device.send(10)
    until(lambda: len(new_ear.on("/detections")) >= 10)
    assert ServiceMessage.model_validate_json(until(lambda: new_ear.on("/status"))[0].payload).state == "serving"
    states = lambda: [ServiceMessage.model_validate_json(x.payload).state for x in old_ear.on("/status")]  # noqa: E731
    until(lambda: states()[-1:] == ["stopped"])
    numbers = [orjson.loads(item.payload)["seq"] for item in old_ear.on("/detections") + new_ear.on("/detections")]
    assert numbers == list(range(20))


def test_two_thousand_messages_in_a_row_are_all_acknowledged(any_broker: Any, daemon: Any, ear: Any) -> None:
    device = daemon(any_broker)
    device.publisher.start()
    device.until_connected()
    device.send(2_000)
    device.until_acked(2_000)


def test_it_may_be_closed_before_it_was_started_and_twice(daemon: Any) -> None:
    device = daemon(MqttSettings(host="127.0.0.1", port=1))
    device.publisher.close(1.0)
    device.publisher.close(1.0)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_protocol_asked_for_is_used(mosquitto: Any, daemon: Any, protocol: str) -> None:
    mosquitto.start()
    device = daemon(MqttSettings(host="127.0.0.1", port=mosquitto.port, protocol=protocol))
    device.publisher.start()
    device.until_connected()
    assert device.counts.protocol == protocol


def test_home_assistant_is_told_all_states_again_when_it_starts(
    any_broker: Any, daemon: Any, ear: Any, until: Any
) -> None:
    """A broker without a memory has lost them; who starts anew and does not retain says so by its birth message."""
    device = daemon(any_broker.model_copy(update={"home_assistant": "device", "discovery_prefix": "site/ha"}))
    device.publisher.start()
    device.publisher.state(TOPICS.engine, b"{}")
    device.publisher.state(Topic("site/ha/device/x/config", 1, retain=True, is_path=True), b"{}")
    heard = ear(any_broker, "vajra/dev/engine", "site/ha/#")
    until(lambda: heard.on("/engine") and heard.on("/config"))
    before = len(heard.on("/engine")), len(heard.on("/config"))

    def born() -> bool:
        for payload in (b"offline", b"online"):
            publish.single("site/ha/status", payload, hostname=any_broker.host, port=any_broker.port)
        return len(heard.on("/engine")) > before[0] and len(heard.on("/config")) > before[1]

    until(born)
    for _ in range(40):
        publish.single("site/ha/status", b"online", hostname=any_broker.host, port=any_broker.port)
    device.publisher.state(TOPICS.status, SERVING)
    said = ear(any_broker, "vajra/dev/status")
    until(lambda: said.received)
    assert len(heard.on("/engine")) - before[0] < 40, "who sends so many has another thing in mind"
