"""Places: the zones and lines of a camera's picture, and how a point lies to them.

Coordinates are ratios of the picture, 0..1 from its top left, so that a camera may change its size. Geometry is done in
a square of equal units, which shears angles of a wide picture and changes no side and no crossing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

BORDER = 0.005
"""Ratio of the picture: who stands nearer to its border than this may stand beyond it, cut off by the picture.

Such a box ends at the picture's height, and a zone that reaches down there ends at that, too, or at the last row of
pixels, a little above: it holds whoever is cut off."""


@dataclass(frozen=True)
class Zone:
    """An area.

    Attributes:
        name: as subscribers read it.
        corners: (n, 2) at least three, in either direction; the last is joined to the first.
        dwell_s: who is inside for so long is told of, once a visit; None: never.
    """

    name: str
    corners: Points
    dwell_s: float | None = None

    def holds(self, points: Points) -> NDArray[np.bool_]:
        """Which of (m, 2) points lie inside; by the parity of the edges that a ray to the right meets."""
        begin, end = self.corners, np.roll(self.corners, -1, axis=0)
        x, y = np.minimum(np.maximum(points, BORDER), 1.0 - BORDER).T[:, :, None]
        spans = (begin[:, 1] > y) != (end[:, 1] > y)
        rise = np.where(spans, end[:, 1] - begin[:, 1], 1.0)
        meets = begin[:, 0] + (y - begin[:, 1]) / rise * (end[:, 0] - begin[:, 0])
        return np.asarray((spans & (x < meets)).sum(1) % 2 == 1)


@dataclass(frozen=True)
class Line:
    """A line that is crossed ``in`` from its left to its right hand, looking from start to end, and ``out`` back.

    Attributes:
        name: as subscribers read it.
        start: x, y.
        end: x, y.
    """

    name: str
    start: tuple[float, float]
    end: tuple[float, float]

    def offsets(self, points: Points) -> NDArray[np.float64]:
        """The distance of (m, 2) points from the line without its ends: above zero on its right hand."""
        start, along = np.array(self.start), np.subtract(self.end, self.start)
        to = points - start
        # y points down: what is on the right hand of somebody who walks to the right lies below, at a larger y.
        return np.asarray((along[0] * to[:, 1] - along[1] * to[:, 0]) / np.hypot(*along))

    def between_ends(self, before: Points, after: Points) -> NDArray[np.bool_]:
        """Whether the ways from (m, 2) to (m, 2) points, on two sides of the line, pass between its ends."""
        a, b = self.offsets(before), self.offsets(after)
        share = np.divide(a, a - b, out=np.full(len(a), 0.5), where=a != b)
        passed = before + share[:, None] * (after - before)
        along = np.subtract(self.end, self.start)
        at = (passed - np.array(self.start)) @ along / (along @ along)
        return np.asarray((at >= 0.0) & (at <= 1.0))
