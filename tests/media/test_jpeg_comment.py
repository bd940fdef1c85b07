"""Text in the file of a picture."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from photos import encoded, texture

from vajra_edge.media.jpeg import decoded, structure
from vajra_edge.media.jpeg_comment import MOST_BYTES, with_comment
from vajra_edge.media.jpeg_markers import segments

COMMENT = b'{"key":"dev/e1/gate/7"}'


def opencv() -> bytes:
    return cv2.imencode(".jpg", texture())[1].tobytes()


def pictures() -> list[bytes]:
    return [opencv(), encoded(texture()), encoded(texture(), orientation=6), encoded(texture(), progressive=True)]


@pytest.mark.parametrize("number", range(4))
def test_readers_find_the_comment_and_the_picture_is_the_same(number: int) -> None:
    jpeg = pictures()[number]
    told = with_comment(jpeg, COMMENT)
    with pytest.importorskip("PIL.Image", reason="absent here: Pillow").open(io.BytesIO(told)) as image:
        assert image.info["comment"] == COMMENT
    assert np.array_equal(decoded(told), decoded(jpeg))
    assert structure(told).complete


def test_the_header_that_has_to_be_the_first_stays_the_first() -> None:
    assert [one.code for one in segments(with_comment(opencv(), COMMENT))][:2] == [0xE0, 0xFE]
    exif_first = b"\xff\xd8\xff\xe1\x00\x04no" + opencv()[2:]
    assert [one.code for one in segments(with_comment(exif_first, COMMENT))][:3] == [0xFE, 0xE1, 0xE0]


def test_the_longest_comment_fits_and_a_longer_one_is_refused() -> None:
    told = with_comment(opencv(), b"x" * MOST_BYTES)
    assert np.array_equal(decoded(told), decoded(opencv()))
    with pytest.raises(ValueError, match="a segment holds 65533"):
        with_comment(opencv(), b"x" * (MOST_BYTES + 1))
