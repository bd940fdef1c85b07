from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from vajra_edge.engine.sampler import FROZEN, NoSampler, Sampler, difference_hash, frozen, sampler_of, wanted_set
from vajra_edge.errors import CalibrationError, StoreError
from vajra_edge.frames import Frame
from vajra_edge.settings import CalibrationSettings


def frame(seed: int, camera: str = "door", noise: int = 0) -> Frame:
    coarse = np.random.default_rng(seed).integers(0, 230, (8, 9, 3), np.uint8)
    image = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    image += np.random.default_rng(99).integers(0, noise + 1, image.shape, np.uint8)
    return Frame(image, 0, datetime.now(timezone.utc), seed, camera)


@pytest.fixture
def sampler(tmp_path: Path) -> Sampler:
    return Sampler(tmp_path / "cameras", every_s=20.0, most=4)


def test_the_first_frame_is_kept_at_once(sampler: Sampler) -> None:
    path = sampler.offer(frame(1), 100.0)
    assert path is not None
    assert path.read_bytes()[:2] == b"\xff\xd8"


def test_the_next_is_kept_when_it_is_due(sampler: Sampler) -> None:
    taken = [sampler.offer(frame(seed), now_s) is not None for seed, now_s in ((1, 0), (2, 19.9), (3, 20), (4, 30))]
    assert taken == [True, False, True, False]


def test_cameras_have_their_own_time(sampler: Sampler) -> None:
    assert sampler.offer(frame(1, "door"), 0.0)
    assert sampler.offer(frame(2, "gate"), 1.0)


def test_a_scene_that_did_not_change_is_not_kept_again(sampler: Sampler) -> None:
    assert sampler.offer(frame(1), 0.0)
    assert sampler.offer(frame(1, noise=3), 100.0) is None
    assert sampler.offer(frame(2), 200.0)


def test_no_more_than_the_most_are_kept(sampler: Sampler) -> None:
    kept = [sampler.offer(frame(seed), 100.0 * seed) for seed in range(1, 8)]
    assert sum(path is not None for path in kept) == 4
    assert sampler.full


def test_a_restart_goes_on_where_it_was(sampler: Sampler) -> None:
    sampler.offer(frame(1), 0.0)
    again = Sampler(sampler.folder, every_s=20.0, most=4)
    assert len(again) == 1
    assert again.offer(frame(1), 1000.0) is None
    assert again.offer(frame(2), 2000.0)


def test_freezing_makes_a_set_that_no_longer_changes(sampler: Sampler) -> None:
    for seed in (1, 2, 3):
        sampler.offer(frame(seed), 100.0 * seed)
    images = sampler.freeze()
    assert len(images) == 3
    assert sampler.offer(frame(9), 9000.0) is None
    assert Sampler(sampler.folder, every_s=1.0, most=9).offer(frame(9), 9000.0) is None
    again = frozen(sampler.folder)
    assert again is not None
    assert again.digest == images.digest


def test_too_few_images_cannot_be_frozen(sampler: Sampler) -> None:
    sampler.offer(frame(1), 0.0)
    with pytest.raises(CalibrationError, match="fewer than the batch of 8"):
        sampler.freeze(batch=8)
    assert frozen(sampler.folder) is None


def test_deleting_starts_anew(sampler: Sampler) -> None:
    sampler.offer(frame(1), 0.0)
    sampler.freeze()
    sampler.delete()
    assert not sampler.folder.exists()
    assert sampler.offer(frame(1), 1.0)
    sampler.delete()
    sampler.delete()


def test_a_damaged_list_says_how_to_go_on(sampler: Sampler) -> None:
    sampler.offer(frame(1), 0.0)
    (sampler.folder / FROZEN).write_text("{")
    with pytest.raises(CalibrationError, match=r"delete .* to collect anew"):
        frozen(sampler.folder)


def test_a_disk_that_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Sampler(tmp_path / "file" / "cameras", every_s=1.0, most=4).offer(frame(1), 0.0)


def test_switched_off_nothing_is_kept(tmp_path: Path) -> None:
    off = sampler_of(CalibrationSettings(cameras=False), tmp_path)
    assert isinstance(off, NoSampler)
    off.offer(frame(1), 0.0)
    assert not list(tmp_path.iterdir())


def test_a_named_data_set_needs_no_cameras(tmp_path: Path) -> None:
    assert isinstance(sampler_of(CalibrationSettings(data=tmp_path), tmp_path), NoSampler)
    assert isinstance(sampler_of(CalibrationSettings(), tmp_path), Sampler)


def test_the_wanted_set_is_the_named_one_or_the_frozen_one(tmp_path: Path) -> None:
    settings = CalibrationSettings(sample_s=1.0)
    assert wanted_set(settings, tmp_path, 1) is None
    sampler = sampler_of(settings, tmp_path)
    assert isinstance(sampler, Sampler)
    sampler.offer(frame(1), 0.0)
    assert wanted_set(settings, tmp_path, 1) is None
    images = sampler.freeze()
    found = wanted_set(settings, tmp_path, 1)
    assert found is not None
    assert found.digest == images.digest
    named = wanted_set(CalibrationSettings(data=sampler.folder), tmp_path, 1)
    assert named is not None
    assert wanted_set(CalibrationSettings(cameras=False), tmp_path, 1) is None


def test_the_hash_forgives_noise_and_sees_change() -> None:
    same = difference_hash(frame(1).image) ^ difference_hash(frame(1, noise=3).image)
    other = difference_hash(frame(1).image) ^ difference_hash(frame(2).image)
    assert same.bit_count() < 4
    assert other.bit_count() > 15
