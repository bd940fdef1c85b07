"""Outputs between the frame loop, the supervisor and their channel: nothing is said of what nobody asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vajra_edge.config.settings import load
from vajra_edge.daemon import outputs as of_daemon
from vajra_edge.daemon.frigate_labels import NAME, FrigateLabels
from vajra_edge.daemon.outputs import BLIND_S, STATS_S, Outputs
from vajra_edge.outputs.sighted import Message
from vajra_edge.telemetry.status import CameraView, Status
from vajra_edge.types import Detections, Frame

FOUND = Detections(np.array([[0, 0, 4, 4]], np.float32), np.array([0.9], np.float32), np.array([0], np.int32))
TRACKS = np.array([7])


class Channel:
    """Does at once what it is asked for."""

    def __init__(self, *_: Any) -> None:
        self.said: list[Message] = []
        self.left = False
        self.trouble = ""

    def start(self) -> None:
        pass

    def do(self, task: Callable[[], list[Message]], *, is_frame: bool = False) -> None:
        self.said += task()

    def leave(self, task: Callable[[], list[Message]], _within_s: float) -> None:
        self.do(task)
        self.left = True

    def join(self, _timeout_s: float) -> None:
        pass

    def take(self, end: str) -> list[bytes]:
        """What was said on such topics since the last time."""
        told = [one.payload for one in self.said if one.path.endswith(end)]
        self.said = [one for one in self.said if not one.path.endswith(end)]
        return told


class Clock:
    now_s = 1000.0


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[Channel]:
    made: list[Channel] = []

    def make(*arguments: Any) -> Channel:
        made.append(Channel(*arguments))
        return made[-1]

    monkeypatch.setattr(of_daemon, "Channel", make)
    return made


def opened(*names: str, folder: Path = Path("/nowhere")) -> tuple[Outputs, Clock]:
    clock = Clock()
    labels = FrigateLabels(folder, lambda _, task: task() if folder.exists() else None)
    outputs = Outputs(lambda _camera: {7: ("door",)}, labels, lambda: clock.now_s)
    camera = {"id": "gate", "source": "/dev/video0", "track": True}
    outputs.apply(load(None, {"weights": {"path": "/x"}, "mqtt": {"outputs": list(names)}, "cameras": [camera]}))
    return outputs, clock


def frame(seq: int = 0) -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), time.monotonic_ns(), datetime.now(timezone.utc), seq, "gate")


def status(state: str) -> Status:
    at = datetime.now(timezone.utc)
    return Status("dev", "serving", "", at, 5.0, 1, cameras=(CameraView("gate", state, fps=4.0),))


def test_without_outputs_there_is_no_channel(channels: list[Channel]) -> None:
    outputs, _ = opened()
    outputs.see(frame(), FOUND, TRACKS, ("person",))
    outputs.tell(status("streaming"))
    outputs.close()
    assert channels == []
    assert outputs.troubles() == ()


def test_a_frame_is_said_by_those_outputs_that_are_on(channels: list[Channel]) -> None:
    outputs, _ = opened("deepstream")
    outputs.see(frame(), FOUND, None, ("person",))
    assert [one.path.endswith("/deepstream") for one in channels[0].said] == [True]
    both, _ = opened("frigate", "deepstream")
    both.see(frame(), FOUND, TRACKS, ("person",))
    assert len(channels[1].take("/deepstream")) == len(channels[1].take("/events")) == 1


def test_a_process_that_ended_while_somebody_was_there_is_followed_by_one_that_says_when_nobody_is(
    channels: list[Channel], tmp_path: Path
) -> None:
    outputs, _ = opened("frigate", folder=tmp_path)
    outputs.see(frame(), FOUND, TRACKS, ("person",))
    kept = (tmp_path / NAME).stat().st_ino
    outputs.see(frame(1), FOUND, TRACKS, ("person",))
    assert (tmp_path / NAME).stat().st_ino == kept, "what is known is not written again"
    outputs, _ = opened("frigate", folder=tmp_path)
    outputs.see(frame(), Detections.empty(), np.array([], np.int64), ("person",))
    assert channels[1].take("gate/person") == [b"0"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"cameras": {"gate": "person"}}', b'{"cameras": 3}'])
def test_a_damaged_file_of_labels_is_as_none(channels: list[Channel], tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    outputs, _ = opened("frigate", folder=tmp_path)
    outputs.see(frame(), FOUND, TRACKS, ("person",))
    assert channels[0].take("gate/person") == [b"1"]


def test_a_camera_that_is_lost_ends_its_objects_once_its_last_frames_are_through(channels: list[Channel]) -> None:
    outputs, clock = opened("frigate")
    outputs.see(frame(), FOUND, TRACKS, ("person",))
    channels[0].take("/events")
    outputs.tell(status("lost"))
    assert channels[0].take("/status/detect") == [b"offline"]
    assert channels[0].take("/events") == []
    clock.now_s += BLIND_S + 0.1
    outputs.tell(status("lost"))
    outputs.tell(status("lost"))
    assert len(channels[0].take("/events")) == 1


def test_a_camera_that_tracks_no_more_ends_its_objects(channels: list[Channel]) -> None:
    outputs, _ = opened("frigate")
    outputs.see(frame(), FOUND, TRACKS, ("person",))
    channels[0].take("/events")
    outputs.see(frame(1), FOUND, None, ("person",))
    assert len(channels[0].take("/events")) == 1


def test_statistics_come_every_minute_and_when_a_camera_changes(channels: list[Channel]) -> None:
    outputs, clock = opened("frigate")
    for state, passed_s, said in (("off", 0.0, 1), ("off", 1.0, 0), ("streaming", 1.0, 1), ("streaming", STATS_S, 1)):
        clock.now_s += passed_s
        outputs.tell(status(state))
        assert len(channels[0].take("/stats")) == said, (state, passed_s)


def test_troubles_of_the_channel_are_told(channels: list[Channel]) -> None:
    outputs, _ = opened("frigate")
    assert outputs.troubles() == ()
    channels[0].trouble = "outputs: refused"
    assert outputs.troubles() == ("outputs: refused",)
