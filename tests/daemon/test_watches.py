"""What is told, counted and kept of zones and lines, with made-up frames and clocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from vajra_edge import state_file
from vajra_edge.analytics.totals import Totals, Why
from vajra_edge.capture.camera import CameraChanged
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.clock import Moment
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.totals_files import TotalsFiles
from vajra_edge.daemon.watches import LEAST_BLIND_S, SAVE_S, TELL_S, Watches
from vajra_edge.errors import StoreError
from vajra_edge.mqtt.messages import Draft
from vajra_edge.mqtt.schema import EventMessage, PlacesMessage, TotalsMessage
from vajra_edge.mqtt.topics import Topic, Topics
from vajra_edge.types import Detections, Frame

NAMES = ("person", "car")
DOOR = {"name": "door", "corners": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}
STREET = {"name": "street", "start": [0, 0.5], "end": [1, 0.5]}
TEN = 1_800_000_000 // 3600 * 3600


def settings(**places: list[dict[str, Any]]) -> Settings:
    camera = {"id": "gate", "source": "x.mp4", **places}
    return load(None, {"weights": {"path": "x.onnx"}, "cameras": [camera]})


BOTH = settings(zones=[DOOR], lines=[STREET])


class Broker:
    """Takes the place of the publisher; checks everything against the schema."""

    def __init__(self) -> None:
        self.events: list[EventMessage] = []
        self.states: dict[str, Any] = {}

    def event(self, draft: Draft) -> None:
        self.events.append(EventMessage.model_validate_json(draft.numbered("e", len(self.events))))

    def state(self, topic: Topic, payload: bytes) -> None:
        assert topic.retain
        kind = {"places": PlacesMessage, "totals": TotalsMessage}[topic.name.rpartition("/")[2]]
        self.states[topic.name] = kind.model_validate_json(payload) if payload else None

    @property
    def places(self) -> PlacesMessage:
        return self.states["camera/gate/places"]

    @property
    def totals(self) -> TotalsMessage:
        return self.states["camera/gate/totals"]


class Device:
    """A state directory, and one daemon's watches after the other; time passes when it is told to."""

    def __init__(self, state_dir: Path, told: Settings = BOTH) -> None:
        self.state_dir, self.settings = state_dir, told
        self.ahead_s = self.wall_s = self.slept_s = 0.0
        self.tasks: list[Callable[[], None]] = []
        self.begin()

    def now_s(self) -> float:
        return 1000.0 + self.ahead_s

    def moment(self) -> Moment:
        boot_s = self.now_s() + self.slept_s
        return Moment("boot", boot_s, TEN + self.ahead_s + self.slept_s + self.wall_s, synchronised=True)

    def begin(self) -> None:
        self.broker = Broker()
        files = TotalsFiles(self.state_dir, lambda _, task: self.tasks.append(task))
        topics = Topics("vajra", "dev")
        self.watches = Watches(self.broker, topics, files, self.settings, self.moment, self.now_s)
        self.phase(CameraPhase.STREAMING)

    def disk(self) -> None:
        """Let the disk do what waits."""
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task()

    def passes(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.watches.tick(self.now_s())

    def phase(self, phase: CameraPhase) -> None:
        self.watches.changed(CameraChanged("gate", phase, "", attempts=0, retry_in_s=None))

    def sees(self, *feet: tuple[float, float], track: int = 1, class_id: int = 0) -> None:
        """A frame in which these stand, as shares of the picture."""
        boxes = [(100 * x - 5, 100 * y - 20, 100 * x + 5, 100 * y) for x, y in feet]
        count = len(boxes)
        found = Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.full(count, 0.9, np.float32),
            np.full(count, class_id, np.int32),
        )
        taken_at = datetime.fromtimestamp(self.moment().unix_s, timezone.utc)
        frame = Frame(np.zeros((100, 100, 3), np.uint8), int(self.now_s() * 1e9), taken_at, 0, "gate")
        self.watches.see(frame, found, np.arange(track, track + count), NAMES)

    def walks(self, *path: tuple[float, float], step_s: float = 0.5, **who: int) -> None:
        for feet in path:
            self.passes(step_s)
            self.sees(feet, **who)

    def crosses(self, track: int, class_id: int = 0) -> None:
        self.walks((0.8, 0.4), (0.8, 0.6), (0.8, 0.7), track=track, class_id=class_id)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path)
    device.disk()
    return device


