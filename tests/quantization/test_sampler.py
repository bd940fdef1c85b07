from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tiny
from colours import stored

from vajra_edge import state_file
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import CalibrationError, StoreError
from vajra_edge.pixel_format import USUAL, PixelFormat
from vajra_edge.quantization import calibration_set, camera_samples
from vajra_edge.quantization import camera_samples as module
from vajra_edge.quantization.camera_samples import FOLDER, FROZEN, Look, Sampler, frozen, wanted_set
from vajra_edge.types import Frame

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def frame(seed: int, camera: str = "door", noise: int = 0, minutes: float = 0.0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 230, (8, 9, 3), np.uint8)
    image = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    image += np.random.default_rng(99).integers(0, noise + 1, image.shape, np.uint8)
    return Frame(image, 0, NOON + timedelta(minutes=minutes), seed, camera)


def refused(monkeypatch: pytest.MonkeyPatch, file: Path, code: int = errno.EIO) -> None:
    """Let the system refuse to read one file."""
    read = state_file.read

    def guarded(path: Path, most_bytes: int = state_file.MOST_BYTES) -> bytes:
        if path == file:
            raise OSError(code, os.strerror(code), str(path))
        return read(path, most_bytes)

    monkeypatch.setattr(state_file, "read", guarded)


@pytest.fixture
def sampler(tmp_path: Path) -> Sampler:
    return Sampler(tmp_path / "cameras", most=4)


def test_a_kept_frame_is_a_jpeg_whose_name_describes_it(sampler: Sampler) -> None:
    assert sampler.offer(frame(1, "gate"), 5) is Look.KEPT
    (one,) = camera_samples.listed(sampler.folder)
    assert (one.number, one.camera, one.taken_at, one.boxes) == (0, "gate", NOON, 5)
    assert (sampler.folder / one.name).read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("pixels", PixelFormat)
def test_a_kept_frame_of_each_format_has_its_colours(sampler: Sampler, pixels: PixelFormat) -> None:
    plain = frame(1)
    given = replace(plain, image=stored(plain.image, pixels, USUAL), pixels=pixels)
    assert sampler.offer(given, 5) is Look.KEPT
    (one,) = camera_samples.listed(sampler.folder)
    shown = cv2.imread(str(sampler.folder / one.name))
    assert shown is not None
    assert shown.shape == plain.image.shape
    assert np.abs(shown.astype(int) - plain.image).mean() < 5
    assert sampler.offer(plain, 5) is Look.ALIKE


def test_a_scene_that_did_not_change_is_not_kept_again(sampler: Sampler) -> None:
    assert sampler.offer(frame(1), 5) is Look.KEPT
    assert sampler.offer(frame(1, noise=20), 5) is Look.ALIKE
    assert sampler.offer(frame(2), 5) is Look.KEPT


@pytest.mark.parametrize("level", [4, 128])
def test_noise_without_a_scene_is_never_wanted(sampler: Sampler, level: int) -> None:
    for seed in range(8):
        noise = np.random.default_rng(seed).normal(level, 20.0, (480, 640, 3)).clip(0, 255).astype(np.uint8)
        assert sampler.offer(Frame(noise, 0, NOON, seed, "night"), 0) is Look.FLAT
    assert not sampler.folder.exists()


def test_a_restart_knows_what_it_has(sampler: Sampler) -> None:
    sampler.offer(frame(1, noise=20), 5)
    again = Sampler(sampler.folder, most=4)
    assert again.offer(frame(1), 5) is Look.ALIKE
    assert again.offer(frame(2), 5) is Look.KEPT
    assert [one.number for one in camera_samples.listed(sampler.folder)] == [0, 1]


