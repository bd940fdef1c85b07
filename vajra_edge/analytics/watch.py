"""Watch: what happens at the places of one camera, as a pure machine over what its tracker sees.

Nothing flickers: a track is in a zone once it was seen inside for ``Patience.enter_s``, and out once it was not for
``leave_s``; it has crossed a line once it stood clear of it on the other side for as long, or was last seen there; a
zone is empty once nobody was in it for ``absent_s``. A blind camera does not see an empty zone: what it knew ends, by
that reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from vajra_edge.analytics.places import Line, Points, Zone

CLEAR_OF_LINE = 0.01
"""Ratio of the picture: a track nearer to a line than this stands on it, on neither side."""


FORGOTTEN_S = 5.0
"""A track that was not seen for this long does not come back under its number: longer than any tracker waits."""


class Way(Enum):
    """From which side of a line to which."""

    IN = "in"
    OUT = "out"


@dataclass(frozen=True)
class Patience:
    """How long something must last before it is said, in seconds.

    Attributes:
        enter_s: inside a zone, or on the other side of a line.
        leave_s: outside it, or not seen at all.
        absent_s: nobody inside; or who was last seen on the other side of a line is not seen any more.
    """

    enter_s: float = 0.3
    leave_s: float = 1.0
    absent_s: float = 2.0


@dataclass(frozen=True)
class Seen:
    """Observation: the tracks in one frame.

    Attributes:
        now_s: monotonic time of the frame.
        tracks: (n,) track ids.
        classes: (n,) the name of each one's class: ids belong to a plan, and plans change.
        anchors: (n, 2) where each stands: the middle of its box's lower edge, as ratios of the picture.
    """

    now_s: float
    tracks: NDArray[np.int64]
    classes: Sequence[str]
    anchors: Points


@dataclass(frozen=True)
class Blinded:
    """Observation: nothing is seen from now on, which is not the same as seeing nothing."""

    now_s: float
    reason: str


Observation = Seen | Blinded


@dataclass(frozen=True)
class Entered:
    """A track is in a zone."""

    zone: str
    track: int
    class_name: str


@dataclass(frozen=True)
class Left:
    """A track is in a zone no more.

    Attributes:
        dwell_s: how long it was seen there.
        reason: empty where it was seen to leave or was not seen any more; else why nobody could see.
    """

    zone: str
    track: int
    class_name: str
    dwell_s: float
    reason: str = ""


@dataclass(frozen=True)
class Dwelt:
    """A track is in a zone for as long as was asked to be told."""

    zone: str
    track: int
    class_name: str
    dwell_s: float


@dataclass(frozen=True)
class Crossed:
    """A track stands on the other side of a line."""

    line: str
    way: Way
    track: int
    class_name: str


@dataclass(frozen=True)
class Occupied:
    """Somebody is in a zone, or nobody any more; ``None``: not known, for the camera is blind."""

    zone: str
    present: bool | None


Happening = Entered | Left | Dwelt | Crossed | Occupied


@dataclass(frozen=True)
class Visit:
    """A track at a zone: since when, until when it was seen inside, and what was said of it."""

    class_name: str
    since_s: float
    inside_s: float
    entered: bool = False
    dwelt: bool = False


@dataclass(frozen=True)
class Side:
    """Where a track last stood clear of a line, for long.

    Attributes:
        right: on its right hand.
        at: where.
        seen_s: when the track was last seen.
        class_name: of the track.
        over_s: since when it stands clear on the other side; None: it does not.
        between_ends: it went there between the ends of the line.
    """

    right: bool
    at: tuple[float, float]
    seen_s: float
    class_name: str
    over_s: float | None = None
    between_ends: bool = False


@dataclass(frozen=True)
class State:
    """Of one camera.

    Attributes:
        visits: by zone and track.
        sides: by line and track.
        present: by zone; a zone that is missing is not known.
        empty_since_s: by zone, since when nobody is inside; for a zone that is still called present.
    """

    visits: Mapping[tuple[str, int], Visit] = field(default_factory=dict)
    sides: Mapping[tuple[str, int], Side] = field(default_factory=dict)
    present: Mapping[str, bool] = field(default_factory=dict)
    empty_since_s: Mapping[str, float] = field(default_factory=dict)

    def counts(self, zone: str) -> Counter[str]:
        """How many are in a zone, by class."""
        return Counter(v.class_name for (name, _), v in self.visits.items() if name == zone and v.entered)


@dataclass(frozen=True)
class Places:
    """What one camera's picture is watched for."""

    zones: Sequence[Zone] = ()
    lines: Sequence[Line] = ()
    patience: Patience = field(default_factory=Patience)


def advance(places: Places, state: State, observation: Observation) -> tuple[State, tuple[Happening, ...]]:
    """What follows from one observation.

    Args:
        places: of this camera; what is known of places that are no more is forgotten without a word.
        state: what was known.
        observation: later than the one before it.

    Returns:
        What is known now, and what happened, in the order of ``places``.
    """
    match observation:
        case Blinded():
            return _blind(places, state, observation)
        case Seen():
            return _seen(places, state, observation)