def told(device: Device) -> list[tuple[str, str, int]]:
    return [(event.event, event.place, event.track_id) for event in device.broker.events]


def test_who_comes_stays_and_goes_is_told_and_counted(device: Device):
    device.walks(*[(0.2, 0.4)] * 4)
    device.passes(0.1)
    (zone,) = device.broker.places.zones
    assert (zone.present, zone.count, zone.entered) == (True, {"person": 1}, {"person": 1})
    device.walks(*[(0.8, 0.4)] * 8)
    device.passes(0.1)
    (zone,) = device.broker.places.zones
    assert (zone.present, zone.count, zone.entered) == (False, {}, {"person": 1})
    assert told(device) == [("enter", "door", 1), ("leave", "door", 1)]
    assert device.broker.events[1].dwell_s == pytest.approx(1.5, abs=0.2)


def test_feet_below_the_picture_stand_in_the_zone_that_ends_with_it(device: Device):
    device.walks(*[(0.2, 1.0)] * 4)
    device.passes(0.1)
    (zone,) = device.broker.places.zones
    assert (zone.present, zone.count) == (True, {"person": 1})


def test_a_crossing_has_a_direction_a_class_and_the_frames_time(device: Device):
    device.crosses(7, class_id=1)
    (event,) = device.broker.events
    assert (event.event, event.place, event.way, event.class_name, event.track_id) == (
        "cross",
        "street",
        "in",
        "car",
        7,
    )
    assert event.key == "dev/e/gate/events/0"
    assert event.camera == "gate"
    device.passes(0.1)
    (line,) = device.broker.places.lines
    assert (line.crossed_in, line.crossed_out) == ({"car": 1}, {})


def test_dwell_is_told_where_it_is_asked_for(tmp_path: Path):
    device = Device(tmp_path, settings(zones=[DOOR | {"dwell_s": 3.0}]))
    device.walks(*[(0.2, 0.4)] * 10)
    assert told(device) == [("enter", "door", 1), ("dwell", "door", 1)]


def test_a_lost_camera_clears_present_says_why_and_names_the_interval(device: Device):
    device.walks(*[(0.2, 0.4)] * 3)
    device.phase(CameraPhase.BACKOFF)
    device.passes(30.0)
    places = device.broker.places
    assert places.blind == "camera"
    assert places.zones[0].present is None
    assert device.broker.events[-1].event == "leave"
    assert device.broker.events[-1].reason == "camera"
    assert device.broker.totals.blind[-1].why == "camera", "it is named while it lasts"
    device.phase(CameraPhase.STREAMING)
    device.sees()
    device.passes(0.1)
    assert device.broker.places.blind == ""
    assert device.broker.places.zones[0].present is False
    assert device.broker.totals.blind[-1].length_s == pytest.approx(30.0, abs=1.0)


def test_frames_that_stop_coming_through_are_no_empty_scene(device: Device):
    device.walks(*[(0.2, 0.4)] * 3)
    device.passes(LEAST_BLIND_S + 1)
    assert (device.broker.places.blind, device.broker.places.zones[0].present) == ("frames", None)
    assert device.broker.totals.blind[-1].why == "frames"


def test_the_time_in_which_the_board_slept_is_named_though_the_clock_of_frames_stood_still(device: Device):
    device.walks(*[(0.2, 0.4)] * 4)
    device.passes(0.1)
    known = len(device.broker.totals.blind)
    device.slept_s = 7200.0
    device.sees((0.2, 0.4), track=9)  # by the first look frames come again
    device.passes(0.4)
    (interval,) = device.broker.totals.blind[known:]
    assert (interval.why, interval.length_s) == ("down", pytest.approx(7200.0, abs=1.0))
    assert told(device)[-1] == ("leave", "door", 1)
    assert device.broker.events[-1].reason == "down"
    device.walks(*[(0.2, 0.4)] * 2, track=9)
    device.passes(TELL_S)
    assert len(device.broker.totals.blind) > known
    assert sum(hour.seen_s for hour in device.broker.totals.hours) < 60.0


