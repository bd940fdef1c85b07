from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny

from vajra_edge.build import reference_frames, worker
from vajra_edge.build.request import BuildRequest, weights_digest
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import DatasetError
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.quantization import camera_samples as quantization_camera_samples


def test_frames_come_from_the_folder_that_is_given(tmp_path: Path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), tiny.scene(seed=number).image)
    frames = reference_frames.frames_of(tmp_path)
    assert (len(frames.images), frames.source, frames.real) == (reference_frames.FRAMES, tmp_path.name, True)


def test_a_folder_without_images_is_an_error(tmp_path: Path):
    with pytest.raises(DatasetError):
        reference_frames.frames_of(tmp_path)


def test_frames_come_from_the_demos_clip_otherwise():
    frames = reference_frames.frames_of(None)
    assert (len(frames.images), frames.source) == (reference_frames.FRAMES, "clip.mp4")
    assert next(iter(frames.images)).shape == (576, 768, 3)


def test_without_the_demo_the_frames_are_noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(reference_frames.resources, "files", lambda package: tmp_path)
    frames = reference_frames.frames_of(None)
    assert not frames.real
    assert np.array_equal(next(iter(frames.images)), next(iter(reference_frames.frames_of(None).images)))


def test_a_demo_clip_that_cannot_be_decoded_costs_the_verdict_and_not_the_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "clip.mp4").write_bytes(b"no clip")
    monkeypatch.setattr(reference_frames.resources, "files", lambda package: tmp_path)
    assert not reference_frames.frames_of(None).real
    assert "plans are not judged" in caplog.text


def camera_samples(state_dir: Path, count: int) -> None:
    folder = state_dir / quantization_camera_samples.FOLDER
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:05}-gate-0123456789abcdef.jpg"), tiny.scene(32 * (number + 1), 1).image)


def test_the_newest_camera_samples_come_before_the_demos_clip(tmp_path: Path):
    camera_samples(tmp_path, reference_frames.FRAMES + 2)
    frames = reference_frames.frames_of(None, tmp_path)
    assert (frames.source, frames.real) == ("the device's cameras", True)
    assert [image.shape[0] // 32 for image in frames.images] == list(range(3, reference_frames.FRAMES + 3))


def test_too_few_camera_samples_are_no_evidence(tmp_path: Path):
    camera_samples(tmp_path, reference_frames.FRAMES - 1)
    assert reference_frames.frames_of(None, tmp_path).source == "clip.mp4"


def damage(folder: Path, *numbers: int) -> None:
    for number, content in zip(numbers, (b"", b"no picture", b"\xff\xd8\xff\xe0"), strict=False):
        (folder / f"{number:05}-gate-0123456789abcdef.jpg").write_bytes(content)


def test_a_damaged_camera_sample_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    camera_samples(tmp_path, reference_frames.FRAMES + 3)
    damage(tmp_path / quantization_camera_samples.FOLDER, 2, 5, 10)
    frames = reference_frames.frames_of(None, tmp_path)
    assert [image.shape[0] // 32 for image in frames.images] == [1, 2, 4, 5, 7, 8, 9, 10]
    assert [f"{number:05}-gate" in caplog.text for number in (2, 5, 10)] == [True] * 3
    assert "left out of the comparison" in caplog.text


def test_too_few_samples_that_can_be_read_leave_the_demos_clip(tmp_path: Path):
    camera_samples(tmp_path, reference_frames.FRAMES)
    damage(tmp_path / quantization_camera_samples.FOLDER, 7)
    assert reference_frames.frames_of(None, tmp_path).source == "clip.mp4"


def test_a_sample_that_is_replaced_while_a_build_runs_is_compared_all_the_same(tmp_path: Path):
    camera_samples(tmp_path, reference_frames.FRAMES)
    frames = reference_frames.frames_of(None, tmp_path)
    shutil.rmtree(tmp_path / quantization_camera_samples.FOLDER)
    assert len(list(frames.images)) == reference_frames.FRAMES


def test_with_the_cameras_switched_off_their_samples_count_only_once_they_are_frozen(tmp_path: Path):
    camera_samples(tmp_path, reference_frames.FRAMES)
    assert reference_frames.frames_of(None, tmp_path, cameras=False).source == "clip.mp4"
    (tmp_path / quantization_camera_samples.FOLDER / quantization_camera_samples.FROZEN).write_text("[]")
    assert reference_frames.frames_of(None, tmp_path, cameras=False).source == "the device's cameras"


@pytest.mark.parametrize("cameras", [True, False])
def test_samples_that_cannot_be_read_leave_the_demos_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cameras: bool
):
    camera_samples(tmp_path, reference_frames.FRAMES)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "glob", refuse)
        disk.setattr(Path, "is_file", refuse)
        found = reference_frames._recent(tmp_path / quantization_camera_samples.FOLDER, cameras=cameras)
    assert len(found) == 0
    assert "plans are not compared on the cameras' pictures" in caplog.text


@pytest.mark.parametrize(("cameras", "source"), [(True, "the device's cameras"), (False, "clip.mp4")])
def test_a_build_goes_on_without_what_is_damaged_and_asks_no_camera_that_is_switched_off(
    tmp_path: Path, cameras: bool, source: str
):
    camera_samples(tmp_path / "state", reference_frames.FRAMES + 1)
    damage(tmp_path / "state" / quantization_camera_samples.FOLDER, 4)
    weights = tmp_path / "tiny.onnx"
    weights.write_bytes(tiny.network())
    calibration = CalibrationSettings(cameras=cameras)
    request = BuildRequest(weights, weights_digest(weights), "onnxruntime", EngineSpec(), tmp_path / "state", 1 << 30)
    manifest = worker.run(replace(request, calibration=calibration, threads=1), lambda progress: None).manifest
    assert manifest.verify.figures.source == source


def test_an_image_behind_an_early_end_is_never_decoded(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "0.png"), tiny.scene().image)
    (tmp_path / "1.png").write_bytes(b"no picture")
    images = iter(reference_frames.frames_of(tmp_path).images)
    next(images)
    with pytest.raises(DatasetError, match=r"1\.png"):
        next(images)
