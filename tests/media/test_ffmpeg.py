"""Images turned as their display matrix wants; what else is decoded is tested through clips and streams."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import picture

from vajra_edge.media.ffmpeg import has_idr, turned


def test_without_a_matrix_nothing_is_turned() -> None:
    image = picture(0)
    assert turned(image, (1, 0, 0, 1)) is image


@pytest.mark.parametrize(("matrix", "quarters"), [((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2), ((0, 1, -1, 0), 3)])
def test_quarters_of_a_turn_are_counterclockwise(matrix: tuple[int, int, int, int], quarters: int) -> None:
    image = picture(5)
    np.testing.assert_array_equal(turned(image, matrix), np.rot90(image, quarters))


PARAMETERS, IDR, OTHER = b"\x67\x42\0", b"\x65" + b"\x88" * 300, b"\x41" + b"\x65" * 300
"""NAL units of H.264; the bytes within are no types."""


def behind_lengths(units: list[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def behind_start_codes(units: list[bytes]) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@pytest.mark.parametrize("with_lengths", [True, False])
def test_a_picture_that_needs_none_before_it_is_known(*, with_lengths: bool) -> None:
    written = behind_lengths if with_lengths else behind_start_codes
    assert has_idr(written([PARAMETERS, IDR]), with_lengths=with_lengths)
    assert has_idr(written([IDR]), with_lengths=with_lengths)
    assert not has_idr(written([PARAMETERS, OTHER]), with_lengths=with_lengths)
    assert not has_idr(written([OTHER])[:20], with_lengths=with_lengths), "cut off"
    assert not has_idr(b"", with_lengths=with_lengths)
