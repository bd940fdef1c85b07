from __future__ import annotations

import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import tiny

from vajra_edge.engine import sampler
from vajra_edge.errors import CalibrationError
from vajra_edge.frames import Frame
from vajra_edge.service import collector as module
from vajra_edge.service.collector import Collected, Collector, ImagesChanged
from vajra_edge.settings import Settings, load


def settings(precision: str = "int8", batch: int = 1, **calibration: object) -> Settings:
    given = {"max_images": 8, "sample_s": 10.0, **calibration}
    return load(
        None,
        {"weights": {"path": "net.onnx"}, "engine": {"precision": precision, "batch": batch}, "calibration": given},
    )


def frame(seed: int, camera: str = "gate") -> Frame:
    image = tiny.scene(objects=8, seed=seed).image
    return Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), seed, camera)


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    made = Collector(tmp_path)
    made.apply(settings())
    return made


def feed(collector: Collector, *seeds: int) -> list[object]:
    """What each frame leads to."""
    return [collector.keep(frame(seed), 8) for seed in seeds]


def test_a_camera_is_due_at_once_and_then_at_its_interval(collector: Collector):
    assert [collector.due("gate", now_s) for now_s in (100.0, 100.1, 109.9, 110.0, 110.1)] == [True, 0, 0, True, 0]
    assert collector.due("yard", 100.2)


def test_it_keeps_what_is_new_until_there_are_enough_and_says_so_once(collector: Collector, tmp_path: Path):
    assert collector.collected == Collected(0, 8, frozen=False)
    assert feed(collector, *range(7)) == [None] * 7
    assert collector.collected == Collected(7, 8, frozen=False)
    assert feed(collector, 3, 4) == [None, None]
    assert collector.collected == Collected(7, 8, frozen=False), "what it has seen is nothing new"
    assert feed(collector, 7, 8, 9) == [ImagesChanged(frozen=True), None, None]
    assert collector.collected == Collected(8, 8, frozen=True)
    assert len(sampler.frozen(tmp_path / sampler.FOLDER)) == 8


def test_a_restart_goes_on_where_it_was(collector: Collector, tmp_path: Path):
    feed(collector, 0, 1, 2)
    again = Collector(tmp_path)
    again.apply(settings())
    assert again.collected == Collected(3, 8, frozen=False)
    feed(again, 2, 3)
    assert again.collected == Collected(4, 8, frozen=False)


def test_deleting_the_images_starts_anew_and_is_told(collector: Collector, tmp_path: Path):
    feed(collector, *range(8))
    shutil.rmtree(tmp_path / sampler.FOLDER)
    assert feed(collector, 0) == [ImagesChanged(frozen=False)]
    assert collector.collected == Collected(1, 8, frozen=False)


def test_a_scene_that_shows_nothing_new_is_done_with_fewer(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(module, "ENOUGH", 3)
    told = feed(collector, *(seed % 3 for seed in range(module.PATIENCE * 8)))
    assert told[:-1] == [None] * (module.PATIENCE * 8 - 1)
    assert told[-1] == ImagesChanged(frozen=True)
    assert len(sampler.frozen(tmp_path / sampler.FOLDER)) == 3


def test_fewer_images_than_a_batch_are_never_enough(collector: Collector, tmp_path: Path):
    collector.apply(settings(batch=16))
    with pytest.raises(CalibrationError, match="fewer than the batch of 16"):
        feed(collector, *range(8))
    assert sampler.frozen(tmp_path / sampler.FOLDER) is None


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
    assert not (tmp_path / sampler.FOLDER).exists()
    collector.apply(settings())
    assert collector.due("gate", 0.0)


def test_a_camera_that_shows_nothing_is_named_until_it_does_again(collector: Collector):
    dark = Frame(np.full((96, 128, 3), 7, np.uint8), 0, datetime.now(timezone.utc), 0, "yard")
    collector.keep(dark, 0)
    feed(collector, 1)
    assert collector.collected == Collected(1, 8, frozen=False, flat=("yard",))
    assert "camera yard shows less than 4 grey levels of contrast" in collector.collected.line()
    collector.keep(frame(2, "yard"), 8)
    assert collector.collected == Collected(2, 8, frozen=False)


def test_the_same_settings_again_change_nothing(collector: Collector):
    assert collector.due("gate", 0.0)
    collector.apply(settings())
    assert not collector.due("gate", 1.0)
