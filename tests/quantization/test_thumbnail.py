from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vajra_edge.quantization.camera_samples import LEAST_CONTRAST, NEW_LEVELS, contrast, of_file, shows_new, thumbnail


def scene(brightness: float = 1.0, person_px: int | None = None, height: int = 480, width: int = 640) -> np.ndarray:
    """A soft slope from left to right; a person, if there is one, is 60 pixels wide and 110 high."""
    slope = np.linspace(40, 160, width, dtype=np.float32)[None, :, None]
    image = np.broadcast_to(slope, (height, width, 3)) * brightness
    if person_px is not None:
        image = image.copy()
        image[200:310, person_px : person_px + 60] += 60
    return image.clip(0, 255).astype(np.uint8)


def noisy(image: np.ndarray, seed: int, levels: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0.0, levels, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def test_noise_of_a_night_camera_is_nothing_new():
    for picture in (scene(0.2), np.full((480, 640, 3), 12, np.uint8), np.full((480, 640, 3), 128, np.uint8)):
        seen = [thumbnail(noisy(picture, 0, 25.0))]
        assert not any(shows_new(thumbnail(noisy(picture, seed, 25.0)), seen) for seed in range(1, 20))


def test_a_person_in_a_large_picture_is_new():
    assert shows_new(thumbnail(noisy(scene(person_px=300), 1, 5.0)), [thumbnail(scene())])
    assert shows_new(thumbnail(scene(person_px=300)), [thumbnail(scene(person_px=400)), thumbnail(scene())])
    assert not shows_new(thumbnail(scene(person_px=302)), [thumbnail(scene(person_px=300))])


def test_exposure_that_breathes_is_nothing_new_and_dusk_is():
    assert not shows_new(thumbnail(scene() + np.uint8(20)), [thumbnail(scene())])
    assert shows_new(thumbnail(scene(0.5)), [thumbnail(scene())])


def test_the_first_picture_is_new():
    assert shows_new(thumbnail(scene()), [])


def test_noise_is_no_contrast():
    assert contrast(thumbnail(noisy(np.full((480, 640, 3), 100, np.uint8), 0, 25.0))) < LEAST_CONTRAST
    assert contrast(thumbnail(noisy(scene(0.2), 0, 5.0))) > LEAST_CONTRAST


@pytest.mark.parametrize("shape", [(480, 640), (1080, 1920), (100, 75)])
def test_a_stored_picture_has_the_thumbnail_of_its_frame(tmp_path: Path, shape: tuple[int, int]):
    image = noisy(scene(height=max(shape[0], 320), width=shape[1], person_px=5)[: shape[0]], 0, 10.0)
    path = tmp_path / "0.jpg"
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    stored = of_file(path)
    assert stored is not None
    assert np.abs(stored - thumbnail(image)).max() < NEW_LEVELS / 2


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0"])
def test_a_damaged_file_has_none(tmp_path: Path, content: bytes):
    (tmp_path / "0.jpg").write_bytes(content)
    assert of_file(tmp_path / "0.jpg") is None


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        of_file(tmp_path / "1.jpg")
