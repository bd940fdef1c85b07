"""Formats: the array of each, and the size of the picture in it."""

from __future__ import annotations

import pytest

from vajra_edge.pixel_format import PixelFormat, array_shape, resolution_of


@pytest.mark.parametrize("pixels", PixelFormat)
@pytest.mark.parametrize("wh", [(2, 2), (64, 48), (1920, 1080), (3840, 2160)])
def test_a_size_is_that_of_its_array(pixels: PixelFormat, wh: tuple[int, int]) -> None:
    assert resolution_of(pixels, array_shape(pixels, wh)) == wh


@pytest.mark.parametrize("pixels", [PixelFormat.BGR, PixelFormat.BGRX])
def test_interleaved_pictures_may_have_odd_sides(pixels: PixelFormat) -> None:
    assert resolution_of(pixels, array_shape(pixels, (3, 1))) == (3, 1)


@pytest.mark.parametrize("wh", [(3, 2), (2, 3), (1, 1)])
def test_nv12_has_none(wh: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="NV12 of"):
        array_shape(PixelFormat.NV12, wh)
