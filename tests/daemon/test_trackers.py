"""A tracker for each camera that asks for one, and what makes it begin anew."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from vajra_edge.capture.camera import CameraChanged
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.trackers import Trackers
from vajra_edge.types import Detections, Frame

ONE = Detections(np.array([[10, 10, 50, 110]], np.float32), np.full(1, 0.9, np.float32), np.zeros(1, np.int32))


def settings(**track: bool) -> Settings:
    cameras = [{"id": name, "source": "x.mp4", "track": wanted} for name, wanted in track.items()]
    return load(None, {"weights": {"path": "x.onnx"}, "cameras": cameras})


def frame(at_s: float, camera: str = "gate", size_wh: tuple[int, int] = (64, 48)) -> Frame:
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    return Frame(image, int(at_s * 1e9), datetime.now(timezone.utc), 0, camera)


def told(phase: CameraPhase, camera: str = "gate") -> CameraChanged:
    return CameraChanged(camera, phase, "", attempts=0, retry_in_s=None)


def heard(trackers: Trackers, frame: Frame) -> list[int] | None:
    numbers = trackers.see(frame, ONE)
    return None if numbers is None else numbers.tolist()


def test_each_camera_counts_for_itself_and_only_if_it_asks():
    trackers = Trackers(settings(gate=True, yard=True, dock=False))
    assert heard(trackers, frame(1.0)) == [1]
    assert heard(trackers, frame(1.0, "yard")) == [1]
    assert heard(trackers, frame(1.0, "dock")) is None
    assert heard(trackers, frame(1.1)) == [1]


@pytest.mark.parametrize("phase", [CameraPhase.BACKOFF, CameraPhase.OPENING, CameraPhase.CLOSED])
def test_a_camera_that_was_lost_shows_nobody_who_was_known(phase: CameraPhase):
    trackers = Trackers(settings(gate=True))
    assert heard(trackers, frame(1.0)) == [1]
    trackers.changed(told(phase))
    trackers.changed(told(CameraPhase.STREAMING))
    assert heard(trackers, frame(1.1)) == [2]


def test_the_last_frames_of_a_clip_go_on_with_its_tracks():
    trackers = Trackers(settings(gate=True))
    assert heard(trackers, frame(1.0)) == [1]
    trackers.changed(told(CameraPhase.ENDED))
    assert heard(trackers, frame(1.1)) == [1]


def test_another_size_of_the_picture_is_another_picture():
    trackers = Trackers(settings(gate=True))
    assert heard(trackers, frame(1.0)) == [1]
    assert heard(trackers, frame(1.1, size_wh=(128, 96))) == [2]
    assert heard(trackers, frame(1.2, size_wh=(128, 96))) == [2]


def test_off_and_on_again_gives_no_number_twice():
    trackers = Trackers(settings(gate=True))
    assert heard(trackers, frame(1.0)) == [1]
    trackers.apply(settings(gate=False))
    assert heard(trackers, frame(1.1)) is None
    trackers.apply(settings(gate=True))
    assert heard(trackers, frame(1.2)) == [2]
