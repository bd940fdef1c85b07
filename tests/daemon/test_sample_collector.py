from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from vajra_edge import state_file
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.sample_collector import Collector, ImagesChanged
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.collection import SPREAD, Collected
from vajra_edge.types import Frame

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
SPAN_S = SPREAD * 8 * 10.0
"""Of the settings below: from the first to the last picture."""


def settings(precision: str = "int8", batch: int = 1, **calibration: object) -> Settings:
    given = {"max_images": 8, "sample_s": 10.0, **calibration}
    return load(
        None,
        {"weights": {"path": "net.onnx"}, "engine": {"precision": precision, "batch": batch}, "calibration": given},
    )


def frame(seed: int, camera: str = "gate", at_s: float = 0.0) -> Frame:
    return Frame(tiny.scene(objects=8, seed=seed).image, 0, NOON + timedelta(seconds=at_s), seed, camera)


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    made = Collector(tmp_path)
    made.apply(settings())
    return made


def feed(collector: Collector, *seeds: int, boxes: int = 8, every_s: float = SPAN_S / 7) -> list[object]:
    """What each frame leads to; eight of them, one a seed, are spread as widely as is asked for."""
    return [collector.keep(frame(seed, at_s=seed * every_s), boxes) for seed in seeds]


def figures(collector: Collector) -> tuple[int, int, bool]:
    """Images, boxes, frozen."""
    seen = collector.collected
    assert seen is not None
    return seen.images, seen.boxes, seen.frozen


def test_a_camera_is_due_at_once_and_then_at_its_interval(collector: Collector):
    assert [collector.due("gate", now_s) for now_s in (100.0, 100.1, 109.9, 110.0, 110.1)] == [True, 0, 0, True, 0]
    assert collector.due("yard", 100.2)


def test_it_keeps_what_is_new_until_nothing_is_lacking_and_says_so_once(collector: Collector, tmp_path: Path):
    assert figures(collector) == (0, 0, False)
    assert feed(collector, *range(7)) == [None] * 7
    assert figures(collector) == (7, 56, False)
    assert feed(collector, 3, 4) == [None, None]
    assert figures(collector) == (7, 56, False), "what it has seen is nothing new"
    assert feed(collector, 7, 8, 9) == [ImagesChanged(frozen=True), None, None]
    assert figures(collector) == (8, 64, True)
    assert len(camera_samples.frozen(tmp_path / camera_samples.FOLDER)) == 8


def test_a_full_set_of_one_hour_is_not_frozen_but_thinned_until_it_shows_many(collector: Collector, tmp_path: Path):
    told = feed(collector, *range(40), every_s=10.0)
    assert told.count(ImagesChanged(frozen=True)) == 1
    assert told.index(ImagesChanged(frozen=True)) == SPAN_S / 10.0
    times_s = [(one.taken_at - NOON).total_seconds() for one in camera_samples.listed(tmp_path / camera_samples.FOLDER)]
    assert (len(times_s), times_s[0], times_s[-1]) == (8, 0.0, SPAN_S)
    assert np.diff(times_s).max() <= SPAN_S / 3


def test_empty_scenes_are_not_frozen_and_give_way_to_others(collector: Collector):
    assert set(feed(collector, *range(12), boxes=0)) == {None}
    assert figures(collector) == (8, 0, False)
    assert "waits for 30 boxes on those held out for the gate (0 so far)" in collector.collected.line()
    assert ImagesChanged(frozen=True) in feed(collector, *range(12, 24), boxes=20)


def test_a_restart_goes_on_where_it_was(collector: Collector, tmp_path: Path):
    feed(collector, 0, 1, 2)
    again = Collector(tmp_path)
    again.apply(settings())
    assert again.collected == collector.collected
    feed(again, 2, 3)
    assert figures(again) == (4, 32, False)
    assert again.collected.since == NOON
    assert feed(again, *range(4, 8))[-1] == ImagesChanged(frozen=True)


def test_deleting_the_images_starts_anew_and_is_told(collector: Collector, tmp_path: Path):
    feed(collector, *range(8))
    shutil.rmtree(tmp_path / camera_samples.FOLDER)
    assert feed(collector, 0) == [ImagesChanged(frozen=False)]
    assert figures(collector)[0] <= 1
    feed(collector, 1, 2)
    assert figures(collector) == (3, 24, False)


def test_one_image_deleted_from_a_frozen_set_is_told_once_and_not_replaced(collector: Collector, tmp_path: Path):
    feed(collector, *range(8))
    (tmp_path / camera_samples.FOLDER / camera_samples.listed(tmp_path / camera_samples.FOLDER)[3].name).unlink()
    assert feed(collector, 8, 9) == [ImagesChanged(frozen=True), None]
    assert figures(collector) == (7, 56, True)
    assert len(camera_samples.frozen(tmp_path / camera_samples.FOLDER)) == 7


def test_fewer_images_than_a_batch_are_never_enough_and_this_is_said(collector: Collector, tmp_path: Path):
    collector.apply(settings(batch=16))
    assert set(feed(collector, *range(10))) == {None}
    assert "max_images = 8 to be raised to the batch of 16" in collector.collected.line()
    assert camera_samples.frozen(tmp_path / camera_samples.FOLDER) is None


@pytest.mark.parametrize(
    "other",
    [settings("fp16"), settings("auto"), settings(cameras=False), settings(data="images")],
    ids=["fp16", "auto", "switched off", "images named"],
)
def test_nothing_is_kept_where_int8_does_not_ask_the_cameras(collector: Collector, tmp_path: Path, other: Settings):
    collector.apply(other)
    assert not collector.due("gate", 0.0)
    assert feed(collector, 0) == [None]
    assert collector.collected is None
    assert not (tmp_path / camera_samples.FOLDER).exists()
    collector.apply(settings())
    assert collector.due("gate", 0.0)


