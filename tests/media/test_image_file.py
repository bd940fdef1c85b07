from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import encoded, texture

from vajra_edge.media import image_file
from vajra_edge.media.faults import ImageFault
from vajra_edge.media.image_file import UnusableImage

KINDS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP"]


def png_header(width: int, height: int) -> bytes:
    """All that says how large the picture is; whoever decodes it first asks for that much memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_as_opencv_reads_it(tmp_path, kind):
    path = tmp_path / "a.any"
    path.write_bytes(encoded(texture(), kind))
    found = image_file.read(path)
    assert not found.is_cut
    np.testing.assert_array_equal(found.whole(), cv2.imread(str(path)))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_other_kinds_whose_end_is_missing_cannot_be_read_at_all(kind, share):
    content = encoded(texture(), kind)
    with pytest.raises(UnusableImage, match=r"a\.png: (not an image|an empty file)") as raised:
        image_file.decode(content[: int(len(content) * share)], Path("a.png"))
    assert raised.value.fault is ImageFault.PICTURE_UNREADABLE


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
def test_a_webp_that_ends_in_zeros_is_cut(options):
    content = encoded(texture(), "WEBP", **options)
    half = len(content) // 2
    with pytest.raises(UnusableImage):
        image_file.decode(content[:half] + bytes(len(content) - half), Path("a.webp")).whole()


def test_a_picture_that_is_cut_is_refused_where_it_must_be_whole(tmp_path):
    path = tmp_path / "a.jpg"
    content = encoded(texture())
    path.write_bytes(content[: len(content) // 2])
    found = image_file.read(path)
    assert found.image.shape == (300, 400, 3)
    assert image_file.is_cut(path)
    with pytest.raises(UnusableImage, match=r"a\.jpg: the end of the file is missing.*copy or download it again"):
        found.whole()


def test_files_that_are_not_there_or_no_jpeg_are_not_cut(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    assert not image_file.is_cut(tmp_path / "a.png")
    assert not image_file.is_cut(tmp_path / "absent.jpg")


@pytest.mark.parametrize(("width", "height"), [(16385, 16384), (34000, 33000), (1 << 20, 1 << 20), (1 << 31, 7)])
def test_what_is_too_large_is_refused_before_it_is_decoded(width, height):
    with pytest.raises(UnusableImage, match=f"{width} x {height} pixels, the limit is .*; cut it into tiles") as raised:
        image_file.decode(png_header(width, height), Path("scene.png"))
    assert raised.value.fault is ImageFault.PICTURE_TOO_LARGE


def test_the_largest_phone_picture_is_not_too_large():
    image_file.check_size(Path("a.jpg"), 16320, 12240)
