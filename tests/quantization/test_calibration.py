from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from vajra_edge.errors import CalibrationError
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.quantization.calibration_set import CalibrationSet, of_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    dice = np.random.default_rng(0)
    for at in range(12):
        cv2.imwrite(str(made / f"{at:02}.png"), dice.integers(0, 255, (24, 40, 3), np.uint8))
    return made


def test_each_image_is_what_the_network_gets_in_service(folder: Path) -> None:
    images = CalibrationSet.collect(folder)
    inputs = list(images.inputs((64, 96)))
    expected = Letterbox((64, 96)).blank(1)
    Letterbox((64, 96)).apply(cv2.imread(str(folder / "03.png")), expected[0])
    assert [image.shape for image in inputs] == [(1, 3, 64, 96)] * 12
    np.testing.assert_array_equal(inputs[3], expected)


def test_inputs_do_not_share_their_memory(folder: Path) -> None:
    first, second, *_ = CalibrationSet.collect(folder).inputs((64, 64))
    assert not np.shares_memory(first, second)


def test_a_fraction_is_spread_over_the_set(folder: Path) -> None:
    images = CalibrationSet.collect(folder, fraction=0.25)
    assert [entry.path.name for entry in images.pictures.entries] == ["00.png", "06.png", "11.png"]
    assert len(CalibrationSet.collect(folder, most=5)) == 5


def test_a_data_yaml_gives_its_val_split(folder: Path) -> None:
    yaml = folder.parent / "data.yaml"
    yaml.write_text("train: nowhere\nval: pictures\nnames: [person]\n")
    assert len(CalibrationSet.collect(yaml)) == 12


def test_a_video_gives_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for at in range(6):
        writer.write(np.full((48, 64, 3), 40 * at, np.uint8))
    writer.release()
    images = CalibrationSet.collect(path)
    assert len(list(images.inputs((32, 32)))) == 6
    assert images.digest != images.some(3).digest


def test_the_digest_follows_content_and_order(folder: Path) -> None:
    before = CalibrationSet.collect(folder).digest
    assert CalibrationSet.collect(folder).digest == before
    backwards = tuple(sorted(folder.iterdir(), reverse=True))
    assert of_files("x", backwards).digest != before
    cv2.imwrite(str(folder / "05.png"), np.zeros((24, 40, 3), np.uint8))
    assert CalibrationSet.collect(folder).digest != before


def test_renaming_the_folder_does_not_change_the_digest(folder: Path) -> None:
    before = CalibrationSet.collect(folder).digest
    moved = folder.rename(folder.with_name("moved"))
    assert CalibrationSet.collect(moved).digest == before


def test_fewer_images_than_the_batch_are_an_error(folder: Path) -> None:
    with pytest.raises(CalibrationError, match="12 calibration images, fewer than the batch of 16"):
        CalibrationSet.collect(folder, batch=16)


def test_fewer_than_recommended_are_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        CalibrationSet.collect(folder)
    assert "12 calibration images" in caplog.text
    assert "500 are recommended" in caplog.text


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="does not exist"):
        CalibrationSet.collect(tmp_path / "nothing")


def test_the_seventh_image_is_named_where_it_cannot_be_read(folder: Path) -> None:
    images = CalibrationSet.collect(folder)
    (folder / "06.png").write_bytes(b"no picture")
    with pytest.raises(CalibrationError, match=r"calibration image 7 of 12: .*06\.png"):
        list(images.inputs((64, 64)))


def test_a_file_that_vanishes_is_named(folder: Path) -> None:
    images = CalibrationSet.collect(folder)
    (folder / "06.png").unlink()
    with pytest.raises(CalibrationError, match=r"06\.png: No such file"):
        _ = images.digest


def test_a_disk_that_was_pulled_is_an_error_with_a_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(
        CalibrationError, match=r"calibration images: .*pictures: Input/output error; .*check that disk"
    ):
        CalibrationSet.collect(folder)
