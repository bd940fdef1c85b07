"""Folders of images."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hostile_images import jpeg_claiming, png_of
from photos import encoded, texture
from pictures import number_of, picture

from vajra_edge.capture.sources import base, registry
from vajra_edge.capture.sources.folder import read_image
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.image_file import UnusableImage


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    (tmp_path / "readme.txt").write_text("not an image", encoding="utf-8")
    return tmp_path


def opened(path: Path, **settings: object) -> base.Source:
    folder = registry.make(CameraSettings.model_validate({"id": "gate", "source": str(path), **settings}))
    folder.open()
    return folder


def read_all(folder: base.Source) -> list[base.RawFrame]:
    pictures = []
    while (item := folder.read()) is not None:
        pictures.append(item)
    return pictures


def test_images_come_in_the_order_of_their_names_and_end(photos: Path) -> None:
    folder = opened(photos, fps=4.0)
    pictures = read_all(folder)
    assert [number_of(item.image) for item in pictures] == [0, 1, 2]
    assert [item.position_s for item in pictures] == [0.0, 0.25, 0.5]
    assert folder.read() is None
    folder.close()


def test_a_loop_goes_on_along_its_time_line(photos: Path) -> None:
    folder = opened(photos, fps=2.0, loop=True)
    pictures = [folder.read() for _ in range(7)]
    assert [number_of(item.image) for item in pictures if item] == [0, 1, 2, 0, 1, 2, 0]
    assert [item.position_s for item in pictures if item] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def test_a_single_image_is_a_folder_of_one(photos: Path) -> None:
    assert len(read_all(opened(photos / "1.png"))) == 1


def test_grey_and_16_bit_images_become_bgr(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((8, 8, 3), 7 * 256, np.uint16))
    assert [item.image.shape for item in read_all(opened(tmp_path))] == [(8, 8, 3), (8, 8, 3)]


def test_what_cannot_be_decoded_is_counted_and_warned_of_once(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "0a.jpg").write_bytes(b"")
    (photos / "0b.jpg").write_bytes(os.urandom(1000))
    (photos / "0c.png").write_bytes((photos / "1.png").read_bytes()[:40])
    folder = opened(photos)
    with caplog.at_level(logging.WARNING):
        assert [number_of(item.image) for item in read_all(folder)] == [0, 1, 2]
    assert folder.decode_errors == 3
    assert [record.message for record in caplog.records] == [
        f"{photos / '0a.jpg'}: an empty file; replace it; skipped, further ones of the kind are only counted"
    ]


def test_pictures_whose_end_is_missing_are_counted_and_the_kind_is_named(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = encoded(texture())
    for number, share in enumerate((0.3, 0.6, 0.9)):
        (photos / f"0{number}.jpg").write_bytes(content[: int(len(content) * share)])
    (photos / "0z.jpg").write_bytes(b"")
    folder = opened(photos)
    with caplog.at_level(logging.WARNING):
        assert len(read_all(folder)) == 3
    assert folder.decode_errors == 4
    named = [record.message.split(";")[0].removeprefix(f"{photos}/") for record in caplog.records]
    assert named == [
        "00.jpg: the end of the file is missing, part of the picture is grey",
        "0z.jpg: an empty file",
    ]


def test_what_desktops_put_beside_pictures_is_passed_over(photos: Path) -> None:
    (photos / "._0.png").write_bytes(bytes(120))
    (photos / "Thumbs.db").write_bytes(bytes(120))
    (photos / ".DS_Store").write_bytes(bytes(120))
    (photos / "desktop.ini").write_bytes(bytes(120))
    folder = opened(photos)
    assert len(read_all(folder)) == 3
    assert folder.decode_errors == 0


def test_a_folder_of_companions_alone_holds_no_image(tmp_path: Path) -> None:
    (tmp_path / "._a.jpg").write_bytes(bytes(120))
    with pytest.raises(SourceError, match="holds no image"):
        opened(tmp_path)


def test_a_picture_without_its_end_mark_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(texture())[:-2])
    assert len(read_all(opened(tmp_path))) == 1


def test_a_kind_whose_size_is_not_known_beforehand_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"P6 60000 60000 255\n" + bytes(500))
    with pytest.raises(UnusableImage, match="not an image that is known: jpeg, png"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_of_thousands_of_scans_is_not_decoded(tmp_path: Path) -> None:
    content = encoded(texture(), progressive=True)
    at = content.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(content[:at] + content[at:-2] * 5000 + content[-2:])
    with pytest.raises(UnusableImage, match="more than 64 scans"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("loop", [False, True])
def test_a_folder_with_nothing_to_decode_is_an_error_and_no_endless_loop(tmp_path: Path, *, loop: bool) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="not one of the 1 images"):
        opened(tmp_path, loop=loop).read()


def test_an_image_that_vanished_is_skipped(photos: Path) -> None:
    folder = opened(photos)
    (photos / "1.png").unlink()
    assert len(read_all(folder)) == 2
    assert folder.decode_errors == 1


def test_an_image_that_claims_an_absurd_size_is_skipped_before_it_is_decoded(photos: Path) -> None:
    (photos / "3.png").write_bytes(png_of(45_000, 45_000))
    (photos / "4.jpg").write_bytes(jpeg_claiming(cv2.imencode(".jpg", picture(1))[1].tobytes(), 65_000, 65_000))
    folder = opened(photos)
    assert len(read_all(folder)) == 3
    assert folder.decode_errors == 2
    with pytest.raises(SourceError, match="45000 x 45000 pixels"):
        read_image(photos / "3.png")


@pytest.mark.parametrize("suffix", [".bmp", ".jp2", ".jpeg", ".png", ".tif", ".webp"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"a{suffix}"), picture(4))
    assert [number_of(item.image) for item in read_all(opened(tmp_path))] == [4]
