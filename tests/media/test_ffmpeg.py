"""Images turned as their display matrix wants; what else is decoded is tested through clips and streams."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import picture

from vajra_edge.media.ffmpeg import turned


def test_without_a_matrix_nothing_is_turned() -> None:
    image = picture(0)
    assert turned(image, (1, 0, 0, 1)) is image


@pytest.mark.parametrize(("matrix", "quarters"), [((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2), ((0, 1, -1, 0), 3)])
def test_quarters_of_a_turn_are_counterclockwise(matrix: tuple[int, int, int, int], quarters: int) -> None:
    image = picture(5)
    np.testing.assert_array_equal(turned(image, matrix), np.rot90(image, quarters))
