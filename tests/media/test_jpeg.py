from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from photos import encoded, texture

from vajra_edge.media import image_file, jpeg

WAYS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "4:4:4": {"subsampling": 0},
    "turned": {"orientation": 6},
}
FLAT = np.zeros((300, 400, 3), np.uint8)


def is_cut(content: bytes) -> bool:
    return image_file.decode(content, Path("a.jpg")).is_cut


@pytest.fixture(params=WAYS)
def content(request: pytest.FixtureRequest) -> bytes:
    return encoded(texture(), **WAYS[request.param])


@pytest.fixture(params=["none", "text", "zeros", "a second picture", "half a picture", "no end marker", "half an end"])
def whole(request: pytest.FixtureRequest, content: bytes) -> bytes:
    other = encoded(texture(80, 60))
    return {
        "none": content,
        "text": content + b"a maker's note" * 99,
        "zeros": content + bytes(5000),
        "a second picture": content + other,
        "half a picture": content + other[:300],
        "no end marker": content[:-2],
        "half an end": content[:-1],
    }[request.param]


def test_a_picture_is_whole_whatever_follows_it(whole, content):
    found = image_file.decode(whole, Path("a.jpg"))
    assert not found.is_cut
    np.testing.assert_array_equal(found.image, image_file.decode(content, Path("a.jpg")).image)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95, 0.99])
def test_one_whose_end_is_missing_is_cut(content, share):
    length = int(len(content) * share)
    assert is_cut(content[:length])
    assert is_cut(content[:length] + bytes(len(content) - length)), "what a disk gives back after a power cut"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_end_marker_that_somebody_appended_hides_nothing(share):
    content = encoded(texture())
    assert is_cut(content[: int(len(content) * share)] + jpeg.END)
    progressive = encoded(texture(), progressive=True)
    assert is_cut(progressive[: int(len(progressive) * 0.5)] + jpeg.END)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("way", WAYS)
def test_a_flat_picture_is_whole(way, level):
    assert not is_cut(encoded(np.full((301, 403, 3), level, np.uint8), **WAYS[way]))


def test_the_end_of_a_thumbnail_in_the_header_is_not_the_end():
    thumbnail = encoded(texture(80, 60))
    content = encoded(texture())
    block = b"Exif\0\0" + thumbnail
    content = content[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + content[2:]
    assert not is_cut(content)
    assert is_cut(content[: int(len(content) * 0.7)])


def test_a_file_without_coded_data_is_no_picture(tmp_path):
    content = encoded(texture())
    scan = content.index(b"\xff\xda")
    for length in (2, 20, scan, scan + 8):
        with pytest.raises(image_file.UnusableImage, match="not an image"):
            image_file.decode(content[:length], Path("a.jpg"))


def test_real_photos_are_whole_and_their_parts_are_not(shared_data):
    photos = sorted((shared_data / "images").rglob("*.jpg"))[:40]
    for photo in photos:
        content = photo.read_bytes()
        assert not is_cut(content), photo
        assert is_cut(content[: len(content) * 9 // 10]), photo
        assert is_cut(content[: len(content) * 9 // 10] + jpeg.END), photo
