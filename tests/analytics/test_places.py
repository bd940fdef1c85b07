"""How points lie to zones and lines."""

from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.analytics.places import Line, Zone

SQUARE = Zone("square", np.array([[0.2, 0.2], [0.6, 0.2], [0.6, 0.6], [0.2, 0.6]]))
NOTCHED = Zone("L", np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.3], [0.3, 0.3], [0.3, 1.0], [0.0, 1.0]]))
ACROSS = Line("across", (0.2, 0.5), (0.8, 0.5))


@pytest.mark.parametrize(
    ("zone", "point", "inside"),
    [
        (SQUARE, (0.4, 0.4), True),
        (SQUARE, (0.7, 0.4), False),
        (SQUARE, (0.1, 0.2), False),
        (NOTCHED, (0.9, 0.1), True),
        (NOTCHED, (0.1, 0.9), True),
        (NOTCHED, (0.6, 0.6), False),
    ],
)
def test_a_point_is_inside_or_not(zone: Zone, point: tuple[float, float], inside: bool):
    turned = Zone(zone.name, zone.corners[::-1])
    assert zone.holds(np.array([point])).tolist() == [inside]
    assert turned.holds(np.array([point])).tolist() == [inside]


@pytest.mark.parametrize("edge", [1.0, 719 / 720, 479 / 480])
@pytest.mark.parametrize(
    "point", [(0.5, 1.0), (0.5, 0.999), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.0)]
)
def test_who_is_cut_off_by_the_pictures_border_is_in_a_zone_that_reaches_it(edge: float, point: tuple[float, float]):
    begin = 1.0 - edge
    whole = Zone("whole", np.array([[begin, begin], [edge, begin], [edge, edge], [begin, edge]]))
    assert whole.holds(np.array([point])).tolist() == [True]


def test_who_is_cut_off_by_the_pictures_border_is_in_no_zone_that_ends_before_it():
    assert SQUARE.holds(np.array([(0.4, 1.0), (1.0, 0.4)])).tolist() == [False, False]
    upper = Zone("upper", np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.98], [0.0, 0.98]]))
    assert upper.holds(np.array([(0.4, 1.0)])).tolist() == [False]


def test_zones_that_share_an_edge_share_no_point_of_it():
    beside = Zone("beside", np.array([[0.6, 0.2], [0.9, 0.2], [0.9, 0.6], [0.6, 0.6]]))
    edge = np.array([[0.6, y] for y in (0.2, 0.3, 0.5999)])
    assert (SQUARE.holds(edge) ^ beside.holds(edge)).all()


def test_the_right_hand_of_who_walks_from_start_to_end_is_above_zero():
    assert ACROSS.offsets(np.array([[0.5, 0.7]]))[0] == pytest.approx(0.2)
    assert ACROSS.offsets(np.array([[0.5, 0.4]]))[0] == pytest.approx(-0.1)
    back = Line("back", ACROSS.end, ACROSS.start)
    assert back.offsets(np.array([[0.5, 0.7]]))[0] == pytest.approx(-0.2)


@pytest.mark.parametrize(("x", "passes"), [(0.5, True), (0.21, True), (0.1, False), (0.9, False)])
def test_only_who_passes_between_the_ends_crosses(x: float, passes: bool):
    before, after = np.array([[x, 0.3]]), np.array([[x, 0.7]])
    assert ACROSS.between_ends(before, after).tolist() == [passes]
