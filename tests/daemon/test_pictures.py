"""Snapshots and the thread that makes pictures."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from colours import MEANINGS, stored
from waiting import LIMIT_S, wait_for

from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.sample_collector import Collector
from vajra_edge.daemon.snapshots import Pictures, Snapshots
from vajra_edge.daemon.watchdog import Beats
from vajra_edge.mqtt.picture import Receipt, Snapshot
from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat
from vajra_edge.types import Detections, Frame


def settings(every_s: float | None = None, precision: str = "auto") -> Settings:
    camera = {"id": "gate", "source": "x.mp4", "snapshot_every_s": every_s}
    calibration = {"max_images": 8, "sample_s": 0.001}
    other = {"id": "yard", "source": "y.mp4"}
    engine = {"precision": precision}
    return load(
        None,
        {"weights": {"path": "x.onnx"}, "cameras": [camera, other], "calibration": calibration, "engine": engine},
    )


def frame(image: np.ndarray | None = None, camera: str = "gate") -> Frame:
    image = tiny.scene().image if image is None else image
    return Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), 0, camera)


def objects(count: int) -> Detections:
    """So many that the gate counts, and one that it does not."""
    confidence = np.array([0.9] * count + [0.2], np.float32)
    return Detections(np.zeros((count + 1, 4), np.float32), confidence, np.zeros(count + 1, np.int32))


def test_a_snapshot_is_due_at_the_cameras_own_interval_which_changes_in_place():
    snapshots = Snapshots(lambda snapshot: None)
    snapshots.apply(settings(10.0))
    assert [snapshots.due("gate", now_s) for now_s in (50.0, 50.1, 59.9, 60.1, 65.0)] == [True, 0, 0, True, 0]
    assert not snapshots.due("yard", 50.0)
    snapshots.apply(settings(4.0))
    assert snapshots.due("gate", 65.0)
    snapshots.apply(settings(None))
    assert not snapshots.due("gate", 1000.0)


def test_a_snapshot_is_the_frame_as_a_jpeg():
    sent: list[Snapshot] = []
    receipt, taken = Receipt(), frame()
    Snapshots(sent.append).send(taken, receipt)
    (snapshot,) = sent
    shown = cv2.imdecode(np.frombuffer(snapshot.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert (snapshot.camera, snapshot.taken_at, snapshot.frame_seq) == ("gate", taken.taken_at, taken.seq)
    assert snapshot.receipt is receipt
    assert np.abs(shown.astype(int) - tiny.scene().image).mean() < 5


@pytest.mark.parametrize(
    ("pixels", "meaning"), [(PixelFormat.BGRX, USUAL), *((PixelFormat.NV12, meaning) for meaning in MEANINGS)], ids=str
)
def test_a_snapshot_of_each_format_has_its_colours(tmp_path: Path, posted, pixels: PixelFormat, meaning: Colorimetry):
    """By way of the thread that makes pictures, from memory that is wanted back at once."""
    sent: list[Snapshot] = []
    image = np.full((96, 128, 3), (40, 90, 200), np.uint8)
    lent = replace(frame(stored(image, pixels, meaning)), pixels=pixels, colorimetry=meaning)
    pictures = pictures_of(tmp_path, posted, Snapshots(sent.append), settings(1000.0))
    pictures.see(lent, objects(0), Receipt())
    lent.image.fill(0)
    assert pictures.close(LIMIT_S)
    shown = cv2.imdecode(np.frombuffer(sent[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == image.shape
    assert np.abs(shown.astype(int) - image).max() <= 4


@pytest.fixture
def posted() -> queue.SimpleQueue[object]:
    return queue.SimpleQueue()


def pictures_of(folder: Path, posted: queue.SimpleQueue[object], snapshots: Snapshots, given: Settings) -> Pictures:
    made = Pictures(Collector(folder), snapshots, posted.put, given, Beats())
    made.start()
    return made


def test_the_frame_loop_never_waits_and_a_slow_disk_gathers_no_frames(tmp_path: Path, posted):
    busy, free, sent = threading.Event(), threading.Event(), []

    def slow(snapshot: Snapshot) -> None:
        busy.set()
        free.wait()
        sent.append(threading.current_thread().name)

    pictures = pictures_of(tmp_path, posted, Snapshots(slow), settings(0.0001))
    pictures.see(frame(), objects(6), Receipt())
    assert busy.wait(LIMIT_S)
    for _ in range(50):
        pictures.see(frame(), objects(6), Receipt())  # returns though nothing is written
    assert sent == []
    free.set()
    assert pictures.close(LIMIT_S)
    assert sent == ["pictures"]


def test_a_picture_that_was_asked_for_is_made_though_one_is_on_its_way(tmp_path: Path, posted):
    busy, free, sent = threading.Event(), threading.Event(), []

    def slow(snapshot: Snapshot) -> None:
        busy.set()
        free.wait()
        sent.append(snapshot)

    pictures = pictures_of(tmp_path, posted, Snapshots(slow), settings(1000.0))
    pictures.see(frame(), objects(6), Receipt())
    assert busy.wait(LIMIT_S)
    pictures.ask("gate")
    pictures.see(frame(), objects(6), Receipt())  # too soon: it must not be forgotten for that
    free.set()
    wait_for(lambda: sent)
    wanted = Receipt()

    def seen() -> bool:
        pictures.see(frame(), objects(6), wanted)
        return len(sent) == 2

    wait_for(seen)
    for _ in range(10):
        pictures.see(frame(), objects(6), Receipt())
    pictures.ask("yard")
    pictures.withdraw("yard")
    pictures.see(frame(camera="yard"), objects(6), Receipt())
    assert pictures.close(LIMIT_S)
    assert [(one.camera, one.asked) for one in sent] == [("gate", False), ("gate", True)]
    assert sent[1].receipt is wanted


def test_calibration_images_are_kept_and_their_end_is_posted(tmp_path: Path, posted):
    snapshots = Snapshots(lambda snapshot: None)
    pictures = pictures_of(tmp_path, posted, snapshots, settings(precision="int8"))
    seeds = itertools.count()

    def frozen() -> bool:
        """A frame that comes while one waits is not kept."""
        pictures.see(frame(tiny.scene(objects=8, seed=next(seeds)).image), objects(8), Receipt())
        return not posted.empty()

    wait_for(frozen)
    assert posted.get(timeout=LIMIT_S).frozen
    assert (pictures.collected.images, pictures.collected.boxes, pictures.collected.frozen) == (8, 64, True)
    assert pictures.close(LIMIT_S)


def test_a_picture_that_cannot_be_made_is_told_and_the_next_one_is_tried(tmp_path: Path, posted):
    sent = []
    snapshots = Snapshots(lambda snapshot: sent.append(snapshot.camera))
    pictures = pictures_of(tmp_path, posted, snapshots, settings(0.0001))
    pictures.see(frame(np.zeros((1, 70_000, 3), np.uint8)), objects(0), Receipt())
    failed = posted.get(timeout=LIMIT_S)
    assert failed.name == "publish a snapshot"
    assert failed.reason

    def seen() -> bool:
        """Not at once: the one before may not be out of the way."""
        pictures.see(frame(), objects(6), Receipt())
        return bool(sent)

    wait_for(seen)
    assert pictures.close(LIMIT_S)
    assert set(sent) == {"gate"}