def test_a_damaged_image_goes_and_is_named(sampler: Sampler, caplog: pytest.LogCaptureFixture) -> None:
    sampler.offer(frame(1), 5)
    (one,) = camera_samples.listed(sampler.folder)
    (sampler.folder / one.name).write_bytes(b"\xff\xd8\xff")
    again = Sampler(sampler.folder, most=4)
    assert again.offer(frame(1), 5) is Look.KEPT
    assert f"{one.name} is damaged and deleted" in caplog.text


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM])
def test_an_image_that_we_cannot_read_for_now_stays_and_nothing_is_judged_without_it(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    for seed in range(3):
        sampler.offer(frame(seed, minutes=seed), 5)
    there = camera_samples.listed(sampler.folder)
    again = Sampler(sampler.folder, most=4)
    with monkeypatch.context() as disk:
        refused(disk, sampler.folder / there[1].name, code=code)
        for ask in (lambda: again.offer(frame(9, minutes=9), 5), again.freeze):
            with pytest.raises(StoreError, match=f"cannot be read: {os.strerror(code)}"):
                ask()
    assert camera_samples.listed(sampler.folder) == there
    assert "damaged" not in caplog.text
    assert again.offer(frame(1), 5) is Look.ALIKE


def test_a_bad_sector_costs_its_own_picture_and_not_the_set(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(4):
        sampler.offer(frame(seed, minutes=seed), 5)
    bad = sampler.folder / camera_samples.listed(sampler.folder)[3].name
    refused(monkeypatch, bad)
    again = Sampler(sampler.folder, most=4)
    assert [again.offer(frame(seed, minutes=seed), 5) for seed in (0, 4)] == [Look.ALIKE, Look.KEPT]
    assert [one.number for one in camera_samples.listed(sampler.folder)] == [0, 1, 2, 3, 4], "no number is given twice"
    assert again.unreadable == {bad.name}
    assert caplog.text.count(f"{bad.name} cannot be read and is left out: {os.strerror(errno.EIO)}") == 1
    images = again.freeze()
    assert bad not in [entry.path for entry in images.pictures.entries]
    assert len(images) == 4
    found = frozen(sampler.folder)
    assert found is not None
    assert (found.digest, len(found)) == (images.digest, 4)


def test_a_sector_that_went_bad_after_its_picture_was_seen_is_left_out_of_the_frozen_set(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        sampler.offer(frame(seed, minutes=seed), 5)
    bad = sampler.folder / camera_samples.listed(sampler.folder)[1].name
    refused(monkeypatch, bad)
    assert len(sampler.freeze()) == 3
    assert sampler.unreadable == {bad.name}
    assert bad.exists()


def test_a_picture_that_can_be_read_again_is_counted_again(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler.offer(frame(1), 5)
    again = Sampler(sampler.folder, most=4)
    with monkeypatch.context() as disk:
        refused(disk, sampler.folder / camera_samples.listed(sampler.folder)[0].name)
        assert again.offer(frame(2), 5) is Look.KEPT
        assert len(again.unreadable) == 1
    assert again.offer(frame(1), 5) is Look.ALIKE
    assert again.unreadable == frozenset()


def test_a_dark_frame_after_a_restart_finds_what_cannot_be_read(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler.offer(frame(1), 5)
    refused(monkeypatch, sampler.folder / camera_samples.listed(sampler.folder)[0].name)
    again = Sampler(sampler.folder, most=4)
    assert again.offer(Frame(np.full((96, 128, 3), 7, np.uint8), 0, NOON, 0, "yard"), 0) is Look.FLAT
    assert len(again.unreadable) == 1


@pytest.mark.parametrize("seen", [True, False], ids=["seen before", "after a restart"])
def test_more_than_a_fourth_unreadable_is_the_disk_and_waits(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    for seed in range(4):
        sampler.offer(frame(seed, minutes=seed), 5)
    there = camera_samples.listed(sampler.folder)
    for one in there[1:3]:
        refused(monkeypatch, sampler.folder / one.name)
    again = sampler if seen else Sampler(sampler.folder, most=4)
    for ask in (again.freeze, lambda: again.offer(frame(9, minutes=9), 5), again.freeze):
        with pytest.raises(StoreError, match=f"cannot be read: {os.strerror(errno.EIO)}"):
            ask()
    assert camera_samples.listed(sampler.folder) == there
    assert frozen(sampler.folder) is None


def test_pictures_that_are_deleted_during_freezing_make_no_set(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        sampler.offer(frame(seed, minutes=seed), 5)
    refused(monkeypatch, sampler.folder / camera_samples.listed(sampler.folder)[1].name, code=errno.ENOENT)
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        sampler.freeze()
    assert frozen(sampler.folder) is None


def test_an_image_that_its_owner_deletes_at_this_moment_is_no_trouble(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sampler.offer(frame(1), 5)
    refused(monkeypatch, sampler.folder / camera_samples.listed(sampler.folder)[0].name, code=errno.ENOENT)
    assert Sampler(sampler.folder, most=4).offer(frame(2), 5) is Look.KEPT
    assert "damaged" not in caplog.text


def test_in_a_full_folder_a_scene_with_more_objects_takes_the_place_of_its_neighbour(sampler: Sampler) -> None:
    looks = [sampler.offer(frame(seed, minutes=seed), boxes) for seed, boxes in enumerate((5, 5, 5, 5))]
    assert looks == [Look.KEPT] * 4
    assert sampler.offer(frame(4, minutes=3.5), 5) is Look.SPARE
    assert sampler.offer(frame(5, minutes=3.5), 9) is Look.KEPT
    there = camera_samples.listed(sampler.folder)
    assert [(one.number, one.boxes) for one in there] == [(0, 5), (1, 5), (2, 5), (4, 9)]
    assert len(list(sampler.folder.iterdir())) == 4


def test_a_lower_limit_is_reached_with_the_next_picture(sampler: Sampler) -> None:
    for seed in range(4):
        sampler.offer(frame(seed, minutes=seed), 5)
    assert Sampler(sampler.folder, most=2).offer(frame(9, minutes=60), 5) is Look.KEPT
    assert [one.number for one in camera_samples.listed(sampler.folder)][-1] == 4
    assert len(camera_samples.listed(sampler.folder)) == 2


def test_freezing_makes_a_set_that_no_longer_changes(sampler: Sampler) -> None:
    for seed in (1, 2, 3):
        sampler.offer(frame(seed), 5)
    images = sampler.freeze()
    assert len(images) == 3
    assert sampler.offer(frame(9), 5) is Look.FROZEN
    assert Sampler(sampler.folder, most=9).offer(frame(9), 5) is Look.FROZEN
    again = frozen(sampler.folder)
    assert again is not None
    assert again.digest == images.digest


def test_too_few_images_cannot_be_frozen(sampler: Sampler) -> None:
    sampler.offer(frame(1), 5)
    with pytest.raises(CalibrationError, match="fewer than the batch of 8"):
        sampler.freeze(batch=8)
    assert frozen(sampler.folder) is None


@pytest.mark.parametrize("content", ["{", "[]", "", "7"])
def test_a_damaged_list_says_how_to_go_on(sampler: Sampler, content: str) -> None:
    sampler.offer(frame(1), 5)
    (sampler.folder / FROZEN).write_text(content)
    with pytest.raises(CalibrationError, match=r"run 'vajra-edge calibration --delete' to collect anew"):
        frozen(sampler.folder)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_list_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    sampler = Sampler(tmp_path / FOLDER, most=4)
    sampler.offer(frame(1), 5)
    sampler.freeze()
    refused(monkeypatch, sampler.folder / FROZEN, code=code)
    with pytest.raises(CalibrationError, match=rf"frozen.json: {os.strerror(code)}; give the folder to") as caught:
        wanted_set(CalibrationSettings(), tmp_path, 1)
    assert "--delete" not in str(caught.value)


@pytest.fixture
def frozen_four(sampler: Sampler) -> list[Path]:
    for seed in range(4):
        sampler.offer(frame(seed, minutes=seed), 5)
    sampler.freeze()
    return [sampler.folder / one.name for one in camera_samples.listed(sampler.folder)]


def test_what_is_left_of_a_frozen_set_is_used(frozen_four: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    frozen_four[1].unlink()
    frozen_four[2].write_bytes(frozen_four[2].read_bytes()[:-100])
    left = frozen(frozen_four[0].parent)
    assert left is not None
    assert [entry.path for entry in left.pictures.entries] == [frozen_four[0], frozen_four[3]]
    assert len(list(left.inputs((64, 64)))) == 2
    assert "2 of the 4 frozen calibration images are missing, damaged or unreadable" in caplog.text
    assert left.source == "the device's cameras, 2 of 4 frozen images"


def test_a_lost_a_rotten_and_an_unreadable_image_make_no_other_set(
    frozen_four: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = frozen(frozen_four[0].parent)
    assert whole is not None
    assert whole.digest == calibration_set.of_files("the same", tuple(frozen_four)).digest
    found = []
    refused(monkeypatch, frozen_four[1])
    found.append(frozen(frozen_four[0].parent))
    frozen_four[1].unlink()
    found.append(frozen(frozen_four[0].parent))
    frozen_four[3].write_bytes(frozen_four[3].read_bytes()[:-100])
    found.append(frozen(frozen_four[0].parent))
    assert [(one.digest, len(one)) for one in found] == [(whole.digest, 3), (whole.digest, 3), (whole.digest, 2)]


def test_the_set_that_the_first_version_froze_is_used(tmp_path: Path) -> None:
    """Its list has names alone, and the names say nothing of time and boxes."""
    names = [f"{number:05d}-gate-{number:016x}.jpg" for number in range(4)]
    for seed, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), tiny.scene(seed=seed).image)
    (tmp_path / FROZEN).write_text(json.dumps(names))
    whole = frozen(tmp_path)
    assert whole
    assert [entry.path.name for entry in whole.pictures.entries] == names
    assert frozen(tmp_path).digest == whole.digest
    for name in names[1:]:
        (tmp_path / name).unlink()
    with pytest.raises(CalibrationError, match="1 of the 4 calibration images"):
        frozen(tmp_path)
    (tmp_path / FROZEN).write_text(json.dumps(["../secret.jpg", "00000-../../x-0123456789abcdef.jpg", 7]))
    with pytest.raises(CalibrationError, match="0 of the 0 calibration images"):
        frozen(tmp_path)


def test_less_than_half_of_a_frozen_set_is_said_and_not_used(frozen_four: list[Path]) -> None:
    for path in frozen_four[:3]:
        path.unlink()
    with pytest.raises(CalibrationError, match=r"1 of the 4 .* are left; restore them, or run 'vajra-edge calibration"):
        frozen(frozen_four[0].parent)


def test_an_image_that_is_damaged_before_freezing_is_not_listed(sampler: Sampler) -> None:
    for seed in range(3):
        sampler.offer(frame(seed, minutes=seed), 5)
    again = Sampler(sampler.folder, most=4)
    (sampler.folder / camera_samples.listed(sampler.folder)[0].name).write_bytes(b"")
    assert len(again.freeze()) == 2


def test_a_disk_that_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Sampler(tmp_path / "file" / "cameras", most=4).offer(frame(1), 5)


def test_a_disk_that_is_almost_full_is_left_to_others(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=(200 << 20)))
    with pytest.raises(StoreError, match="200 MiB are free, and images leave 256 to others; free space on that disk"):
        sampler.offer(frame(1), 5)
    monkeypatch.undo()
    assert sampler.offer(frame(1), 5) is Look.KEPT


def test_the_wanted_set_is_the_named_one_or_the_frozen_one(tmp_path: Path) -> None:
    settings = CalibrationSettings()
    assert wanted_set(settings, tmp_path, 1) is None
    sampler = Sampler(tmp_path / FOLDER, most=8)
    sampler.offer(frame(1), 5)
    assert wanted_set(settings, tmp_path, 1) is None
    images = sampler.freeze()
    found = wanted_set(settings, tmp_path, 1)
    assert found is not None
    assert found.digest == images.digest
    off = wanted_set(CalibrationSettings(cameras=False), tmp_path, 1)
    assert off is not None
    assert off.digest == images.digest, "the switch ends collecting, not the use of what was collected"
    named = wanted_set(CalibrationSettings(data=sampler.folder), tmp_path, 1)
    assert named is not None
