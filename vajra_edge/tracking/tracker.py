"""Tracker: gives the detections of one camera numbers that stay with their objects from frame to frame.

After ByteTrack (Zhang et al. 2021, arXiv:2110.06864): sure detections are matched to where tracks are expected, then
the unsure ones to the tracks that are left, since an object that is half hidden is found with less confidence. After
OC-SORT (Cao et al. 2022, arXiv:2203.14360) the sure ones that are left are matched to where tracks were last seen,
since one that stopped behind a post is not where its speed would have brought it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.tracking import motion
from vajra_edge.tracking.assignment import assign
from vajra_edge.tracking.motion import HEIGHT, MEASURED, POSITION, VARIANCE, VELOCITY, Columns
from vajra_edge.tracking.pairs import Chosen, Pairs, Rows, overlapping
from vajra_edge.types import Detections

NO_TRACK = 0
"""Of a detection that belongs to no track, or to none that is sure yet; tracks count from 1."""

SURE = 0.6
"""Least confidence that begins a track, and that is looked for first (ByteTrack's threshold)."""

LOST_S = 1.5
"""A track that is not seen for longer ends."""

FIRST_HITS = 3
"""A track has its number once it was found in so many frames that follow each other."""

EXPECTED_IOU, UNSURE_IOU, LAST_SEEN_IOU = 0.3, 0.6, 0.4
"""Least IoU of a pair in each of the three steps."""

BLUR, MOST_BLUR = 1.5, 0.8
"""Both boxes of a pair grow by so many standard deviations of what is expected, at most by this share of the height."""

AGE_COST = 0.9
"""Taken of a pair's IoU by the root of the seconds, one at most, for which its track was not seen: where it went is a
random walk, and who was just seen comes first."""

FEW_HITS_COST = 0.2
"""Taken of a pair's IoU and divided by the frames its track was found in: a box of three frames is often a part."""

SIZE_COST = 0.1
"""Taken of a pair's IoU for a height that is e times another."""

OTHER_CLASS_IOU = 0.5
"""A pair of two classes needs at least this: a detector calls a van a truck, and no person a car."""

SLOWING = 0.5
"""Share of its speed, by e, that a track loses in a second in which it is not seen."""

PART_INSIDE, PART_AREA, PART_HITS = 0.7, 0.1, 15
"""No number is given while at least the first share of a box lies in the box of another of its class, and it has at
least the second share of that one's area: it may be a part of it. Whoever is smaller stands far behind, and who was
found in so many frames is somebody, like a car that is parked behind another."""

TWO_FOR_ONE = 0.4
"""Worth of any pair beside its likeness: two poor pairs are no better than one that is good by more than this."""

LATELY = 1.5
"""A track was seen in the frame before if no more than this many times of that frame went by."""

SEEN, SEEN_BOX, SEEN_S, CLASS = slice(20, 26), slice(20, 24), 24, 25
HITS, NUMBER = 26, 27
"""Rows of the table of tracks below those of its filters: what was last seen, and what was given.

Left, top, right and bottom of the newest detection in pixels, its monotonic time and its class id; in how many frames
the track was found; its number as subscribers read it, ``NO_TRACK`` until the track is sure.
"""

ROWS = 28

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class State:
    """What is known of one camera.

    Attributes:
        tracks: (ROWS, n) a column for each that goes on.
        at_s: monotonic time of the newest frame; None before the first.
        given: the highest number so far.
    """

    tracks: Columns
    at_s: float | None = None
    given: int = 0

    @classmethod
    def empty(cls, given: int = 0) -> State:
        """Nothing is known but which numbers are taken."""
        return cls(np.empty((ROWS, 0)), None, given)


class Tracker:
    """Of one camera. Called by one thread."""

    def __init__(self) -> None:
        self._state = State.empty()

    def update(self, found: Detections, now_s: float) -> Numbers:
        """The track of each detection, ``NO_TRACK`` where there is none or it is not sure yet.

        Args:
            found: in one frame.
            now_s: when that was taken, monotonic.
        """
        self._state, numbers = advance(self._state, found, now_s)
        return numbers

    def reset(self) -> None:
        """What comes next has nothing to do with what was; numbers are not used again."""
        self._state = State.empty(self._state.given)


def advance(state: State, found: Detections, now_s: float) -> tuple[State, Numbers]:
    """What follows from one frame.

    Args:
        state: what was known.
        found: in the frame; a box with a number that is not finite belongs to no track.
        now_s: when it was taken, monotonic.
    """
    numbers = np.zeros(len(found), np.int64)
    boxes = found.xyxy.T.astype(np.float64, order="C")
    if not math.isfinite(boxes.sum()):  # no sum of what was float32 is too large
        finite = np.asarray(np.isfinite(boxes).all(0))
        state, numbers[finite] = advance(state, found.take(finite), now_s)
        return state, numbers
    elapsed_s = 0.0 if state.at_s is None else max(now_s - state.at_s, 0.0)
    tracks, given = state.tracks, state.given
    seen, left = _seen(boxes, found.class_id, now_s), found.confidence >= SURE
    if tracks.shape[1]:
        hidden = now_s - tracks[SEEN_S] > LATELY * elapsed_s
        tracks = _expected(tracks, hidden, elapsed_s)
        of_track = _paired(tracks, hidden, seen, left, now_s)
        tracks, given = _gone_on(tracks, of_track, seen, numbers, given, now_s)
    if np.count_nonzero(left):
        # Whoever is there when the camera begins to see was there before: no doubt delays their numbers.
        begun = _begun(seen.compress(left, 1))
        if state.at_s is None:
            given = _number(begun, np.ones(begun.shape[1], bool), 1, given)
            numbers[left] = begun[NUMBER]
        tracks = np.concatenate((tracks, begun), 1)
    return State(tracks, now_s, given), numbers


def _seen(boxes: Columns, class_id: NDArray[np.int32], now_s: float) -> Columns:
    """What tracks need of (4, m) detections: centre, width and height, then the rows of ``SEEN``."""
    seen = np.empty((10, boxes.shape[1]))
    size = np.subtract(boxes[2:], boxes[:2], out=seen[2:4])
    np.add(boxes[:2], size / 2, out=seen[:2])
    seen[4:8], seen[8], seen[9] = boxes, now_s, class_id
    return seen


def _begun(seen: Columns) -> Columns:
    """Tracks of what is seen for the first time."""
    tracks = np.empty((ROWS, seen.shape[1]))
    motion.begin(tracks, seen[POSITION])
    tracks[SEEN], tracks[HITS], tracks[NUMBER] = seen[4:], 1, NO_TRACK
    return tracks


def _expected(tracks: Columns, hidden: Chosen, elapsed_s: float) -> Columns:
    """Where they are by now; one that is hidden has slowed down, for all that is known."""
    tracks = motion.foreseen(tracks, elapsed_s)
    if np.count_nonzero(hidden):
        tracks[VELOCITY] *= np.where(hidden, math.exp(-SLOWING * elapsed_s), 1.0)
    return tracks


def _gone_on(
    tracks: Columns, of_track: Rows, seen: Columns, numbers: Numbers, given: int, now_s: float
) -> tuple[Columns, int]:
    """Those that go on, with what was found of them; ``numbers`` is filled. Returns the highest number too."""
    found = of_track >= 0
    count = np.count_nonzero(found)
    if count:
        of_it = seen.take(of_track, 1)
        motion.correct(tracks, of_it[POSITION], found)
        np.copyto(tracks[SEEN], of_it[4:], where=found)
        tracks[HITS] += found
        given = _number(tracks, found, FIRST_HITS, given)
    if count == len(found):
        numbers[of_track] = tracks[NUMBER]
        return tracks, given
    numbers[of_track[found]] = tracks[NUMBER][found]
    lasts = now_s - tracks[SEEN_S] <= LOST_S
    lasts &= tracks[NUMBER] != NO_TRACK
    lasts |= found
    return tracks if np.count_nonzero(lasts) == len(lasts) else tracks.compress(lasts, 1), given


def _number(tracks: Columns, found: Chosen, hits: int, given: int) -> int:
    """Give the next numbers to those of them found that have none and were found so often; returns the highest."""
    known = tracks[NUMBER] != NO_TRACK
    if np.count_nonzero(known) == len(known):
        return given
    wanted = (found & ~known & (tracks[HITS] >= hits)).nonzero()[0]
    if len(wanted):
        wanted = _in_the_open(tracks, wanted, found & known)
        tracks[NUMBER][wanted] = np.arange(given + 1, given + 1 + len(wanted))
    return given + len(wanted)


def _in_the_open(tracks: Columns, wanted: Rows, others: Chosen) -> Rows:
    """Those of the wanted, (k,), that cannot be parts of one of the others."""
    own, other = tracks.take(wanted, 1)[:, :, None], tracks.compress(others, 1)[:, None]
    a, b = own[SEEN_BOX], other[SEEN_BOX]
    shared = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0).prod(0)
    own_px2, other_px2 = (a[2:] - a[:2]).prod(0), (b[2:] - b[:2]).prod(0)
    part = (shared >= PART_INSIDE * np.maximum(own_px2, 1.0)) & (own_px2 >= PART_AREA * other_px2)
    doubted = (part & (own[CLASS] == other[CLASS])).any(1) & (own[HITS, :, 0] < PART_HITS)
    return wanted.compress(~doubted)


