"""What a V4L2 camera hands out, good and broken, through the capture that reads a real one; the driver stands in."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

HERE = Path(__file__).parent
LOST = b"LOST"
"""See video_device.c."""

READ = """
import json, sys
from vajra_edge.capture.sources.v4l2 import Device
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import VajraError
told = {"seen": [], "error": ""}
device = Device(CameraSettings(id="gate", source="/dev/null", stall_s=float(sys.argv[1])))
try:
    device.open()
    while True:
        told["seen"].append(round(float(device.read().image.mean())))
except VajraError as error:
    told["error"] = str(error)
finally:
    device.close()
print(json.dumps({**told, "damaged": device.decode_errors}))
"""

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="absent here: gcc")


@dataclass(frozen=True)
class Told:
    """Brightness of each picture, how the reading ended, and how many frames were damaged."""

    seen: list[int]
    error: str
    damaged: int


@dataclass(frozen=True)
class StandIn:
    """A driver as a library, and a folder for its frames."""

    library: Path
    frames: Path

    def read(self, frames: list[bytes], *, form: str = "MJPG", stall_s: float = 10.0, **driver: str) -> Told:
        """What a process of its own reads until the camera ends."""
        for number, content in enumerate(frames):
            (self.frames / str(number)).write_bytes(content)
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.library),
            "PYTHONPATH": str(HERE.parents[1]),
            "VIDEO_FRAMES": str(self.frames),
            "VIDEO_FORMAT": form,
            **driver,
        }
        done = subprocess.run(
            [sys.executable, "-c", READ, str(stall_s)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return Told(**json.loads(done.stdout))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("driver") / "video_device.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", made, HERE / "video_device.c", "-ldl"], check=True)
    return made


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> StandIn:
    return StandIn(library, tmp_path)


def jpeg(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", image)[1].tobytes())


def grey(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, np.uint8)


NOISE = jpeg(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
GOOD = [jpeg(grey(20 * number)) for number in range(1, 8)]


def test_every_frame_of_a_good_camera_is_seen_once(driver: StandIn) -> None:
    told = driver.read(GOOD)
    assert told.seen == sorted(set(told.seen))
    assert told.seen[-4:] == [80, 100, 120, 140]
    assert told.damaged == 0


@pytest.mark.parametrize(
    "broken",
    [NOISE[: len(NOISE) // 2], NOISE[: len(NOISE) // 2] + b"\xff\xd9", NOISE[:100], b"\0" * 500, b"\xff\xd8", LOST],
    ids=["cut short", "cut short, with its end", "cut in its header", "zeros", "a mark alone", "lost on its way"],
)
def test_a_broken_frame_is_counted_and_neither_shown_nor_the_one_before_shown_again(
    driver: StandIn, broken: bytes
) -> None:
    told = driver.read([*GOOD[:3], broken, *GOOD[3:]])
    assert told.seen[-4:] == [80, 100, 120, 140]
    assert told.seen == sorted(set(told.seen)), "no picture twice, and none that is made up"
    assert told.damaged == 1


def test_what_webcams_add_to_good_frames_is_no_damage(driver: StandIn) -> None:
    """Fillings before and after the end mark, and no end mark at all: as many cameras send."""
    odd = [GOOD[3][:-2] + b"\0\0\0" + GOOD[3][-2:], GOOD[4] + b"\0" * 700, GOOD[5][:-2]]
    told = driver.read([*GOOD[:3], *odd, GOOD[6]])
    assert told.seen[-4:] == [80, 100, 120, 140]
    assert told.damaged == 0


def test_a_camera_that_sends_nothing_but_rubbish_is_lost_and_never_a_still_scene(driver: StandIn) -> None:
    told = driver.read([*GOOD[:3], *[b"\0" * 500] * 400], stall_s=0.5)
    assert set(told.seen) <= {20, 40, 60}
    assert "sent nothing that can be decoded for 0.5 s (500 bytes that are no JPEG" in told.error
    assert "check its cable" in told.error
    assert told.damaged > 1


def test_frames_without_compression_are_still_converted(driver: StandIn) -> None:
    levels = [bytes([level, 128]) * (64 * 48) for level in (60, 120, 180)]
    told = driver.read(levels, form="YUYV")
    assert told.seen[-2:] == sorted(told.seen[-2:])
    assert told.seen[-1] > 150
    assert told.damaged == 0


@pytest.mark.parametrize("form", ["H264", "Z16 "])
def test_a_node_of_other_formats_says_which(driver: StandIn, form: str) -> None:
    """The second node of many a webcam, and the depth of a stereo camera."""
    told = driver.read([b"\0" * 64], form=form)
    assert f"gives no video in a format that can be read, but {form.strip()}" in told.error
    assert "try the camera's other nodes" in told.error


def test_an_unplugged_camera_and_one_without_bandwidth_say_what_to_look_at(driver: StandIn) -> None:
    remedy = "gave no frame; check its cable and power; of several cameras on one USB controller, let some"
    assert remedy in driver.read(GOOD).error
    told = driver.read(GOOD, STREAMON_ERRNO=str(errno.ENOSPC))
    assert told.seen == []
    assert remedy in told.error