def test_a_slow_camera_is_not_blind_between_its_pictures(device: Device):
    device.walks(*[(0.2, 0.4)] * 8, step_s=10.0)
    blind = device.watches._watched["gate"].totals.blind
    device.walks(*[(0.2, 0.4)] * 8, step_s=10.0)
    assert device.watches._watched["gate"].totals.blind == blind


def test_a_frame_that_was_taken_before_the_camera_was_lost_ends_no_blindness(device: Device):
    device.walks(*[(0.2, 0.4)] * 3)
    device.phase(CameraPhase.BACKOFF)
    device.ahead_s -= 0.2
    device.sees((0.2, 0.4))
    assert device.watches._watched["gate"].blind is not None


def test_a_build_while_the_camera_streams_is_told_apart_from_a_camera_that_does_not(device: Device):
    device.phase(CameraPhase.BACKOFF)
    device.passes(10.0)
    device.phase(CameraPhase.STREAMING)
    device.passes(LEAST_BLIND_S + 1.0)
    device.passes(20.0)
    assert [blind.why for blind in device.broker.totals.blind] == ["camera", "frames"]


def test_totals_survive_a_restart_and_the_time_between_is_named(device: Device):
    device.crosses(1)
    device.watches.close()
    assert device.broker.places.blind == "down", "the broker keeps the last word"
    assert device.broker.places.zones[0].present is None
    device.disk()
    device.ahead_s += 100.0
    device.begin()
    device.disk()
    device.crosses(1)
    device.passes(TELL_S + 1)
    assert device.broker.places.lines[0].crossed_in == {"person": 2}
    (hour,) = device.broker.totals.hours
    assert hour.crossed_in == {"street": {"person": 2}}
    down = [blind for blind in device.broker.totals.blind if blind.why == "down"]
    assert [one.length_s for one in down] == [pytest.approx(100.0, abs=1.0)]


def test_twenty_kills_lose_no_more_than_the_intervals_that_are_named(tmp_path: Path):
    """What was counted since the newest write is lost with a kill, and lies in a blind interval."""
    device = Device(tmp_path)
    crossings: list[float] = []
    for life in range(20):
        device.disk()
        for track in range(3 + life % 3):
            device.crosses(track + 1)
            crossings.append(device.moment().unix_s)
            device.passes(1.1)
            device.sees()
            device.disk()
        device.ahead_s += 7.0
        device.tasks.clear()
        device.begin()
    device.disk()
    device.passes(0.1)
    totals = device.broker.totals
    counted = sum(sum(line.values()) for hour in totals.hours for line in hour.crossed_in.values())
    blind = [(one.begin.timestamp(), one.end.timestamp()) for one in totals.blind if one.why == "down"]
    unseen = sum(any(begin <= at <= end for begin, end in blind) for at in crossings)
    assert len(blind) == 20
    assert counted + unseen >= len(crossings), "a crossing is counted, or lies in an interval that is named"
    assert counted <= len(crossings)
    assert device.broker.places.lines[0].crossed_in["person"] == counted


def test_a_clock_set_back_by_a_year_loses_no_count(device: Device):
    device.crosses(1)
    device.passes(0.1)
    device.wall_s = -365 * 86_400
    device.crosses(2)
    device.passes(TELL_S + 1)
    hours = [(hour.hour.year, hour.crossed_in) for hour in device.broker.totals.hours]
    assert hours == [(2027, {"street": {"person": 1}}), (2026, {"street": {"person": 1}})]


def by_hour(device: Device) -> dict[float, dict[str, int]]:
    """Who went in, by the beginning of the hour that is said."""
    hours = device.broker.totals.hours
    return {hour.hour.timestamp(): hour.crossed_in.get("street", {}) for hour in hours if hour.crossed_in}


def test_a_crossing_is_of_the_hour_that_is_told_with_it_though_the_next_tick_is_in_another(device: Device):
    device.passes(3598.2)
    device.crosses(1)
    told_at = device.broker.events[-1].at.timestamp()
    device.passes(0.5)
    assert told_at < TEN + 3600 < device.moment().unix_s
    device.passes(TELL_S + 1)
    assert by_hour(device) == {TEN: {"person": 1}}


def test_a_crossing_is_of_the_clock_that_is_told_with_it_though_it_is_set_before_the_next_tick(device: Device):
    device.crosses(1)
    device.wall_s = -365 * 86_400
    device.passes(TELL_S + 1)
    assert by_hour(device) == {TEN: {"person": 1}}


