"""Who asked for a snapshot hears of the very one that was sent, or why none was."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.events import Job
from vajra_edge.daemon.picture_requests import WITHIN_S, PictureRequests
from vajra_edge.daemon.state_machine import Phase, State
from vajra_edge.errors import ControlError
from vajra_edge.mqtt.picture import SnapshotSent
from vajra_edge.telemetry.status import CameraView

SERVED = State(Phase.SERVING, wanted="A", serving=Job(0, "A"))
TOLD = {"key": "dev/e1/gate/7"}


class Caller:
    who, may_adopt = "somebody", False

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def accepted(self, content):
        raise AssertionError("it is not long")

    def progress(self, content):
        raise AssertionError("it is not long")

    def done(self, content):
        self.heard.append(content)

    def error(self, reason):
        self.heard.append(reason)


class Maker:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, camera):
        self.asked.append(camera)

    def withdraw(self, camera):
        self.asked.remove(camera)


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def requests(maker: Maker) -> PictureRequests:
    return PictureRequests(maker)


def settings(*, cameras: bool = True) -> Settings:
    camera = {"source": "x.mp4"}
    known = [{"id": "gate", **camera}, {"id": "yard", **camera}, {"id": "cellar", "enabled": False, **camera}]
    return load(None, {"weights": {"path": "x.onnx"}, "cameras": known if cameras else []}, {})


def views() -> list[CameraView]:
    return [CameraView("gate", "lost", "it does not answer"), CameraView("yard", "streaming")]


def test_everybody_who_waits_for_a_camera_hears_of_its_picture_once(requests: PictureRequests, maker: Maker):
    first, second, other = Caller(), Caller(), Caller()
    for caller, camera in ((first, "gate"), (second, "gate"), (other, "yard")):
        requests.add(caller, {"camera": camera}, settings(), 0.0)
    assert maker.asked == ["gate", "gate", "yard"]
    for _ in range(2):
        requests.sent(SnapshotSent("gate", TOLD))
    requests.look(SERVED, views, 2 * WITHIN_S)
    assert (first.heard, second.heard) == ([TOLD], [TOLD])
    assert len(other.heard) == 1


@pytest.mark.parametrize(
    ("s", "camera", "words"),
    [
        (SERVED, "gate", "it is lost: it does not answer"),
        (SERVED, "yard", "it is streaming"),
        (State(Phase.BLOCKED, reason="no weights"), "yard", "no plan serves: no weights"),
    ],
)
def test_who_waits_for_long_hears_why_and_nothing_is_made_for_him_later(
    requests: PictureRequests, maker: Maker, s: State, camera: str, words: str
):
    caller, late = Caller(), Caller()
    requests.add(caller, {"camera": camera}, settings(), 0.0)
    requests.add(late, {"camera": camera}, settings(), 5.0)
    requests.look(s, views, WITHIN_S)
    assert caller.heard == []
    requests.look(s, views, WITHIN_S + 0.1)
    (told,) = caller.heard
    assert f"no picture of camera {camera} was sent within 10 s: {words}; ask again" in told
    assert maker.asked == [camera] * 2, "another waits for it still"
    requests.look(s, views, WITHIN_S + 5.1)
    assert len(late.heard) == 1
    assert maker.asked == [camera]


def test_a_camera_that_was_taken_out_meanwhile_is_said_to_be(requests: PictureRequests):
    caller = Caller()
    requests.add(caller, {"camera": "gate"}, settings(), 0.0)
    requests.look(SERVED, list, WITHIN_S + 0.1)
    assert "it was taken out of the settings" in caller.heard[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "snapshot takes camera, the id of one; use one of gate, yard"),
        ({"camera": "attic"}, "there is no camera 'attic'; use one of gate, yard"),
        ({"camera": ["gate"]}, "there is no camera"),
        ({"camera": "../gate"}, "there is no camera '../gate'"),
        ({"camera": "cellar"}, "camera cellar is off"),
    ],
)
def test_only_a_camera_that_is_on_may_be_named(requests: PictureRequests, maker: Maker, fields: Any, words: str):
    with pytest.raises(ControlError, match=re.escape(words)):
        requests.add(Caller(), fields, settings(), 0.0)
    assert maker.asked == []


def test_a_device_without_cameras_says_so(requests: PictureRequests):
    with pytest.raises(ControlError, match="no camera is on"):
        requests.add(Caller(), {"camera": "gate"}, settings(cameras=False), 0.0)
