"""Tracker: gives the detections of one camera numbers that stay with their objects from frame to frame.

After ByteTrack (Zhang et al. 2021, arXiv:2110.06864): sure detections are matched to where tracks are expected, then
the unsure ones to the tracks that are left, since an object that is half hidden is found with less confidence. After
OC-SORT (Cao et al. 2022, arXiv:2203.14360) the sure ones that are left are matched to where tracks were last seen,
since one that stopped behind a post is not where its speed would have brought it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vajra_edge.tracking.assignment import assign
from vajra_edge.tracking.motion import MEASURED, Boxes, Motion, to_cxcywh, to_xyxy
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

AGE_COST = 0.4
"""Taken of a pair's IoU for each second, one at most, that its track was not seen: who was just seen comes first."""

SIZE_COST = 0.1
"""Taken of a pair's IoU for a height that is e times another."""

OTHER_CLASS_IOU = 0.5
"""A pair of two classes needs at least this: a detector calls a van a truck, and no person a car."""

SLOWING = 0.5
"""Share of its speed, by e, that a track loses in a second in which it is not seen."""

LATELY = 1.5
"""A track was seen in the frame before if no more than this many times of that frame went by."""

TINY = 1e-9
"""For boxes without an area."""

Numbers = NDArray[np.int64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Tracks:
    """All tracks of one camera, a row each.

    Attributes:
        whole: (3, n) number as subscribers read it, ``NO_TRACK`` until the track is sure; in how many frames it was
            found; class id of its newest detection.
        seen: (5, n) left, top, right and bottom of that in pixels, and its monotonic time.
        motion: of all.
    """

    whole: Numbers
    seen: Boxes
    motion: Motion

    def __len__(self) -> int:
        return len(self.whole[0])

    @property
    def number(self) -> Numbers:
        """(n,)."""
        return np.asarray(self.whole[0])

    @property
    def hits(self) -> Numbers:
        """(n,)."""
        return np.asarray(self.whole[1])

    @property
    def class_id(self) -> Numbers:
        """(n,)."""
        return np.asarray(self.whole[2])

    @property
    def seen_s(self) -> NDArray[np.float64]:
        """(n,)."""
        return np.asarray(self.seen[4])

    @classmethod
    def begin(cls, boxes: Boxes, class_id: NDArray[np.int32], now_s: float) -> Tracks:
        """Tracks of (n, 4) boxes that are seen for the first time."""
        whole, seen = np.empty((3, len(boxes)), np.int64), np.empty((5, len(boxes)))
        whole[0], whole[1], whole[2] = NO_TRACK, 1, class_id
        seen[:4], seen[4] = boxes.T, now_s
        return cls(whole, seen, Motion.begin(to_cxcywh(boxes)))

    def found(self, rows: Rows, boxes: Boxes, class_id: NDArray[np.int32], now_s: float) -> Tracks:
        """With what these rows were found as: (len(rows), 4) boxes and their classes."""
        whole, seen = self.whole.copy(), self.seen.copy()
        whole[1, rows] += 1
        whole[2, rows], seen[:4, rows], seen[4, rows] = class_id, boxes.T, now_s
        return Tracks(whole, seen, self.motion.corrected(rows, to_cxcywh(boxes)))

    def numbered(self, wanted: NDArray[np.bool_], given: int) -> Tracks:
        """With the next numbers after ``given`` for those that are to have one."""
        whole = self.whole.copy()
        whole[0, wanted] = np.arange(given + 1, given + 1 + wanted.sum())
        return replace(self, whole=whole)

    def take(self, rows: NDArray[np.bool_]) -> Tracks:
        """Those that go on."""
        return Tracks(self.whole[:, rows], self.seen[:, rows], self.motion.take(rows))

    def joined(self, other: Tracks) -> Tracks:
        """These and then the others."""
        both = np.concatenate((self.whole, other.whole), 1), np.concatenate((self.seen, other.seen), 1)
        return Tracks(*both, self.motion.joined(other.motion))


@dataclass(frozen=True)
class State:
    """What is known of one camera.

    Attributes:
        tracks: that go on.
        at_s: monotonic time of the newest frame; None before the first.
        given: the highest number so far.
    """

    tracks: Tracks
    at_s: float | None = None
    given: int = 0

    @classmethod
    def empty(cls, given: int = 0) -> State:
        """Nothing is known but which numbers are taken."""
        return cls(Tracks.begin(np.zeros((0, 4)), np.zeros(0, np.int32), 0.0), None, given)


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
    numbers = np.full(len(found), NO_TRACK)
    finite = np.asarray(np.isfinite(found.xyxy).all(1))
    if not finite.all():
        state, numbers[finite] = advance(state, found.take(finite), now_s)
        return state, numbers
    if not len(state.tracks) and not len(found):
        return replace(state, at_s=now_s), numbers
    elapsed_s = 0.0 if state.at_s is None else max(now_s - state.at_s, 0.0)
    boxes, class_id = found.xyxy.astype(np.float64), found.class_id
    hidden = now_s - state.tracks.seen_s > LATELY * elapsed_s
    tracks = _expected(state.tracks, hidden, elapsed_s)
    sure = found.confidence >= SURE
    of_track = _paired(tracks, hidden, boxes, class_id, sure, now_s)
    rows = np.flatnonzero(of_track >= 0)
    at = of_track[rows]
    tracks, given = _numbered(tracks.found(rows, boxes[at], class_id[at], now_s), FIRST_HITS, state.given)
    numbers[at] = tracks.number[rows]
    over = (of_track < 0) & ((tracks.number == NO_TRACK) | (now_s - tracks.seen_s > LOST_S))
    tracks = tracks.take(~over) if over.any() else tracks
    sure[at] = False
    if sure.any():
        # Whoever is there when the camera begins to see was there before: no doubt delays their numbers.
        hits = 1 if state.at_s is None else FIRST_HITS
        begun, given = _numbered(Tracks.begin(boxes[sure], class_id[sure], now_s), hits, given)
        numbers[sure] = begun.number
        tracks = tracks.joined(begun)
    return State(tracks, now_s, given), numbers


def _expected(tracks: Tracks, hidden: NDArray[np.bool_], elapsed_s: float) -> Tracks:
    """Where they are by now; one that is hidden has slowed down, for all that is known."""
    kept = np.where(hidden, np.exp(-SLOWING * elapsed_s), 1.0)
    return Tracks(tracks.whole, tracks.seen, tracks.motion.after(elapsed_s, kept))


def _numbered(tracks: Tracks, hits: int, given: int) -> tuple[Tracks, int]:
    """Give the next numbers to those that have none and were found so often; returns the highest number too."""
    wanted = (tracks.number == NO_TRACK) & (tracks.hits >= hits)
    count = int(wanted.sum())
    return (tracks.numbered(wanted, given), given + count) if count else (tracks, given)


@dataclass(frozen=True)
class _Overlaps:
    """Pairs of a track and a detection whose boxes overlap.

    Attributes:
        row: (k,) of the track.
        column: (k,) of the detection.
        iou: (k,).
    """

    row: Rows
    column: Rows
    iou: NDArray[np.float64]

    @classmethod
    def of(cls, of_tracks: Boxes, boxes: Boxes, growth: Boxes) -> _Overlaps:
        """Of (n, 4) and (m, 4) boxes, all grown at each side by the track's ``growth``, (n, 2).

        Whether boxes overlap is asked of all pairs, by how much of the few that do.
        """
        track, box, twice = of_tracks.T, boxes.T, 2 * growth.T
        sides = []
        for low in (0, 1):
            side = np.minimum(track[low + 2, :, None], box[low + 2])
            side -= np.maximum(track[low, :, None], box[low])
            side += twice[low, :, None]
            sides.append(side)
        both = np.flatnonzero(np.minimum(*sides) > 0.0)
        row, column = np.divmod(both, len(boxes))
        shared = sides[0].take(both) * sides[1].take(both)
        grown = twice[:, row]
        areas = _area(track[:, row], grown) + _area(box[:, column], grown)
        return cls(row, column, shared / np.maximum(areas - shared, TINY))

    def take(self, chosen: NDArray[np.bool_]) -> _Overlaps:
        """Those pairs."""
        return _Overlaps(self.row[chosen], self.column[chosen], self.iou[chosen])


def _area(corners: Boxes, grown: Boxes) -> NDArray[np.float64]:
    """Of (4, k) corners whose sides are longer by (2, k)."""
    wide, tall = corners[2:] - corners[:2] + grown
    return np.asarray(wide * tall)


def _paired(
    tracks: Tracks,
    hidden: NDArray[np.bool_],
    boxes: Boxes,
    class_id: NDArray[np.int32],
    sure: NDArray[np.bool_],
    now_s: float,
) -> Rows:
    """Index of the detection that each track goes on with, (tracks,); -1: none."""
    of_track = np.full(len(tracks), -1, np.intp)
    if not len(tracks) or not len(boxes):
        return of_track
    pairs = _Overlaps.of(to_xyxy(tracks.motion.position), boxes, _blur(tracks.motion))
    alike = (tracks.class_id[pairs.row] == class_id[pairs.column]) | (pairs.iou >= OTHER_CLASS_IOU)
    is_sure = sure[pairs.column]
    expected = pairs.take(alike & is_sure & (pairs.iou >= EXPECTED_IOU))
    _match(of_track, expected, _likeness(tracks, expected, boxes, now_s))
    lost = of_track < 0
    if not lost.any():
        return of_track
    if not is_sure.all():
        unsure = pairs.take(alike & ~is_sure & (pairs.iou >= UNSURE_IOU) & (lost & ~hidden)[pairs.row])
        _match(of_track, unsure, unsure.iou)
    left = sure.copy()
    left[of_track[of_track >= 0]] = False
    _where_last_seen(of_track, tracks, boxes, class_id, left)
    return of_track


def _likeness(tracks: Tracks, pairs: _Overlaps, boxes: Boxes, now_s: float) -> NDArray[np.float64]:
    """How good each pair is, -2 to 1: by overlap, by size, and by how long ago the track was seen."""
    height = tracks.motion.position[pairs.row, 3], boxes[pairs.column, 3] - boxes[pairs.column, 1]
    other_size = np.abs(np.log(np.maximum(height[0], 1.0) / np.maximum(height[1], 1.0)))
    age_s = np.minimum(now_s - tracks.seen_s, 1.0)[pairs.row]
    return np.asarray(pairs.iou - SIZE_COST * other_size - AGE_COST * age_s)


def _where_last_seen(
    of_track: Rows, tracks: Tracks, boxes: Boxes, class_id: NDArray[np.int32], left: NDArray[np.bool_]
) -> None:
    """Give the sure detections that are left to tracks that are, by where those were last seen."""
    rows, columns = np.flatnonzero(of_track < 0), np.flatnonzero(left)
    if not len(rows) or not len(columns):
        return
    pairs = _Overlaps.of(tracks.seen[:4, rows].T, boxes[columns], np.zeros((len(rows), 2)))
    pairs = _Overlaps(rows[pairs.row], columns[pairs.column], pairs.iou)
    other = tracks.class_id[pairs.row] != class_id[pairs.column]
    pairs = pairs.take(pairs.iou >= np.where(other, OTHER_CLASS_IOU, LAST_SEEN_IOU))
    _match(of_track, pairs, pairs.iou)


def _match(of_track: Rows, pairs: _Overlaps, likeness: NDArray[np.float64]) -> None:
    """Note in ``of_track`` the best choice of these pairs."""
    chosen = assign(pairs.row, pairs.column, likeness)
    of_track[pairs.row[chosen]] = pairs.column[chosen]


def _blur(motion: Motion) -> Boxes:
    """By how much more than a measured box an expected one may be off, (n, 2) in pixels of x and y."""
    height = np.maximum(motion.position[:, 3:], 1.0)
    return np.asarray(np.clip(BLUR * (motion.spread - MEASURED * height), 0.0, MOST_BLUR * height))