def _seen(places: Places, state: State, seen: Seen) -> tuple[State, tuple[Happening, ...]]:
    visits: dict[tuple[str, int], Visit] = {}
    sides: dict[tuple[str, int], Side] = {}
    present: dict[str, bool] = {}
    empty: dict[str, float] = {}
    happened: list[Happening] = []
    for zone in places.zones:
        happened += _zone(zone, places.patience, state, seen, visits)
        happened += _presence(zone.name, places.patience, state, seen.now_s, visits, present, empty)
    for line in places.lines:
        happened += _line(line, places.patience, state, seen, sides)
    return State(visits, sides, present, empty), tuple(happened)


def _zone(
    zone: Zone, patience: Patience, state: State, seen: Seen, visits: dict[tuple[str, int], Visit]
) -> list[Happening]:
    """Who came, stays and went; ``visits`` takes those that go on."""
    happened: list[Happening] = []
    rows = np.flatnonzero(zone.holds(seen.anchors)).tolist()
    inside = {int(seen.tracks[row]): seen.classes[row] for row in rows}
    before = {track: visit for (name, track), visit in state.visits.items() if name == zone.name}
    for track, class_name in inside.items():
        visit = before.pop(track, Visit(class_name, seen.now_s, seen.now_s))
        visit = replace(visit, inside_s=seen.now_s)
        stayed_s = seen.now_s - visit.since_s
        if not visit.entered and stayed_s >= patience.enter_s:
            visit = replace(visit, entered=True)
            happened.append(Entered(zone.name, track, visit.class_name))
        if visit.entered and not visit.dwelt and zone.dwell_s is not None and stayed_s >= zone.dwell_s:
            visit = replace(visit, dwelt=True)
            happened.append(Dwelt(zone.name, track, visit.class_name, stayed_s))
        visits[zone.name, track] = visit
    for track, visit in before.items():
        if seen.now_s - visit.inside_s < patience.leave_s:
            visits[zone.name, track] = visit
        elif visit.entered:
            happened.append(Left(zone.name, track, visit.class_name, visit.inside_s - visit.since_s))
    return happened


def _presence(
    zone: str,
    patience: Patience,
    state: State,
    now_s: float,
    visits: Mapping[tuple[str, int], Visit],
    present: dict[str, bool],
    empty_since_s: dict[str, float],
) -> list[Happening]:
    """Whether anybody is in a zone: at once when somebody is, after a while when nobody is."""
    before = state.present.get(zone)
    if any(name == zone and visit.entered for (name, _), visit in visits.items()):
        present[zone] = True
    else:
        since_s = state.empty_since_s.get(zone, now_s)
        present[zone] = bool(before) and now_s - since_s < patience.absent_s
        if present[zone]:
            empty_since_s[zone] = since_s
    return [] if present[zone] == before else [Occupied(zone, present[zone])]


def _line(
    line: Line, patience: Patience, state: State, seen: Seen, sides: dict[tuple[str, int], Side]
) -> list[Happening]:
    """Who stands clear on another side than before, stays there, and went there between the ends of the line."""
    happened: list[Happening] = []
    rows = zip(
        seen.tracks.tolist(), seen.classes, line.offsets(seen.anchors).tolist(), seen.anchors.tolist(), strict=True
    )
    for track, class_name, offset, (x, y) in rows:
        before, right = state.sides.get((line.name, track)), offset > 0
        if abs(offset) < CLEAR_OF_LINE:
            if before is not None:
                sides[line.name, track] = replace(before, seen_s=seen.now_s)
            continue
        if before is None or before.right == right:
            sides[line.name, track] = Side(right, (x, y), seen.now_s, class_name)
            continue
        side = _over(line, before, seen.now_s, (x, y))
        if side.over_s is not None and seen.now_s - side.over_s >= patience.enter_s:
            happened += _crossed(line, track, side)
            side = Side(right, (x, y), seen.now_s, class_name)
        sides[line.name, track] = side
    for (name, track), side in state.sides.items():
        if name != line.name or (name, track) in sides:
            continue
        away_s = seen.now_s - side.seen_s
        if side.over_s is not None and away_s >= patience.absent_s:
            happened += _crossed(line, track, side)
        elif away_s < FORGOTTEN_S:
            sides[name, track] = side
    return happened


def _over(line: Line, before: Side, now_s: float, at: tuple[float, float]) -> Side:
    """A track that stands clear of the line on the other side."""
    if before.over_s is not None:
        return replace(before, seen_s=now_s)
    between = bool(line.between_ends(np.array([before.at]), np.array([at]))[0])
    return replace(before, seen_s=now_s, over_s=now_s, between_ends=between)


def _crossed(line: Line, track: int, side: Side) -> list[Happening]:
    way = Way.OUT if side.right else Way.IN
    return [Crossed(line.name, way, track, side.class_name)] if side.between_ends else []


def _blind(places: Places, state: State, blinded: Blinded) -> tuple[State, tuple[Happening, ...]]:
    """Everybody leaves for a reason that is not theirs, and no zone is known to be empty."""
    left = [
        Left(zone, track, visit.class_name, visit.inside_s - visit.since_s, blinded.reason)
        for (zone, track), visit in state.visits.items()
        if visit.entered
    ]
    crossed = [
        one
        for (name, track), side in state.sides.items()
        for line in places.lines
        if line.name == name and side.over_s is not None
        for one in _crossed(line, track, side)
    ]
    return State(), (
        *left,
        *crossed,
        *(Occupied(zone.name, None) for zone in places.zones if zone.name in state.present),
    )
