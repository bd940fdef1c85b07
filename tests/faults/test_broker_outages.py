"""A network that cuts, swallows and refuses, between the Publisher and a real broker, under load: nothing is lost."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import numpy as np
import orjson
import pytest
from faults.bad_network import BadNetwork
from waiting import LIMIT_S

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.mqtt.topics import Topics
from vajra_edge.types import Detections, Frame

TAG = EngineTag("ab" * 32, "fp32", "cpu", ("person",))
LOAD_S = 5.0
LEAST_CONNECTIONS = 3
RATE_PER_S = 150
"""So that no backlog exceeds the 1,000 messages that mosquitto queues for the test's own subscriber."""


@pytest.fixture(params=["mosquitto", "amqtt"])
def mqtt(request: pytest.FixtureRequest) -> Iterator[MqttSettings]:
    if request.param == "mosquitto" and not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")):
        pytest.skip("absent here: mosquitto")
    broker = Broker(request.param)
    host, port = broker.open()
    yield MqttSettings(host=host, port=port, protocol=broker.protocol)
    broker.close()


def misbehave(network: BadNetwork, dice: random.Random, is_over: Callable[[], bool]) -> int:
    """Faults of random kind and length until it is over; returns how many."""
    faults = 0
    while not is_over():
        time.sleep(dice.uniform(0.2, 0.6))
        fault = dice.choice(["cut", "cut", "swallow", "refuse"])
        faults += 1
        if fault == "swallow":
            network.swallowing = True
            time.sleep(dice.uniform(0.2, 2.5))
            network.cut()  # what a network swallowed for longer than the keep alive never comes back on that connection
            network.swallowing = False
        elif fault == "refuse":
            network.refusing = True
            network.cut()
            time.sleep(dice.uniform(0.1, 0.5))
            network.refusing = False
        else:
            network.cut()
    return faults


def test_no_message_is_lost_to_a_network_that_cuts_swallows_and_refuses(mqtt: MqttSettings) -> None:
    assert mqtt.port is not None
    network = BadNetwork(mqtt.port)
    quick = {"port": network.port, "keepalive_s": 1}  # shorter than the settings allow, for the test's sake
    publisher = Publisher(mqtt.model_copy(update=quick), Topics("vajra", "dev"), lambda _event: None)
    image = np.zeros((120, 160, 3), np.uint8)
    received: list[dict[str, object]] = []
    offered, faults = 0, [0]

    end_s = time.monotonic() + LOAD_S

    def is_over() -> bool:
        """A busy machine connects less often."""
        return time.monotonic() > end_s and publisher.counters().connections >= LEAST_CONNECTIONS

    def break_things() -> None:
        faults[0] = misbehave(network, random.Random(7), is_over)

    with Subscription(mqtt, ["vajra/dev/camera/+/detections"]) as hearing:
        while not hearing.ready:
            hearing.poll(0.05)
        publisher.start()
        breaking = threading.Thread(target=break_things)
        breaking.start()
        due_s = time.monotonic()
        while breaking.is_alive():
            due_s += 1.0 / RATE_PER_S
            while (left_s := due_s - time.monotonic()) > 0:
                received += [orjson.loads(item.payload) for item in hearing.poll(left_s)]
            frame = Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), offered, "gate")
            publisher.detections(frame, Detections.empty(), TAG)
            offered += 1
        deadline_s = time.monotonic() + LIMIT_S
        while len({message["seq"] for message in received}) < offered and time.monotonic() < deadline_s:
            received += [orjson.loads(item.payload) for item in hearing.poll(0.05)]
    counts = publisher.counters()
    publisher.close(1.0)
    network.close()
    first_seen = list(dict.fromkeys(message["seq"] for message in received))
    twice = len(received) - len(first_seen)
    print(f"{faults[0]} faults, {counts.connections} connections, {offered} offered, {twice} received twice")
    assert sorted(first_seen) == list(range(offered))
    assert first_seen == sorted(first_seen)
    assert counts.outbox.dropped == {}
    assert twice <= mqtt.max_inflight * counts.connections, "only what was in flight when a connection was cut"
    assert counts.connections >= LEAST_CONNECTIONS
