"""Place messages: what subscribers receive about a camera's zones and lines, and how it becomes bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

import orjson
from pydantic import AwareDatetime, ConfigDict, FiniteFloat

from vajra_edge.mqtt.messages import SCHEMA, Draft, Schema
from vajra_edge.mqtt.one_of import OneOf
from vajra_edge.mqtt.topics import events_of
from vajra_edge.plans.report import Count

_OPTIONS = orjson.OPT_UTC_Z


@dataclass(frozen=True)
class PlaceEvent:
    """``camera/<id>/events``.

    Attributes:
        at: when it was seen.
        clock_synchronised: the clock that says so was known to be right.
        event: enter, dwell, leave or cross.
        place: name of the zone or line.
        track_id: of the object.
        class_name: of the object.
        way: in or out, of a crossing.
        dwell_s: how long it was in the zone.
        reason: why nobody could see it any more, where it left for that; else empty.
    """

    at: datetime
    clock_synchronised: bool
    event: str
    place: str
    track_id: int
    class_name: str
    way: str | None = None
    dwell_s: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class ZoneState:
    """A zone now.

    Attributes:
        name: of the zone.
        present: somebody is in it; None: nobody can see.
        count: how many are in it, by class.
        entered: how many came into it since the count began, by class.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    present: bool | None
    count: Mapping[str, Count]
    entered: Mapping[str, Count]


@dataclass(frozen=True)
class LineState:
    """A line.

    Attributes:
        name: of the line.
        crossed_in: how many crossed it to its right since the count began, by class.
        crossed_out: how many crossed it to its left, by class.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    crossed_in: Mapping[str, Count]
    crossed_out: Mapping[str, Count]


@dataclass(frozen=True)
class PlacesStatus:
    """``camera/<id>/places``, retained.

    Attributes:
        device: the device's id.
        camera: the camera's id.
        blind: why nobody can see now: ``camera``: it does not deliver; ``frames``: nothing comes through; ``down``: the
            daemon has stopped; or empty.
        zones: as in the settings.
        lines: as in the settings.
        since: when the count began; it goes on over restarts.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    camera: str
    blind: Annotated[str, OneOf(("", "down", "camera", "frames"))]
    zones: Sequence[ZoneState]
    lines: Sequence[LineState]
    since: AwareDatetime
    at: AwareDatetime
    clock_synchronised: bool
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class HourCounts:
    """What happened in an hour, or in a part of it.

    Attributes:
        hour: when it began, by the wall clock of then.
        clock_synchronised: that clock was known to be right.
        seen_s: for how long of it somebody could see.
        entered: how many came into each zone, by class.
        crossed_in: how many crossed each line to its right, by class.
        crossed_out: how many crossed each line to its left, by class.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    hour: AwareDatetime
    clock_synchronised: bool
    seen_s: FiniteFloat
    entered: Mapping[str, Mapping[str, Count]]
    crossed_in: Mapping[str, Mapping[str, Count]]
    crossed_out: Mapping[str, Mapping[str, Count]]


@dataclass(frozen=True)
class BlindInterval:
    """An interval in which nobody could see.

    Attributes:
        begin: by the wall clock of then.
        end: likewise.
        clock_synchronised: that clock was known to be right both times.
        length_s: by a clock that nobody sets; None where none tells.
        why: ``down``: the daemon did not run, the board slept, or the camera was not watched; else as ``blind`` says;
            or ``several``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    begin: AwareDatetime
    end: AwareDatetime
    clock_synchronised: bool
    length_s: FiniteFloat | None
    why: Annotated[str, OneOf(("down", "camera", "frames", "several"))]


@dataclass(frozen=True)
class TotalsStatus:
    """``camera/<id>/totals``, retained.

    Attributes:
        device: the device's id.
        camera: the camera's id.
        since: when the count began.
        hours: the newest 48, the newest last; one that is missing was not seen, and one may come twice where a clock
            was set.
        blind: when nobody could see, the newest last; the newest of all may last still.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    camera: str
    since: AwareDatetime
    hours: Sequence[HourCounts]
    blind: Sequence[BlindInterval]
    at: AwareDatetime
    clock_synchronised: bool
    schema: Schema = SCHEMA


def encode_event(event: PlaceEvent, camera: str, device: str) -> Draft:
    """One event, but for its number."""
    content = orjson.dumps(
        {
            "replayed": False,
            "at": event.at,
            "clock_synchronised": event.clock_synchronised,
            "event": event.event,
            "place": event.place,
            "way": event.way,
            "track_id": event.track_id,
            "class": event.class_name,
            "dwell_s": event.dwell_s,
            "reason": event.reason,
        },
        option=_OPTIONS,
    )
    return Draft(events_of(camera), device, content[1:])


def encode_places(message: PlacesStatus | TotalsStatus) -> bytes:
    """JSON."""
    return orjson.dumps(message, option=_OPTIONS, default=dict)
