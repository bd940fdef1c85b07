"""The sample of a broker with TLS and an access list, on a real mosquitto with a real daemon."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from sample_broker import SampleBroker
from station import Station
from waiting import wait_for

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.outputs.channel import Channel
from vajra_edge.outputs.sighted import Message


class Listener:
    """What a user of the broker hears."""

    def __init__(self, mqtt: MqttSettings, *paths: str) -> None:
        self.heard: dict[str, bytes] = {}
        self._ears = Subscription(mqtt, paths)
        wait_for(lambda: self._poll() or self._ears.ready or self._ears.trouble)

    def _poll(self) -> None:
        for one in self._ears.poll(0.05):
            self.heard[one.path] = one.payload

    def until(self, path: str) -> bytes:
        """The newest message there."""

        def come() -> bytes | None:
            self._poll()
            return self.heard.get(path)

        return wait_for(come)

    @property
    def trouble(self) -> str:
        return self._ears.trouble

    def close(self) -> None:
        self._ears.close()


def say(broker: SampleBroker, user: str, path: str, payload: bytes) -> None:
    """Publish as somebody, and wait until the broker took or refused it."""
    channel = Channel(broker.mqtt(user), f"says-{user}", None, lambda: [Message(path, payload, qos=1)])
    channel.start()
    wait_for(lambda: channel._up)
    channel.leave(list, 60.0)
    channel.join(60.0)


@pytest.fixture
def gate_7(sample_broker: SampleBroker, tmp_path: Path) -> Iterator[Station]:
    """A device of the sample that says all it can."""
    station = Station(tmp_path, sample_broker.port)
    station.settings["device_id"] = "gate-7"
    station.camera("gate", track=True, snapshot_every_s=0.5)
    more = {"commands": True, "home_assistant": "device", "outputs": ["frigate", "deepstream"]}
    station.settings["mqtt"] = {**sample_broker.settings("gate-7"), **more, "frigate_prefix": "frigate/gate-7"}
    try:
        yield station
    finally:
        station.stop()


def test_the_access_list_lets_a_device_do_all_it_has_to_and_others_what_is_theirs(
    sample_broker: SampleBroker, gate_7: Station
) -> None:
    home = Listener(sample_broker.mqtt("homeassistant"), "vajra/#", "homeassistant/#")
    flows = Listener(sample_broker.mqtt("node-red"), "vajra/#", "frigate/#", "homeassistant/#")
    stranger = Listener(sample_broker.mqtt("gate-8"), "#")
    own = Listener(sample_broker.mqtt("gate-7"), "#")
    gate_7.start()
    gate_7.serving()
    camera = "vajra/gate-7/camera/gate"
    for path in ("vajra/gate-7/status", "vajra/gate-7/engine", f"{camera}/status", f"{camera}/snapshot"):
        assert home.until(path)
    assert home.until("homeassistant/device/vajra-edge-gate-7/config")
    assert home.until("homeassistant/device/vajra-edge-gate-7/gate/config")
    assert flows.until("vajra/gate-7/deepstream")
    assert flows.until("frigate/gate-7/available") == b"online"
    assert flows.until("frigate/gate-7/events")

    say(sample_broker, "homeassistant", "vajra/gate-7/request/status", b'{"transaction": "t1"}')
    assert orjson.loads(home.until("vajra/gate-7/response/status"))["transaction"] == "t1"
    del home.heard["vajra/gate-7/response/status"]
    for other in ("gate-8", "node-red"):
        say(sample_broker, other, "vajra/gate-7/request/status", b'{"transaction": "t2"}')
        say(sample_broker, other, "vajra/gate-7/status", b'{"forged": true}')
    say(sample_broker, "gate-7", "vajra/gate-8/status", b'{"forged": true}')
    say(sample_broker, "homeassistant", "vajra/gate-7/request/status", b'{"transaction": "t3"}')
    assert orjson.loads(home.until("vajra/gate-7/response/status"))["transaction"] == "t3"
    assert b"forged" not in home.until("vajra/gate-7/status")
    assert "vajra/gate-8/status" not in home.heard
    assert stranger.heard == {}
    own.until("vajra/gate-7/request/status")
    assert own.heard.keys() == {"vajra/gate-7/request/status"}
    assert not [path for path in flows.heard if path.startswith("homeassistant/")]

    status = gate_7.status()
    assert status["broker"]["connected"]
    assert status["broker"]["troubles"] == []
    for ears in (home, flows, stranger, own):
        ears.close()


@pytest.mark.parametrize("change", [{"username": None, "password_file": None}, {"tls": False, "ca_file": None}])
def test_nobody_comes_in_without_a_password_or_without_tls(
    sample_broker: SampleBroker, change: dict[str, None]
) -> None:
    refused = Listener(sample_broker.mqtt("node-red").model_copy(update=change), "#")
    assert refused.trouble
    refused.close()


def test_an_output_that_the_access_list_forbids_is_named_and_the_rest_goes_on(
    gate_7: Station, caplog: pytest.LogCaptureFixture
) -> None:
    gate_7.write(mqtt={"frigate_prefix": "frigate"})
    with caplog.at_level(logging.WARNING, "vajra_edge.outputs"):
        gate_7.start()
        gate_7.serving()
        wait_for(lambda: "the broker refuses a message on frigate/available" in caplog.text)
    assert "check the broker's access list" in caplog.text
    status = gate_7.until(lambda status: status["broker"]["connected"])
    assert "outputs: the broker refuses" in status["broker"]["troubles"][0]
