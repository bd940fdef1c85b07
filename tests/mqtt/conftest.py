"""Real brokers as children of the test, a device, a subscriber, and small makers of frames and detections."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port
from waiting import wait_for

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.mqtt.picture import Receipt, Snapshot
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.mqtt.topics import Topics
from vajra_edge.types import Detections, Frame

TAG = EngineTag("ab" * 32, "fp32", "cpu", ("person", "shop"))
TOPICS = Topics("vajra", "dev")


def wait_until(condition: Callable[[], Any]) -> Any:
    return wait_for(condition, step_s=0.005)


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def retained() -> Callable[[MqttSettings, str], list[bytes]]:
    """What a subscriber that comes later gets."""

    def read(mqtt: MqttSettings, path: str) -> list[bytes]:
        with Subscription(mqtt, [path]) as late:
            first = wait_until(lambda: late.poll(0.05) or late.ready)
            both = (first if isinstance(first, list) else []) + late.poll(0.2)
        return [item.payload for item in both if item.retained and item.payload]

    return read


class Mosquitto:
    """The real broker; its port stays the same over stop and start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.lines = [f"listener {self.port} 127.0.0.1", "persistence false"]
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str) -> Mosquitto:
        config = self.folder / "mosquitto.conf"
        lines = lines or ("allow_anonymous true",)
        user = ["user root"] if os.geteuid() == 0 else []
        config.write_text("\n".join([*self.lines, *lines, *user]) + "\n")
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if program is None:
            pytest.skip("absent here: mosquitto")
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        wait_until(self.listens)
        return self

    def listens(self) -> bool:
        assert self.child is not None
        assert self.child.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, how: int = signal.SIGKILL) -> None:
        if self.child is not None:
            self.child.send_signal(signal.SIGCONT)
            self.child.send_signal(how)
            self.child.wait()
            self.child = None

    def logged(self, *words: str) -> int:
        """How many lines of its log hold all of these."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return sum(all(word in line for word in words) for line in lines)

    def send(self, signum: int) -> None:
        assert self.child is not None
        self.child.send_signal(signum)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    broker.stop()


@pytest.fixture(params=["mosquitto", "amqtt"])
def any_broker(request: pytest.FixtureRequest) -> Iterator[MqttSettings]:
    if request.param == "mosquitto" and not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")):
        pytest.skip("absent here: mosquitto")
    broker = Broker(request.param)
    host, port = broker.open()
    yield MqttSettings(host=host, port=port, protocol=broker.protocol, keepalive_s=5)
    broker.close()


class Daemon:
    """A publisher with the events that it posted."""

    def __init__(self, mqtt: MqttSettings, topics: Topics = TOPICS, folder: Path | None = None) -> None:
        self.events: list[Any] = []
        self.beats = 0
        self.publisher = Publisher(mqtt, topics, self.events.append, self.beat, epoch="e1", folder=folder)
        self.sent = 0

    def beat(self) -> None:
        self.beats += 1

    def picture(self, jpeg: bytes, camera: str = "gate") -> None:
        """A frame's detection message, and its picture."""
        shown = frame(self.sent, camera)
        receipt = self.publisher.detections(shown, detections(2), TAG)
        self.publisher.snapshot(snapshot(receipt, jpeg, shown))
        self.sent += 1

    def send(self, count: int, camera: str = "gate", tag: EngineTag = TAG) -> None:
        for _ in range(count):
            self.publisher.detections(frame(self.sent, camera), detections(2), tag)
            self.sent += 1

    @property
    def counts(self) -> Any:
        return self.publisher.counters()

    def until_connected(self) -> None:
        wait_until(lambda: self.counts.connected)

    def until_acked(self, count: int) -> None:
        wait_until(lambda: self.counts.outbox.acked >= count)


@pytest.fixture
def daemon() -> Iterator[Callable[..., Daemon]]:
    made: list[Daemon] = []

    def make(mqtt: MqttSettings, topics: Topics = TOPICS, folder: Path | None = None) -> Daemon:
        made.append(Daemon(mqtt, topics, folder))
        return made[-1]

    yield make
    for each in made:
        each.publisher.close(0.0)


class Ear:
    """A subscriber in a thread."""

    def __init__(self, mqtt: MqttSettings, *filters: str) -> None:
        self.received: list[Received] = []
        self.over = threading.Event()
        self.subscription = Subscription(mqtt, filters)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        wait_until(lambda: self.subscription.ready)

    def run(self) -> None:
        with self.subscription:
            while not self.over.is_set():
                self.received += self.subscription.poll(0.05)

    def on(self, end: str) -> list[Received]:
        return [item for item in list(self.received) if item.path.endswith(end)]


@pytest.fixture
def ear() -> Iterator[Callable[..., Ear]]:
    made: list[Ear] = []

    def make(mqtt: MqttSettings, *filters: str) -> Ear:
        # it asks without a session: what is published while the broker thinks it dead on a busy machine, it misses
        made.append(Ear(mqtt.model_copy(update={"keepalive_s": 60}), *filters))
        return made[-1]

    yield make
    for each in made:
        each.over.set()
        each.thread.join()


def frame(seq: int = 0, camera: str = "gate") -> Frame:
    image = np.zeros((120, 160, 3), np.uint8)
    return Frame(image, time.monotonic_ns(), datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=timezone.utc), seq, camera)


def snapshot(receipt: Receipt, jpeg: bytes, of: Frame | None = None) -> Snapshot:
    of = of or frame()
    return Snapshot(of.camera, of.taken_at, of.seq, receipt, jpeg)


def detections(count: int) -> Detections:
    dice = np.random.default_rng(count)
    corner = dice.uniform(0, 100, (count, 2)).astype(np.float32)
    return Detections(
        np.concatenate([corner, corner + 20], 1).astype(np.float32),
        np.sort(dice.uniform(0.25, 1, count).astype(np.float32))[::-1],
        dice.integers(0, 2, count).astype(np.int32),
    )
