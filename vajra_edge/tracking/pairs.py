"""Pairs: which tracks and which detections have boxes that overlap, and by how much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.tracking.motion import Columns

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Pairs:
    """Some pairs of a track and a detection, by track.

    Attributes:
        track: (k,) column of each in the table of tracks.
        box: (k,) column of each in the table of detections.
        iou: (k,) of the two boxes.
    """

    track: Rows
    box: Rows
    iou: NDArray[np.float64]

    def take(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Those pairs."""
        at = chosen.nonzero()[0]
        return Pairs(self.track.take(at), self.box.take(at), self.iou.take(at))


def overlapping(
    low: Columns, high: Columns, size: Columns, box: Columns, box_size: Columns, twice: Columns
) -> Pairs:
    """Pairs of n and m boxes, with what both grow by.

    Whether boxes overlap is asked of all pairs, by how much of the few that do.

    Args:
        low: (2, n) left and top of each track.
        high: (2, n) right and bottom.
        size: (2, n) width and height.
        box: (4, m) left, top, right and bottom of each detection.
        box_size: (2, m) width and height.
        twice: (2, n) by how much each track, and whatever is compared with it, is wider and taller.
    """
    count = box.shape[1]
    sides = np.minimum(high[:, :, None], box[2:, None, :])
    sides -= np.maximum(low[:, :, None], box[:2, None, :])
    sides += twice[:, :, None]
    both = np.minimum(sides[0], sides[1]).ravel()
    both = (both > 0.0).nonzero()[0]
    track = both // count
    column = both - track * count
    shared = sides.reshape(2, -1).take(both, 1)
    shared = shared[0] * shared[1]
    grown = twice.take(track, 1)
    grown += box_size.take(column, 1)
    areas = size + twice
    areas = (areas[0] * areas[1]).take(track)
    areas += grown[0] * grown[1]
    return Pairs(track, column, shared / (areas - shared))