def test_a_camera_that_shows_nothing_is_named_until_it_does_again(collector: Collector):
    dark = Frame(np.full((96, 128, 3), 7, np.uint8), 0, NOON, 0, "yard")
    collector.keep(dark, 0)
    feed(collector, 1)
    assert figures(collector)[0] == 1
    assert "camera yard shows less than 4 grey levels of contrast" in collector.collected.line()
    collector.keep(frame(2, "yard"), 8)
    assert "contrast" not in collector.collected.line()


def test_a_full_disk_is_said_once_and_collecting_goes_on_when_there_is_space(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    feed(collector, 0)
    for free_mib in (100, 90, 80):
        monkeypatch.setattr(
            camera_samples.shutil, "disk_usage", lambda _, free=free_mib: SimpleNamespace(free=free << 20)
        )
        assert feed(collector, 1, 2) == [None, None]
    assert figures(collector)[0] == 1
    assert "100 MiB are free" in collector.collected.line()
    assert caplog.text.count("no calibration images are kept") == 1
    monkeypatch.undo()
    feed(collector, 3)
    assert figures(collector)[0] == 2
    assert "free" not in collector.collected.line()
    assert caplog.text.count("calibration images are kept again") == 1


def test_a_write_that_fails_is_said_once_a_reason(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(code: int) -> None:
        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(camera_samples.durable, "replace", refuse)
        assert feed(collector, 0, 1, 2) == [None] * 3

    fail(errno.ENOSPC)
    fail(errno.EROFS)
    assert caplog.text.count("no calibration images are kept") == 2
    assert "Read-only file system; mount that disk writable" in collector.collected.line()


@pytest.fixture
def unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Let the folder of images be root's own, or the service's again."""
    folder, iterdir, stat, locked = tmp_path / camera_samples.FOLDER, Path.iterdir, Path.stat, [False]

    def guarded(answer: Callable[..., object]) -> Callable[..., object]:
        def asked(path: Path, **named: object) -> object:
            if locked[0] and path.is_relative_to(folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return answer(path, **named)

        return asked

    monkeypatch.setattr(Path, "iterdir", guarded(iterdir))
    monkeypatch.setattr(Path, "stat", guarded(stat))
    return lambda lock: locked.__setitem__(0, lock)


def test_a_folder_that_cannot_be_read_at_the_start_is_a_note_until_it_can(
    collector: Collector, tmp_path: Path, unreadable, caplog: pytest.LogCaptureFixture
):
    feed(collector, *range(8))
    unreadable(True)
    again = Collector(tmp_path)
    again.apply(settings())
    note = "cameras cannot be read: Permission denied"
    assert note in again.collected.line()
    assert feed(again, 0, 1) == [None, None]
    assert note in again.collected.line()
    assert caplog.text.count("no calibration images are kept") == 1
    unreadable(False)
    assert feed(again, 0) == [ImagesChanged(frozen=True)], "the set was there all the time"
    assert "read" not in again.collected.line()


def test_a_folder_that_can_be_read_again_and_not_be_written_is_said_with_the_new_reason_until_it_can(
    collector: Collector, unreadable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    feed(collector, 0)
    unreadable(True)
    feed(collector, 1)
    unreadable(False)
    with monkeypatch.context() as disk:
        disk.setattr(camera_samples.durable, "replace", _denied)
        for seed in (1, 0, 1, 0):
            feed(collector, seed)
            assert "cameras cannot be written: Permission denied" in collector.collected.line(), "a known scene too"
    assert caplog.text.count("no calibration images are kept") == 2
    assert "kept again" not in caplog.text
    feed(collector, 1)
    assert collector.collected.notes == ()
    assert caplog.text.count("kept again") == 1


def _denied(*_: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_folder_that_cannot_be_read_for_a_while_is_no_other_set(collector: Collector, unreadable):
    feed(collector, *range(8))
    unreadable(True)
    assert feed(collector, 9) == [None]
    assert figures(collector) == (8, 64, True)
    unreadable(False)
    assert feed(collector, 9) == [None]


def test_a_bad_sector_is_said_and_the_set_is_completed_without_its_picture(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    feed(collector, *range(5))
    folder, read = tmp_path / camera_samples.FOLDER, state_file.read
    bad = folder / camera_samples.listed(folder)[1].name

    def guarded(path: Path, most_bytes: int = state_file.MOST_BYTES) -> bytes:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path, most_bytes)

    monkeypatch.setattr(state_file, "read", guarded)
    again = Collector(tmp_path)
    again.apply(settings(batch=8))
    assert feed(again, 5, 6, 7) == [None] * 3, "seven that can be read are no batch of eight"
    assert figures(again) == (7, 56, False)
    assert "; 1 more cannot be read and is left out" in again.collected.line()
    assert feed(again, 8) == [ImagesChanged(frozen=True)]
    assert (len(camera_samples.frozen(folder)), bad.exists()) == (8, True)
    assert again.collected.notes == ()
    assert feed(again, 9) == [None]


def test_the_same_settings_again_change_nothing(collector: Collector):
    assert collector.due("gate", 0.0)
    collector.apply(settings())
    assert not collector.due("gate", 1.0)


def test_the_line_says_what_there_is_and_what_is_awaited():
    seen = Collected(40, 512, boxes=90, since=NOON, lacking=("64 images", "pictures of 11.4 hours (2.0 so far)"))
    assert seen.line() == (
        "collecting 40 of 512 calibration images for int8, 90 boxes since 2026-11-23 12:00 UTC; "
        "waits for 64 images and pictures of 11.4 hours (2.0 so far)"
    )
    assert replace(seen, images=0, since=None, lacking=()).line() == "collecting 0 of 512 calibration images for int8"
