from __future__ import annotations

import base64

import numpy as np
import pytest
from photos import encoded, texture

from vajra_edge.errors import VajraError
from vajra_edge.tasks import inline_image
from vajra_edge.tasks.sources import feeds, groups

TEXT = base64.b64encode(encoded(texture(), "PNG")).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{TEXT}",
        f"data:image/png;charset=utf-8;base64,{TEXT}",
        TEXT,
        f"\n{TEXT[:76]}\n{TEXT[76:]}\n",
    ],
)
def test_a_picture_as_text_is_a_picture(text):
    np.testing.assert_array_equal(inline_image.of(text), texture())
    (shots,) = groups(feeds(text), 4)
    assert shots[0].path == "image0"


@pytest.mark.parametrize("source", ["a.jpg", 0, "rtsp://host/x", "http://host/" + "x" * 9000, "/" + "a/" * 900])
def test_paths_and_addresses_are_no_pictures(source):
    assert inline_image.of(source) is None


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "the source is ''; name images"),
        ("  \n", "the source is"),
        ("a\0b", "the source is 'a"),
        ("x" * 300, "a text of 300 letters, 'xxxx.*: not an image that OpenCV can read"),
        ("no base64 at all! " * 300, "too long for a path, and no picture in base64"),
        ("data:image/png;base64,AAAA", "not an image"),
        ("data:image/jpeg,%FF%D8", "no picture in base64"),
        (f"data:image/png;base64,{TEXT[:4000]}", "not an image"),
    ],
)
def test_other_texts_are_refused_in_one_short_line(source, told):
    with pytest.raises(VajraError, match=told) as raised:
        feeds(source)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
