"""Checks of the zones and lines of a camera, in words that name the one that is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_MOST = 32
"""Of each kind a camera: every frame asks each where every object stands."""

_MOST_CORNERS = 64
_LEAST_CORNERS = 3
_LEAST_AREA = 1e-4
"""Of the picture: a hundredth of its width by a hundredth of its height."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
_MOST_S = 86_400.0


def zones(value: object) -> object:
    """The zones of a camera.

    Raises:
        ValueError: one is none.
    """
    return tuple(_zone(table, where) for table, where in _tables(value, "zones", {"name", "corners", "dwell_s"}))


def lines(value: object) -> object:
    """The lines of a camera.

    Raises:
        ValueError: one is none.
    """
    return tuple(_line(table, where) for table, where in _tables(value, "lines", {"name", "start", "end"}))


def _tables(value: object, kind: str, known: set[str]) -> list[tuple[Mapping[str, Any], str]]:
    """Each table with what it is called in a message."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(table, Mapping) for table in value):
        raise ValueError(f"must be a list of tables; write [[cameras.{kind}]] above each, below its camera")
    if len(value) > _MOST:
        raise ValueError(f"holds too many, {_MOST} at most")
    named = []
    for place, table in enumerate(value):
        name = table.get("name")
        if not isinstance(name, str) or not _NAME.match(name):
            raise ValueError(f"[{place}] needs a name of letters, digits, - _ and ., at most 64")
        if strange := sorted(str(key) for key in table if key not in known):
            raise ValueError(
                f"{name} has {strange[0][:40]}, which is not a setting; it takes {', '.join(sorted(known))}"
            )
        named.append((table, name))
    names = [name for _, name in named]
    if alike := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"share the name {alike}; each needs its own")
    return named


def _zone(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    corners = table.get("corners")
    if not isinstance(corners, (list, tuple)) or not _LEAST_CORNERS <= len(corners) <= _MOST_CORNERS:
        raise ValueError(f"{name} needs corners: {_LEAST_CORNERS} to {_MOST_CORNERS} points [x, y]")
    points = tuple(_point(corner, f"{name}: a corner") for corner in corners)
    if not _encloses(points):
        raise ValueError(f"{name} encloses nothing: its corners lie on a line")
    dwell_s = table.get("dwell_s")
    if dwell_s is not None and (isinstance(dwell_s, bool) or not isinstance(dwell_s, int | float)):
        raise ValueError(f"{name}: dwell_s must be a number of seconds")
    if dwell_s is not None and not 0.0 < dwell_s <= _MOST_S:
        raise ValueError(f"{name}: dwell_s must be above 0 and at most {_MOST_S:.0f} s")
    return {"name": name, "corners": points, "dwell_s": dwell_s}


def _line(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    start, end = (_point(table.get(which), f"{name}: {which}") for which in ("start", "end"))
    if start == end:
        raise ValueError(f"{name} begins where it ends; it needs two points")
    return {"name": name, "start": start, "end": end}


def _point(value: object, what: str) -> tuple[float, float]:
    pair = value if isinstance(value, (list, tuple)) else ()
    numbers = [each for each in pair if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not all(0.0 <= each <= 1.0 for each in numbers):  # noqa: PLR2004  x and y
        raise ValueError(f"{what} must be [x, y], each from 0 to 1: shares of the picture's width and height")
    return float(numbers[0]), float(numbers[1])


def _encloses(points: Sequence[tuple[float, float]]) -> bool:
    """Whether any three of the corners, the first among them, span more than nothing."""
    (x, y), *others = points
    spans = [(a - x, b - y) for a, b in others]
    return any(abs(a * d - b * c) > _LEAST_AREA for a, b in spans for c, d in spans)
