from __future__ import annotations

import os
import queue
from pathlib import Path

import cv2
import pytest
import tiny
from waiting import LIMIT_S

from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.calibration_images import LOOK_S, ImagesMoved, ImageWatch, look
from vajra_edge.quantization import camera_samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "mine"
    (made / "deep").mkdir(parents=True)
    for seed in range(3):
        cv2.imwrite(str(made / "deep" / f"{seed}.png"), tiny.scene(seed=seed).image)
    return made


def settings(precision: str = "int8", **calibration: object) -> Settings:
    given = {"weights": {"path": "net.onnx"}, "engine": {"precision": precision}, "calibration": calibration}
    return load(None, given)


def test_a_new_a_rewritten_and_a_deleted_image_look_different(folder: Path, tmp_path: Path):
    named = settings(data=str(folder)).calibration
    looks = [look(named, tmp_path)]
    cv2.imwrite(str(folder / "deep" / "9.png"), tiny.scene(seed=9).image)
    looks.append(look(named, tmp_path))
    (folder / "deep" / "9.png").write_bytes(b"damaged")
    looks.append(look(named, tmp_path))
    (folder / "deep" / "9.png").unlink()
    assert look(named, tmp_path) == looks[0]
    assert len(set(looks)) == 3


def test_images_that_are_not_there_look_like_the_reason(tmp_path: Path):
    assert "does not exist" in look(settings(data=str(tmp_path / "nothing")).calibration, tmp_path)


def test_the_cameras_own_images_are_looked_at_where_none_are_named(tmp_path: Path):
    cameras = settings().calibration
    before = look(cameras, tmp_path)
    (tmp_path / camera_samples.FOLDER).mkdir(parents=True)
    (tmp_path / camera_samples.FOLDER / camera_samples.FROZEN).write_bytes(b"[]")
    assert look(cameras, tmp_path) != before


def told(background: Background, inbox: queue.SimpleQueue[object]) -> list[object]:
    """What the background thread posted until now."""
    background.do("mark", lambda: "end")
    return list(iter(lambda: inbox.get(timeout=LIMIT_S), "end"))


def test_a_change_counts_once_it_has_settled(folder: Path, tmp_path: Path):
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    background = Background(inbox.put)
    background.start()
    images, asked = ImageWatch(background, tmp_path), settings(data=str(folder))
    images.used(images.look(asked), 0.0)
    for number in range(1, 4):
        images.tick(asked, number * LOOK_S)
    assert told(background, inbox) == []
    os.utime(folder / "deep" / "0.png", (1.0, 1.0))
    images.tick(asked, 4 * LOOK_S)
    assert told(background, inbox) == [], "perhaps more are being copied"
    images.tick(asked, 4 * LOOK_S + 1)
    assert told(background, inbox) == [], "not yet"
    images.tick(asked, 5 * LOOK_S)
    assert told(background, inbox) == [ImagesMoved()]
    images.used(images.look(asked), 5 * LOOK_S)
    images.tick(asked, 6 * LOOK_S)
    images.tick(asked, 7 * LOOK_S)
    assert told(background, inbox) == []
    assert background.close(LIMIT_S)


def test_nothing_is_looked_at_where_int8_is_not_asked_for(tmp_path: Path):
    images = ImageWatch(Background(lambda _: None), tmp_path)
    assert images.look(settings("fp16")) is None
