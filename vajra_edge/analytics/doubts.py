"""Doubts: places that can be watched and are hardly what somebody meant: they would count too little without a word."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import TypeAlias

import numpy as np

from vajra_edge.analytics.places import Line, Zone
from vajra_edge.analytics.watch import CLEAR_OF_LINE, Places

_PICTURE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])

Point: TypeAlias = "tuple[float, float]"


def of_places(places: Places) -> Iterator[str]:
    """What is doubtful about them, a line each with the remedy."""
    doubts = (*map(_of_zone, places.zones), *map(_of_line, places.lines))
    return (doubt for doubt in doubts if doubt)


def _of_zone(zone: Zone) -> str:
    """Corners that were written row by row, as a table is read, make two triangles of a rectangle."""
    corners: list[Point] = [(x, y) for x, y in zone.corners.tolist()]
    edges = list(enumerate(pairwise([*corners, corners[0]]), 1))
    for (first, edge), (second, other) in combinations(edges, 2):
        if _cross(*edge, *other):
            return (
                f"zone {zone.name} crosses itself: its edges behind the corners {first} and {second} do, and only parts"
                " of it count; write the corners in their order around it"
            )
    return ""


def _of_line(line: Line) -> str:
    length = math.dist(line.start, line.end)
    if length < CLEAR_OF_LINE:
        return f"line {line.name} is {length:.4f} of the picture long, and nobody crosses it; draw it longer"
    offsets = line.offsets(_PICTURE)
    if min(offsets.max(), -offsets.min()) < CLEAR_OF_LINE:
        return (
            f"line {line.name} lies along the picture's border, and nobody is seen beyond it; move it"
            f" {CLEAR_OF_LINE:g} of the picture inwards, or more"
        )
    return ""


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether two edges pass through each other; those that touch, or lie on each other, do not."""
    return _side(a, b, c) * _side(a, b, d) < 0.0 and _side(c, d, a) * _side(c, d, b) < 0.0


def _side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
