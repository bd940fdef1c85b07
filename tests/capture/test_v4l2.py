"""V4L2 devices: what is asked of the driver, and what is said where none can be used."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import cv2
import pytest

from vajra_edge.capture.sources import registry
from vajra_edge.capture.sources.opencv import Capture
from vajra_edge.capture.sources.v4l2 import Device, ask_format
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError


class Driver(Capture):
    """A driver that writes down what it is asked, and gives a fixed size; stands for hardware no test machine has."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__("driver")
        self.asked: list[tuple[int, float]] = []
        self.given_wh = (width, height)

    def ask(self, number: int, value: float) -> None:
        self.asked.append((number, value))

    def size_wh(self) -> tuple[int, int]:
        return self.given_wh


def test_the_format_comes_first_and_the_drivers_queue_stays() -> None:
    driver = Driver(1280, 720)
    ask_format(driver, CameraSettings(id="gate", source="/dev/video0", width_px=1280, height_px=720, fps=30.0), "MJPG")
    assert driver.asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30.0),
    ]


def test_what_is_not_set_is_not_asked() -> None:
    driver = Driver(640, 480)
    ask_format(driver, CameraSettings(id="gate", source="/dev/video0"), None)
    assert driver.asked == []


@pytest.mark.parametrize(("width", "height", "warns"), [(1280, 720, False), (640, 480, True)])
def test_another_size_than_asked_for_is_said(
    width: int, height: int, caplog: pytest.LogCaptureFixture, *, warns: bool
) -> None:
    camera = CameraSettings(id="gate", source="/dev/video0", width_px=1280, height_px=720)
    with caplog.at_level(logging.WARNING):
        ask_format(Driver(width, height), camera, "YUYV")
    assert ("camera gate gives 640 x 480 pixels" in caplog.text) is warns


def test_a_node_that_is_no_camera_gives_no_video() -> None:
    """A character device without video behind it, as the second node of many cameras."""
    device = Device(CameraSettings(id="gate", source="/dev/null"))
    with pytest.raises(SourceError, match="/dev/null gives no video; end what else uses it"):
        device.open()
    device.close()


def test_a_device_that_is_unplugged_is_said() -> None:
    with pytest.raises(SourceError, match=r"/dev/video987 is not there; plug the camera in"):
        registry.make(CameraSettings(id="gate", source="/dev/video987"))


def test_a_plain_file_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    with pytest.raises(SourceError, match="is not there"):
        Device(CameraSettings(id="gate", source=str(tmp_path / "video0")))


@pytest.mark.parametrize(
    ("group", "mode", "remedy"),
    [
        (0, 0o600, "udev has not given it to the group video"),
        (44, 0o640, "udev has not given it to the group video"),
        (1, 0o660, "add the service's user to the group daemon"),
    ],
    ids=["just plugged in", "not writable", "another group"],
)
def test_who_may_not_open_a_device_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, group: int, mode: int, remedy: str
) -> None:
    known = Path.stat

    def its(path: Path, **kind: bool) -> os.stat_result:
        found = known(path, **kind)
        is_it = str(path) == "/dev/null"
        return os.stat_result((stat.S_IFCHR | mode, *found[1:5], group, *found[6:])) if is_it else found

    monkeypatch.setattr(Path, "stat", its)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SourceError, match=remedy):
        Device(CameraSettings(id="gate", source="/dev/null"))
