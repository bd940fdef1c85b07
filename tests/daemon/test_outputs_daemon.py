"""The outputs of the whole daemon, on a real mosquitto, while a clip plays."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pytest
from station import Station
from waiting import LIMIT_S, wait_for
from walk import LEFT, walk

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.subscriber import Subscription


class Heard:
    """Every message of the broker, as it came."""

    def __init__(self, port: int) -> None:
        self.messages: list[Received] = []
        self._over = threading.Event()
        self._subscription = Subscription(MqttSettings(host="127.0.0.1", port=port), ["#"])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_for(lambda: self._subscription.ready)

    def _run(self) -> None:
        while not self._over.is_set():
            self.messages += self._subscription.poll(0.05)

    def on(self, path: str) -> list[bytes]:
        return [one.payload for one in list(self.messages) if one.path == path]

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        told = [orjson.loads(payload) for payload in self.on("frigate/events")]
        return [one for one in told if kind in ("", one["type"])]

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._subscription.close()


@pytest.fixture
def own_broker() -> Iterator[int]:
    """One for each test: these topics are not below the device's root."""
    if not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")):
        pytest.skip("absent here: mosquitto")
    broker = Broker("mosquitto")
    try:
        yield broker.open()[1]
    finally:
        broker.close()


@pytest.fixture
def heard(own_broker: int) -> Iterator[Heard]:
    heard = Heard(own_broker)
    yield heard
    heard.close()


@pytest.fixture
def told(tmp_path: Path, own_broker: int, built: Path) -> Iterator[Station]:
    """A daemon that has not been started, before whose camera somebody walks, and that says all."""
    station = Station(tmp_path, own_broker)
    shutil.copytree(built, station.state_dir, symlinks=True)
    source = str(walk(tmp_path / "walk"))
    station.camera("gate", source=source, fps=2.0, track=True, zones=[LEFT], snapshot_every_s=0.2)
    station.settings["mqtt"]["outputs"] = ["frigate", "deepstream"]
    try:
        yield station
    finally:
        station.stop()


def test_all_topics_come_while_a_clip_plays(told: Station, heard: Heard) -> None:
    told.start()
    told.serving()
    wait_for(lambda: heard.events("end"))
    new, end = heard.events("new")[0], heard.events("end")[0]
    assert new["after"]["label"] == "person"
    assert new["after"]["camera"] == "gate"
    assert end["after"]["id"] == new["after"]["id"]
    wait_for(lambda: any(one["after"]["current_zones"] == ["left"] for one in heard.events()))
    wait_for(lambda: heard.on("frigate/left/person"))
    assert heard.on("frigate/available")[0] == b"online"
    assert heard.on("frigate/gate/status/detect")[-1] == b"online"
    wait_for(lambda: b"1" in heard.on("frigate/gate/person") and b"1" in heard.on("frigate/gate/all"))
    jpeg = wait_for(lambda: heard.on("frigate/gate/person/snapshot"))[-1]
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (256, 256, 3)
    stats = orjson.loads(heard.on("frigate/stats")[-1])
    assert stats["cameras"]["gate"]["detection_enabled"] is True
    assert stats["detectors"].keys() == {"onnxruntime"}
    assert stats["service"]["version"].startswith("vajra-edge ")
    same_frame(heard)


def same_frame(heard: Heard) -> None:
    """DeepStream's message of a frame and ours say the same."""
    theirs = {one["id"]: one for one in map(orjson.loads, heard.on("vajra/test/deepstream"))}
    ours = [one for one in map(orjson.loads, heard.on("vajra/test/camera/gate/detections")) if "gap" not in one]
    pairs = [(one, theirs[str(one["frame_seq"])]) for one in ours if str(one["frame_seq"]) in theirs]
    assert pairs
    for our, their in pairs:
        assert their["sensorId"] == "gate"
        assert our["taken_at"].startswith(their["@timestamp"].removesuffix("Z"))
        rows = [one.split("|") for one in their["objects"]]
        assert [row[5] for row in rows] == [one["class"] for one in our["detections"]]
        for row, one in zip(rows, our["detections"], strict=True):
            assert [float(side) for side in row[1:5]] == pytest.approx(one["xyxy"], abs=0.01)
            assert one["track_id"] in (None, int(row[0]))


def test_a_stop_is_said_and_a_kill_too(told: Station, heard: Heard) -> None:
    told.spawn()
    wait_for(lambda: heard.events("new"))
    told.stop()
    assert heard.events("end")[-1]["after"]["end_time"] is not None
    wait_for(lambda: heard.on("frigate/available")[-1] == b"stopped")
    told.spawn()
    wait_for(lambda: heard.on("frigate/available")[-1] == b"online")
    assert told.process is not None
    told.process.send_signal(signal.SIGKILL)
    told.process.wait(LIMIT_S)
    wait_for(lambda: heard.on("frigate/available")[-1] == b"offline")


def test_a_lost_camera_is_offline_and_its_count_is_not_zero(told: Station, heard: Heard) -> None:
    told.start()
    wait_for(lambda: heard.events("new"))
    told.camera("gate", enabled=False)
    told.write()
    wait_for(lambda: heard.on("frigate/gate/status/detect")[-1] == b"disabled")
    wait_for(lambda: len(heard.events("end")) == len(heard.events("new")))
    assert b"" not in heard.on("frigate/gate/person")


def test_outputs_come_move_and_go_with_their_settings(told: Station, heard: Heard) -> None:
    told.settings["mqtt"]["outputs"] = []
    told.start()
    told.serving()
    wait_for(lambda: len(heard.on("vajra/test/camera/gate/detections")) > 3)
    assert not [one.path for one in heard.messages if one.path.startswith("frigate") or one.path.endswith("deepstream")]
    told.write(mqtt={"outputs": ["frigate"]})
    wait_for(lambda: heard.on("frigate/gate/person/snapshot"))
    told.write(mqtt={"frigate_prefix": "site/frigate"})
    wait_for(lambda: heard.on("frigate/available")[-1] == b"stopped")
    assert heard.on("frigate/gate/person/snapshot")[-1] == b""
    wait_for(lambda: heard.on("site/frigate/available") == [b"online"])
    told.write(mqtt={"outputs": []})
    wait_for(lambda: heard.on("site/frigate/available")[-1] == b"stopped")
    assert told.status()["settings"]["error"] == ""


def test_what_cannot_be_told_is_refused_and_the_daemon_goes_on(told: Station, heard: Heard) -> None:
    told.settings["mqtt"]["outputs"] = []
    told.camera("gate", track=False, zones=[])
    told.start()
    told.serving()
    told.write(mqtt={"outputs": ["frigate"]})
    told.until(lambda status: "set track = true for camera gate" in status["settings"]["error"])
    assert not heard.on("frigate/available")