def _paired(tracks: Columns, hidden: Chosen, seen: Columns, left: Chosen, now_s: float) -> Rows:
    """Column of the detection that each track goes on with, (tracks,); -1: none.

    Args:
        tracks: where they are expected.
        hidden: which of them were not seen in the frame before.
        seen: the detections.
        left: which of them are sure; in the end, those of them that no track goes on with.
        now_s: of this frame.
    """
    of_track = np.full(tracks.shape[1], -1, np.intp)
    if not len(left):
        return of_track
    pairs = _of_one_kind(tracks, seen, _near(tracks, seen))
    is_sure = left.take(pairs.box)
    expected = pairs.where(is_sure)
    _match(of_track, left, expected, lambda chosen: _likeness(tracks, seen, expected.take(chosen), now_s))
    lost = of_track < 0
    if not np.count_nonzero(lost):
        return of_track
    if len(expected.iou) < len(pairs.iou):
        unsure = pairs.where(~is_sure & (pairs.iou >= UNSURE_IOU) & (lost & ~hidden).take(pairs.track))
        _match(of_track, left, unsure, unsure.iou.take)
    if np.count_nonzero(left):
        _where_last_seen(of_track, left, tracks, seen)
    return of_track


def _near(tracks: Columns, seen: Columns) -> Pairs:
    """Pairs whose boxes overlap enough where the tracks are expected."""
    places = np.empty((8, tracks.shape[1]))
    size = np.maximum(tracks[2:4], 1.0, out=places[4:6])
    half = size / 2
    np.subtract(tracks[:2], half, out=places[:2])
    np.add(tracks[:2], half, out=places[2:4])
    # By how much more than a measured box an expected one may be off, at both sides.
    blur = np.sqrt(tracks[VARIANCE][:2], out=places[6:])
    blur -= MEASURED * size[1]
    blur *= 2 * BLUR
    np.maximum(blur, 0.0, out=blur)
    np.minimum(blur, 2 * MOST_BLUR * size[1], out=blur)
    pairs = overlapping(places, seen[2:8])
    return pairs.where(pairs.iou >= EXPECTED_IOU)