def test_places_that_are_hardly_meant_are_told_and_watched_all_the_same(device: Device):
    assert device.watches.doubts == ""
    row_by_row = {"name": "hall", "corners": [[0, 0], [1, 0], [0, 1], [1, 1]]}
    device.watches.apply(settings(zones=[row_by_row]))
    assert device.watches.doubts.startswith("camera gate: zone hall crosses itself")
    device.walks(*[(0.5, 0.2)] * 4)
    device.passes(0.1)
    assert device.broker.places.zones[0].present
    device.watches.apply(
        settings(lines=[{**STREET, "name": f"l{i}", "start": [0, 1], "end": [1, 1]} for i in range(9)])
    )
    assert device.watches.doubts.count("lies along") == 3
    assert device.watches.doubts.endswith("; and 6 more")
    device.watches.apply(BOTH)
    assert device.watches.doubts == ""


def test_places_change_in_place_and_their_totals_stay(device: Device):
    device.crosses(1)
    device.watches.apply(settings(lines=[STREET], zones=[DOOR | {"name": "hall"}]))
    device.passes(0.1)
    assert [zone.name for zone in device.broker.places.zones] == ["hall"]
    assert device.broker.places.lines[0].crossed_in == {"person": 1}
    device.watches.apply(settings())
    assert device.broker.states == {"camera/gate/places": None, "camera/gate/totals": None}
    device.crosses(2)
    assert len(device.broker.events) == 1
    device.watches.apply(BOTH)
    device.disk()
    device.passes(0.1)
    assert device.broker.places.lines[0].crossed_in == {"person": 1}


def test_a_damaged_file_is_put_aside_and_the_count_begins_anew(tmp_path: Path):
    path = tmp_path / "totals" / "gate.json"
    path.parent.mkdir()
    path.write_bytes(b'{"schema": 1, "since"')
    device = Device(tmp_path)
    device.disk()
    device.crosses(1)
    device.passes(0.1)
    assert device.broker.places.lines[0].crossed_in == {"person": 1}
    assert path.with_suffix(".damaged").exists()


def test_a_disk_that_cannot_be_read_is_asked_again_and_nothing_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    device = Device(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr(state_file, "read", refused)
        with pytest.raises(StoreError):
            device.disk()
    device.crosses(1)
    device.passes(SAVE_S + 1)
    assert device.broker.places.lines[0].crossed_in == {"person": 1}, "who is where is told all the same"
    assert not (tmp_path / "totals" / "gate.json").exists()
    stored = replace(Totals.begin(device.moment()), counts={})
    TotalsFiles(tmp_path, lambda _, task: task()).write("gate", stored)
    device.disk()
    device.passes(SAVE_S + 1)
    device.disk()
    assert device.watches._watched["gate"].read
    assert Why.DOWN in [blind.why for blind in device.watches._watched["gate"].totals.blind]


def test_a_camera_without_places_costs_nothing_and_says_nothing(tmp_path: Path):
    device = Device(tmp_path, settings())
    device.crosses(1)
    device.passes(100.0)
    assert not device.broker.events
    assert not device.broker.states
    assert not device.tasks


def test_only_the_newest_totals_that_wait_are_written(tmp_path: Path):
    waiting: dict[str, Callable[[], None]] = {}
    files = TotalsFiles(tmp_path, waiting.__setitem__)
    now = Moment("b", 1.0, TEN, synchronised=True)
    files.write("gate", Totals.begin(now))
    files.write("gate", Totals.begin(replace(now, boot_s=2.0)))
    for task in waiting.values():
        task()
        task()
    assert orjson.loads((tmp_path / "totals" / "gate.json").read_bytes())["until"]["boot_s"] == 2.0
    assert [path.name for path in (tmp_path / "totals").iterdir()] == ["gate.json"]


def test_a_network_that_takes_longer_than_the_limit_is_slow_and_not_blind(device: Device):
    for _ in range(12):
        device.passes(3.0)
        device.ahead_s -= 3.0  # when the frame was taken that is through by now
        device.sees((0.2, 0.4))
        device.passes(3.0)
    assert device.watches._watched["gate"].blind is None
    assert device.broker.places.zones[0].present is True
