"""Thinning: which pictures leave a full set, so that it shows all hours and cameras, and scenes with objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from vajra_edge.engine.kept import Kept

EMPTY_ONE_IN = 4
"""Of the set may be scenes without objects. Ranges want some of them; the gate learns nothing from them."""


def superfluous(pictures: Sequence[Kept], most: int) -> tuple[Kept, ...]:
    """Those to be left out so that ``most`` remain; in the order of leaving.

    Args:
        pictures: of all cameras, the one that is offered among them.
        most: that may stay.
    """
    stay, leave = list(pictures), []
    while len(stay) > most:
        empty = [one for one in stay if one.boxes == 0]
        gone = _crowded(empty if len(empty) * EMPTY_ONE_IN > most else stay)
        stay.remove(gone)
        leave.append(gone)
    return tuple(leave)


def _crowded(pictures: Sequence[Kept]) -> Kept:
    """Of the two pictures of one camera that were taken closest together, the emptier; of two alike, the later."""
    by_camera: defaultdict[str, list[Kept]] = defaultdict(list)
    for one in sorted(pictures, key=lambda one: (one.taken_at, one.number)):
        by_camera[one.camera].append(one)
    pairs = [pair for own in by_camera.values() for pair in pairwise(own)]
    if not pairs:
        return min(pictures, key=lambda one: (one.boxes, one.number))
    _, later, earlier = min(
        ((later.taken_at - earlier.taken_at, later, earlier) for earlier, later in pairs),
        key=lambda found: (found[0], found[1].number),
    )
    return min((later, earlier), key=lambda one: one.boxes)
