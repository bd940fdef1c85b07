"""Places that would count too little without a word."""

from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.analytics.doubts import of_places
from vajra_edge.analytics.places import Line, Zone
from vajra_edge.analytics.watch import Places

ROW_BY_ROW = [[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]]
AROUND = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
STAR = [[0.5, 0.0], [0.8, 1.0], [0.0, 0.4], [1.0, 0.4], [0.2, 1.0]]
NOTCHED = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.3], [0.3, 0.3], [0.3, 1.0], [0.0, 1.0]]
WITH_A_HOLE = [*AROUND, [0.1, 0.5], [0.4, 0.5], [0.4, 0.7], [0.6, 0.7], [0.6, 0.5], [0.4, 0.5], [0.1, 0.5]]


def of_zone(corners: list[list[float]]) -> list[str]:
    return list(of_places(Places(zones=[Zone("door", np.array(corners))])))


@pytest.mark.parametrize("corners", [AROUND, AROUND[::-1], NOTCHED, WITH_A_HOLE, [*AROUND, AROUND[0]], AROUND[:3]])
def test_a_zone_whose_corners_lie_around_it_is_as_it_was_meant(corners: list[list[float]]):
    assert of_zone(corners) == []


def test_a_zone_that_crosses_itself_is_named_with_the_edges_that_do():
    (doubt,) = of_zone(ROW_BY_ROW)
    assert doubt.startswith("zone door crosses itself: its edges behind the corners 2 and 4 do")
    assert not Zone("door", np.array(ROW_BY_ROW)).holds(np.array([[0.2, 0.5]]))[0], "the half of it does not count"
    assert len(of_zone(STAR)) == 1


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ((0.0, 0.5), (1.0, 0.5), ""),
        ((0.5, 1.0), (0.5, 0.0), ""),
        ((0.0, 0.98), (1.0, 0.98), ""),
        ((0.0, 0.0), (1.0, 1.0), ""),
        ((0.0, 1.0), (1.0, 1.0), "lies along the picture's border"),
        ((1.0, 0.995), (0.0, 0.995), "lies along the picture's border"),
        ((0.0, 0.0), (0.0, 1.0), "lies along the picture's border"),
        ((0.5, 0.5), (0.5, 0.505), "is 0.0050 of the picture long"),
        ((0.0, 0.0), (1e-320, 0.0), "is 0.0000 of the picture long"),
    ],
)
def test_a_line_that_nobody_can_cross_is_named(start: tuple[float, float], end: tuple[float, float], said: str):
    doubts = list(of_places(Places(lines=[Line("street", start, end)])))
    assert bool(doubts) == bool(said)
    assert all(doubt.startswith(f"line street {said}") for doubt in doubts)