def _where_last_seen(of_track: Rows, left: Chosen, tracks: Columns, seen: Columns) -> None:
    """Give the sure detections that are left to tracks that are, by where those were last seen."""
    rows, columns = (of_track < 0).nonzero()[0], left.nonzero()[0]
    if not len(rows):
        return
    places = np.zeros((8, len(rows)))
    places[:4] = tracks[SEEN_BOX].take(rows, 1)
    places[4:6] = places[2:4] - places[:2]
    pairs = overlapping(places, seen[2:8].take(columns, 1))
    pairs = pairs.where(pairs.iou >= LAST_SEEN_IOU)
    pairs = _of_one_kind(tracks, seen, Pairs(rows.take(pairs.track), columns.take(pairs.box), pairs.iou))
    _match(of_track, left, pairs, pairs.iou.take)


def _of_one_kind(tracks: Columns, seen: Columns, pairs: Pairs) -> Pairs:
    """Without the pairs of two classes that overlap too little."""
    alike = tracks[CLASS].take(pairs.track) == seen[9].take(pairs.box)
    return pairs if np.count_nonzero(alike) == len(alike) else pairs.where(alike | (pairs.iou >= OTHER_CLASS_IOU))


def _likeness(tracks: Columns, seen: Columns, pairs: Pairs, now_s: float) -> NDArray[np.float64]:
    """How good these pairs are, -2 to 1: by overlap, by size, and by how long ago the track was seen."""
    heights = np.maximum(tracks[HEIGHT].take(pairs.track), 1.0) / np.maximum(seen[HEIGHT].take(pairs.box), 1.0)
    age_s = np.clip(now_s - tracks[SEEN_S].take(pairs.track), 0.0, 1.0)
    few = FEW_HITS_COST / tracks[HITS].take(pairs.track)
    return np.asarray(pairs.iou - SIZE_COST * np.abs(np.log(heights)) - AGE_COST * np.sqrt(age_s) - few)


def _match(of_track: Rows, left: Chosen, pairs: Pairs, likeness: Callable[[Rows], NDArray[np.float64]]) -> None:
    """Note in ``of_track`` the best choice of these pairs, and in ``left`` whom it takes away."""
    if not len(pairs.track):
        return
    chosen = assign(pairs.track, pairs.box, likeness, TWO_FOR_ONE)
    boxes = pairs.box.take(chosen)
    of_track[pairs.track.take(chosen)] = boxes
    left[boxes] = False
