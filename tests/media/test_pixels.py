"""The gate by which pixels enter."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import picture

from vajra_edge.errors import SourceError
from vajra_edge.media.limits import MAX_IMAGE_PX
from vajra_edge.media.pixels import check_image, check_size


@pytest.mark.parametrize(
    "image", [None, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)]
)
def test_only_8_bit_bgr_enters(image: object) -> None:
    with pytest.raises(SourceError, match="8-bit BGR"):
        check_image(image, "camera")


def test_an_image_enters_without_a_copy() -> None:
    image = picture(1)
    assert check_image(image, "camera") is image
    assert check_image(image[:, ::2], "camera").flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0), (MAX_IMAGE_PX, 2), (65_535, 65_535)])
def test_an_absurd_size_is_refused(width: int, height: int) -> None:
    with pytest.raises(SourceError, match=f"{width} x {height}"):
        check_size(width, height, "camera")


def test_8k_is_no_absurd_size() -> None:
    check_size(7680, 4320, "camera")
