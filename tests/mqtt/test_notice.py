"""A status that outlives the process that left it."""

from __future__ import annotations

import time

from ports import free_port
from station import Ears

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt import notice
from vajra_edge.mqtt.messages import ServiceStatus
from vajra_edge.mqtt.topics import Topics

TOPICS, STATUS = Topics("vajra", "gone"), ServiceStatus("gone", "blocked", "settings: mqtt.port = true")


def test_the_broker_keeps_it_for_whoever_comes_later() -> None:
    broker = Broker()
    host, port = broker.open()
    mqtt = MqttSettings(host=host, port=port)
    try:
        assert notice.leave(mqtt, TOPICS, STATUS, patience_s=30.0, persistent=False)
        ears = Ears(mqtt, "vajra/gone/#")
        said = ears.until(lambda path, _: path == "vajra/gone/status")
        assert (said["state"], said["reason"]) == ("blocked", "settings: mqtt.port = true")
        ears.close()
    finally:
        broker.close()


def test_without_a_broker_it_ends_at_once_or_after_its_patience() -> None:
    mqtt = MqttSettings(host="127.0.0.1", port=free_port())
    began_s = time.monotonic()
    assert not notice.leave(mqtt, TOPICS, STATUS, patience_s=600.0, persistent=False)
    assert time.monotonic() - began_s < 300.0
    ticks = iter(range(1000))
    assert not notice.leave(mqtt, TOPICS, STATUS, patience_s=20.0, persistent=True, clock=lambda: float(next(ticks)))
    assert next(ticks) < 1000
