"""BGR of every format on the host."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from colours import MEANINGS, from_nv12, stored

from vajra_edge.media.bgr import bgr_of, in_own_bgr, interleaved, to_bgr
from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat
from vajra_edge.types import Frame, Memory


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def frame(image: np.ndarray, pixels: PixelFormat, memory: Memory | None = None) -> Frame:
    now = datetime.now(timezone.utc)
    return Frame(image, 0, now, 0, "gate", memory=memory, pixels=pixels)


@pytest.mark.parametrize("meaning", MEANINGS, ids=str)
@pytest.mark.parametrize("wh", [(2, 2), (62, 130), (642, 362)])
def test_nv12_is_within_one_level_of_what_its_matrix_and_range_say(meaning: Colorimetry, wh: tuple[int, int]) -> None:
    """Luma below black and above white, which decoders give too, among it; and more rows than are converted at once."""
    image = noise(wh[1] * 3 // 2, wh[0])
    made = to_bgr(image, PixelFormat.NV12, meaning)
    assert made.shape == (wh[1], wh[0], 3)
    assert np.abs(made - from_nv12(image, meaning)).max() < 1.0


def test_bgrx_loses_the_byte_that_says_nothing() -> None:
    image = noise(11, 7, 4)
    np.testing.assert_array_equal(to_bgr(image, PixelFormat.BGRX, USUAL), image[..., :3])


def test_bgr_is_not_copied_unless_somebody_wants_his_own() -> None:
    image = noise(8, 6, 3)
    given = frame(image, PixelFormat.BGR, Memory(image.reshape(-1)))
    assert bgr_of(given) is interleaved(given) is image
    own = in_own_bgr(given)
    assert not np.shares_memory(own.image, image)
    assert own.memory is None
    np.testing.assert_array_equal(own.image, image)


@pytest.mark.parametrize("pixels", PixelFormat)
def test_whoever_wants_his_own_bgr_gets_a_frame_of_it(pixels: PixelFormat) -> None:
    image = np.full((48, 64, 3), (40, 90, 200), np.uint8)
    own = in_own_bgr(frame(stored(image, pixels, USUAL), pixels))
    assert (own.pixels, own.resolution_wh, own.image.flags.writeable) == (PixelFormat.BGR, (64, 48), True)
    assert np.abs(own.image.astype(int) - image).max() <= 2
