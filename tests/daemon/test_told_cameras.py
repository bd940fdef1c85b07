"""What the broker keeps of a camera goes with the camera, over restarts too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish
from station import Station
from waiting import wait_for
from walk import LEFT, walk

from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.told_cameras import NAME, ToldCameras
from vajra_edge.mqtt.topics import Topic

YARD, GATE = {"id": "yard", "source": "y.mp4"}, {"id": "gate", "source": "x.mp4"}
WATCHED = {**GATE, "zones": [LEFT]}
STATUS, PLACES, TOTALS = (f"camera/gate/{name}" for name in ("status", "places", "totals"))


def settings(*cameras: Mapping[str, Any]) -> Settings:
    return load(None, {"device_id": "dev", "weights": {"path": "x"}, "cameras": list(cameras)})


class Broker:
    """What it was asked to forget; ``away``: it has not heard."""

    def __init__(self, *, away: bool = False) -> None:
        self.away, self.forgotten = away, []

    def state(self, topic: Topic, payload: bytes) -> None:
        assert (topic, payload) == (Topic(topic.name, 1, retain=True), b"")
        self.forgotten.append(topic.name)

    def holds(self, topic: Topic) -> bool:
        return self.away and topic.name in self.forgotten


def started(folder: Path, told: Settings, broker: Broker) -> ToldCameras:
    part = ToldCameras(broker, folder, lambda _, task: task())  # type: ignore[arg-type]
    part.open(told)
    part.tell()
    return part


def forgotten(folder: Path, told: Settings) -> list[str]:
    broker = Broker()
    started(folder, told, broker)
    return broker.forgotten


def test_a_camera_that_goes_while_the_daemon_is_down_takes_its_states_along(tmp_path: Path):
    assert forgotten(tmp_path, settings(WATCHED, YARD)) == []
    assert forgotten(tmp_path, settings(YARD)) == sorted([STATUS, PLACES, TOTALS])
    assert forgotten(tmp_path, settings(YARD)) == [], "once is enough"


def test_places_that_go_while_the_daemon_is_down_take_theirs_along(tmp_path: Path):
    forgotten(tmp_path, settings(WATCHED))
    assert forgotten(tmp_path, settings(GATE)) == [PLACES, TOTALS]


def test_what_a_broker_did_not_hear_before_the_end_is_said_again(tmp_path: Path):
    part = started(tmp_path, settings(GATE, YARD), Broker())
    away = Broker(away=True)
    part = started(tmp_path, settings(YARD), away)
    part.apply(settings(YARD))
    assert away.forgotten == [STATUS]
    assert forgotten(tmp_path, settings(YARD)) == [STATUS]


def test_a_camera_that_is_back_is_not_taken_off_any_more(tmp_path: Path):
    forgotten(tmp_path, settings(GATE, YARD))
    away = Broker(away=True)
    started(tmp_path, settings(YARD), away).apply(settings(GATE, YARD))
    assert forgotten(tmp_path, settings(GATE, YARD)) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"a": 1}', b"[1]", b'{"status": {}, "camera/+/status": {}, "a/#": {}}']
)
def test_a_damaged_file_takes_nothing_off(tmp_path: Path, content: bytes):
    (tmp_path / NAME).write_bytes(content)
    assert forgotten(tmp_path, settings(GATE)) == []
    assert json.loads((tmp_path / NAME).read_bytes()) == {STATUS: {}}


def left(station: Station) -> set[str]:
    """Topics below ``camera/`` that the broker has in store."""
    ears = station.listen()
    publish.single("vajra/test/swept", "{}", hostname="127.0.0.1", port=station.port)
    ears.until(lambda path, _: path == "swept")  # comes behind all that was retained
    found = {path for path, content, _ in ears.heard if content and path.startswith("camera/")}
    ears.close()
    return {path for path in found if path.rpartition("/")[2] in ("status", "places", "totals")}


def test_a_daemon_says_nothing_of_a_camera_that_was_removed_while_it_was_down(rebooted: Station):
    rebooted.sweep()
    rebooted.camera("gate", source=str(walk(rebooted.folder / "walk")), fps=2.0, zones=[LEFT])
    rebooted.camera("yard")
    rebooted.start()
    wait_for(lambda: left(rebooted) == {STATUS, PLACES, TOTALS, "camera/yard/status"})
    rebooted.stop()
    del rebooted.settings["cameras"]["gate"]
    rebooted.start()
    wait_for(lambda: left(rebooted) == {"camera/yard/status"})
