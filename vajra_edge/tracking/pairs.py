"""Pairs: which tracks and which detections have boxes that overlap, and by how much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vajra_edge.tracking.motion import Columns

Chosen = NDArray[np.bool_]
Rows = NDArray[np.intp]


class Pairs(NamedTuple):
    """Some pairs of a track and a detection, by track.

    Attributes:
        track: (k,) column of each in the table of tracks.
        box: (k,) column of each in the table of detections.
        iou: (k,) of the two boxes.
    """

    track: Rows
    box: Rows
    iou: NDArray[np.float64]

    def take(self, at: Rows) -> Pairs:
        """Those with these indices."""
        return Pairs(self.track.take(at), self.box.take(at), self.iou.take(at))

    def where(self, chosen: Chosen) -> Pairs:
        """Those that are chosen, (k,)."""
        at = chosen.nonzero()[0]
        return self if len(at) == len(chosen) else self.take(at)


def overlapping(tracks: Columns, boxes: Columns) -> Pairs:
    """Pairs of n tracks and m detections that overlap, once both are wider and taller by what that track asks.

    Whether boxes overlap is asked of all pairs, by how much of the few that do.

    Args:
        tracks: (8, n) left, top, right and bottom of each; width and height; by how much both boxes grow.
        boxes: (6, m) width and height of each; left, top, right and bottom.
    """
    low, high, growth = tracks[:2], tracks[2:4], tracks[6:]
    meet = (high + growth)[:, :, None] > boxes[2:4, None]
    meet &= (low - growth)[:, :, None] < boxes[4:, None]
    meet[0] &= meet[1]
    place = meet[0].ravel().nonzero()[0]
    track = place // boxes.shape[1]
    box = place - track * boxes.shape[1]
    a, b = tracks.take(track, 1), boxes.take(box, 1)
    sides = np.minimum(a[2:4], b[4:])
    sides -= np.maximum(a[:2], b[2:4])
    sides += a[6:]
    np.maximum(sides, 0.0, out=sides)  # of a box whose edges are the wrong way round
    shared = sides[0] * sides[1]
    a[4:6] += a[6:]
    b[:2] += a[6:]
    areas = a[4] * a[5]
    areas += b[0] * b[1]
    areas -= shared
    return Pairs(track, box, shared / areas)
