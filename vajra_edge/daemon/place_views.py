"""Place views: settings, frames and counts as the machine of a camera's places takes and subscribers read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from typing_extensions import assert_never

from vajra_edge.analytics.doubts import of_places
from vajra_edge.analytics.places import Line, Zone
from vajra_edge.analytics.totals import Key, Totals, What, by_class, utc
from vajra_edge.analytics.watch import Crossed, Dwelt, Entered, Happening, Left, Occupied, Places, Seen, State
from vajra_edge.clock import Moment
from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.mqtt.place_messages import (
    BlindInterval,
    HourCounts,
    LineState,
    PlaceEvent,
    PlacesStatus,
    TotalsStatus,
    ZoneState,
)
from vajra_edge.tracking.tracker import NO_TRACK, Numbers
from vajra_edge.types import Detections, Frame

_MOST_DOUBTS = 3
"""That are told at a time."""


def places_of(camera: CameraSettings) -> Places:
    """What the settings ask to be watched."""
    zones = tuple(Zone(zone.name, np.array(zone.corners), zone.dwell_s) for zone in camera.zones)
    return Places(zones, tuple(Line(line.name, line.start, line.end) for line in camera.lines))


def doubts_of(settings: Settings) -> str:
    """What is doubtful about the places of all cameras, in one line; empty where nothing is."""
    doubts = [f"camera {one.id}: {doubt}" for one in settings.cameras for doubt in of_places(places_of(one))]
    more = len(doubts) - _MOST_DOUBTS
    return "; ".join(doubts[:_MOST_DOUBTS]) + (f"; and {more} more" if more > 0 else "")


def seen_of(frame: Frame, found: Detections, tracks: Numbers, names: Sequence[str]) -> Seen:
    """Who is tracked, and where each stands: the middle of the lower edge of its box."""
    rows = np.flatnonzero(tracks != NO_TRACK)
    boxes = found.xyxy[rows].astype(np.float64)
    standing = np.stack(((boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]), 1)
    classes = [names[index] if 0 <= index < len(names) else str(index) for index in found.class_id[rows].tolist()]
    return Seen(frame.captured_ns / 1e9, tracks[rows], classes, standing / frame.resolution_wh)


def event_of(happening: Happening, at: datetime, *, clock_synchronised: bool) -> PlaceEvent | None:
    """As subscribers read it; None where the state says it."""
    when = (at, clock_synchronised)
    match happening:
        case Entered(zone, track, class_name):
            return PlaceEvent(*when, "enter", zone, track, class_name)
        case Left(zone, track, class_name, dwell_s, reason):
            return PlaceEvent(*when, "leave", zone, track, class_name, dwell_s=round(dwell_s, 2), reason=reason)
        case Dwelt(zone, track, class_name, dwell_s):
            return PlaceEvent(*when, "dwell", zone, track, class_name, dwell_s=round(dwell_s, 2))
        case Crossed(line, way, track, class_name):
            return PlaceEvent(*when, "cross", line, track, class_name, way=way.value)
        case Occupied():
            return None
        case _:
            assert_never(happening)


def places_status(
    device: str, camera: str, places: Places, state: State, totals: Totals, blind: str, now: Moment
) -> PlacesStatus:
    """Who is where now, and how many came in all."""
    counts = totals.counts
    zones = [
        ZoneState(
            zone.name,
            state.present.get(zone.name),
            dict(sorted(state.counts(zone.name).items())),
            by_class(counts, zone.name, What.ENTERED),
        )
        for zone in places.zones
    ]
    lines = [
        LineState(line.name, by_class(counts, line.name, What.IN), by_class(counts, line.name, What.OUT))
        for line in places.lines
    ]
    return PlacesStatus(device, camera, blind, zones, lines, utc(totals.since), utc(now), now.synchronised)


def totals_status(device: str, camera: str, totals: Totals, now: Moment) -> TotalsStatus:
    """What happened by hour, and when nobody could see."""
    hours = [
        HourCounts(
            utc(replace(hour.begin, unix_s=hour.unix_s)),
            hour.begin.synchronised,
            round(hour.seen_s, 1),
            *({place: by_class(hour.counts, place, what) for place in _places(hour.counts, what)} for what in What),
        )
        for hour in totals.hours
    ]
    blind = [
        BlindInterval(
            utc(one.begin),
            utc(one.end),
            one.begin.synchronised and one.end.synchronised,
            _rounded(one.length_s),
            one.why.value,
        )
        for one in totals.blind
    ]
    return TotalsStatus(device, camera, utc(totals.since), hours, blind, utc(now), now.synchronised)


def _places(counts: Mapping[Key, int], what: What) -> list[str]:
    return sorted({place for place, kind, _ in counts if kind is what})


def _rounded(length_s: float | None) -> float | None:
    return None if length_s is None else round(length_s, 1)
