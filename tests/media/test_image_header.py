"""Headers of images, written by OpenCV and by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import encoded as photo
from photos import texture

from vajra_edge.media.image_header import ImageHeader, ImageKind, header_of, orientation_of
from vajra_edge.media.jpeg_markers import end_of

IMAGE = np.random.default_rng(1).integers(0, 255, (30, 50, 3), np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, IMAGE, options)[1].tobytes())


@pytest.mark.parametrize(
    ("suffix", "options", "kind"),
    [
        (".jpg", (), ImageKind.JPEG),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), ImageKind.JPEG),
        (".png", (), ImageKind.PNG),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 50), ImageKind.WEBP),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101), ImageKind.WEBP),
        (".bmp", (), ImageKind.BMP),
        (".tiff", (), ImageKind.TIFF),
    ],
)
def test_kind_and_size_are_those_that_were_written(suffix: str, options: tuple[int, ...], kind: ImageKind) -> None:
    content = encoded(suffix, *options)
    assert header_of(content) == ImageHeader(kind, 50, 30)
    assert header_of(content[:11]) is None, "cut off within the header"


def test_a_thumbnail_is_not_taken_for_the_picture() -> None:
    thumbnail = bytes(cv2.imencode(".jpg", IMAGE[:8, :8])[1].tobytes())
    content = encoded(".jpg")
    segment = b"Exif\0\0" + thumbnail
    with_thumbnail = content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    assert header_of(with_thumbnail) == ImageHeader(ImageKind.JPEG, 50, 30)
    assert end_of(with_thumbnail + b"rest") == len(with_thumbnail)
    assert end_of(with_thumbnail[:-2]) is None


def test_an_extended_webp_tells_its_canvas() -> None:
    flags = struct.pack("<I", 0)
    canvas = (4999).to_bytes(3, "little") + (2999).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + flags + canvas
    assert header_of(b"RIFF" + struct.pack("<I", 22) + b"WEBP" + chunk) == ImageHeader(ImageKind.WEBP, 5000, 3000)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_either_order_and_size_tells_its_first_image(order: str, *, big: bool) -> None:
    number, entry = ("Q", "HHQIxxxx") if big else ("I", "HHII")
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head = magic + (struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8))
    tags = [struct.pack(order + entry, tag, 4, 1, side) for tag, side in ((256, 70_000), (257, 60_000))]
    content = head + struct.pack(f"{order}{'Q' if big else 'H'}", len(tags)) + b"".join(tags) + struct.pack(number, 0)
    assert header_of(content) == ImageHeader(ImageKind.TIFF, 70_000, 60_000)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"GIF89a" + bytes(20),
        b"<html>",
        b"P6 60000 60000 255\n",
        b"RIFF\0\0\0\0AVI LIST" + bytes(20),
        b"\x89PNG\r\n\x1a\n" + bytes(30),
        b"II*\0\xff\xff\xff\x7f" + bytes(20),
        b"\xff\xd8\xff\xe0\0\x02" + b"\0" * 40,
    ],
)
def test_what_is_no_such_image_has_no_header(content: bytes) -> None:
    assert header_of(content) is None


def test_random_bytes_behind_every_magic_are_survived(tmp_path: Path) -> None:
    noise = np.random.default_rng(7)
    for magic in (b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0"):
        for size in (0, 1, 7, 30, 300):
            found = header_of(magic + noise.bytes(size))
            assert found is None or found.width_px >= 0


def size_of(content: bytes) -> tuple[int, int] | None:
    found = header_of(content)
    return None if found is None else (found.width_px, found.height_px)


def test_headers_of_lossless_webp_and_jpeg_2000_tell_the_size():
    assert size_of(photo(texture(61, 43), "WEBP", lossless=True)) == (61, 43)
    assert size_of(photo(texture(61, 43), "WEBP", orientation=1)) == (61, 43)
    assert size_of(cv2.imencode(".jp2", texture(61, 43))[1].tobytes()) == (61, 43)
    assert header_of(b"no picture") is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_found_in_every_kind_that_has_one(kind, orientation):
    assert orientation_of(photo(texture(61, 43), kind, orientation)) == orientation


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"\xff\xd8Exif\0\0MM\0*\0\0", b"RIFF\0\0\0\0WEBPEXIF\xff\xff\xff\xff", b"x"]
)
def test_without_one_a_picture_is_upright(content):
    assert orientation_of(content) == 1
    assert orientation_of(photo(texture(61, 43))) == 1
