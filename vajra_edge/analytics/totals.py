"""Totals: how often what happened at a camera's places, in all and by hour, and when nobody could see.

An hour that is missing was not seen, which is not the same as zero: intervals in which the camera was blind are named,
with a length by a clock that nobody can set. Hours are those of the wall clock. Where that jumps, another entry begins,
be it for the same hour again, so that no entry mixes two hours that were called the same.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any, TypeAlias

from vajra_edge.analytics.watch import Crossed, Entered, Happening
from vajra_edge.clock import Moment

HOUR_S = 3600

MOST_HOURS = 48
"""Entries that are kept; older ones are in the totals only."""

MOST_BLIND = 100
"""Intervals that are kept; beyond them the two oldest become one, which covers what lies between them too."""

JUMP_S = 2.0
"""The wall clock against the boot's own between two looks: more than any clock drifts or is slewed."""

SCHEMA = 1

MOST_COUNTED = 2**53
"""A billion a second for a hundred days. A count beyond it, or below zero, is damage."""


class Why(str, Enum):
    """Why nobody could see."""

    DOWN = "down"
    CAMERA = "camera"
    FRAMES = "frames"
    SEVERAL = "several"


class What(str, Enum):
    """What is counted."""

    ENTERED = "entered"
    IN = "in"
    OUT = "out"


Key: TypeAlias = "tuple[str, What, str]"
"""Name of the place, what happened there, class."""


@dataclass(frozen=True)
class Blind:
    """An interval in which nothing was seen.

    Attributes:
        begin: the last moment at which something could be seen.
        end: the first again.
        why: see ``Why``.
    """

    begin: Moment
    end: Moment
    why: Why

    @property
    def length_s(self) -> float | None:
        """None where no clock tells."""
        return self.end.since_s(self.begin)


@dataclass(frozen=True)
class Hour:
    """What happened in an hour, or in a part of it.

    Attributes:
        begin: when the entry began.
        seen_s: how long something could be seen.
        counts: by place, what, and class.
    """

    begin: Moment
    seen_s: float = 0.0
    counts: Mapping[Key, int] = field(default_factory=dict)

    @property
    def unix_s(self) -> int:
        """When the hour began by the wall clock of then."""
        return _hour_s(self.begin)

    def goes_on(self, before: Moment, now: Moment) -> bool:
        """Whether ``now`` belongs to it, too, as ``before`` did."""
        same_hour = _hour_s(now) == self.unix_s
        if before.boot and before.boot == now.boot:
            jumped_s = abs((now.unix_s - before.unix_s) - (now.boot_s - before.boot_s))
            return same_hour and jumped_s <= JUMP_S
        return same_hour and before.synchronised and now.synchronised


@dataclass(frozen=True)
class Totals:
    """Of one camera.

    Attributes:
        since: when the count began.
        until: up to when it is complete.
        counts: in all.
        hours: the oldest first.
        blind: the oldest first.
    """

    since: Moment
    until: Moment
    counts: Mapping[Key, int] = field(default_factory=dict)
    hours: tuple[Hour, ...] = ()
    blind: tuple[Blind, ...] = ()

    @classmethod
    def begin(cls, now: Moment) -> Totals:
        """Nothing happened yet."""
        return cls(now, now)

    def after(self, now: Moment, seen_s: float, happened: Iterable[Happening]) -> Totals:
        """What is known at a later moment.

        Args:
            now: not before ``until``.
            seen_s: how much of the time between could be seen.
            happened: between.
        """
        news = counted(happened)
        last = self.hours[-1] if self.hours else None
        set_back = last is not None and last.unix_s == _hour_s(now) and not last.goes_on(self.until, now)
        hours = self.hours
        if seen_s or news or set_back:  # an hour in which nobody could see is missing
            hours = _with(hours, self.until, Hour(now, seen_s, news))
        return replace(self, until=now, counts=_sum(self.counts, news), hours=hours)

    def blinded(self, blind: Blind) -> Totals:
        """With an interval that nobody could see."""
        last = self.blind[-1] if self.blind else None
        if last is not None and (last.end, last.why) == (blind.begin, blind.why):
            return replace(self, blind=(*self.blind[:-1], replace(last, end=blind.end)))
        all_blind = (*self.blind, blind)
        if len(all_blind) > MOST_BLIND:
            first, second = all_blind[:2]
            why = first.why if first.why is second.why else Why.SEVERAL
            all_blind = (Blind(first.begin, second.end, why), *all_blind[2:])
        return replace(self, blind=all_blind)

    def continued(self, begun: Totals) -> Totals:
        """These, as they were on disk, and then ``begun``, which began later: nobody counted between."""
        both = self.blinded(Blind(self.until, begun.since, Why.DOWN))
        for blind in begun.blind:
            both = both.blinded(blind)
        hours = _with(self.hours, self.until, begun.hours[0]) + begun.hours[1:] if begun.hours else self.hours
        return replace(both, until=begun.until, counts=_sum(self.counts, begun.counts), hours=hours[-MOST_HOURS:])

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema": SCHEMA,
            "since": self.since.to_json(),
            "until": self.until.to_json(),
            "counts": _rows(self.counts),
            "hours": [
                {
                    # not rounded: what began in the last hundredth of an hour would be of the next one after a restart
                    "begin": {**hour.begin.to_json(), "unix_s": hour.begin.unix_s},
                    "seen_s": round(hour.seen_s, 2),
                    "counts": _rows(hour.counts),
                }
                for hour in self.hours
            ],
            "blind": [
                {"begin": blind.begin.to_json(), "end": blind.end.to_json(), "why": blind.why.value}
                for blind in self.blind
            ],
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Totals:
        """The inverse.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, or of another type, version or size than was written.
        """
        if plain["schema"] != SCHEMA:
            raise ValueError(f"totals have schema {plain['schema']}, known is {SCHEMA}")
        moment = Moment.from_json
        return cls(
            since=moment(plain["since"]),
            until=moment(plain["until"]),
            counts=_counts(plain["counts"]),
            hours=tuple(
                Hour(moment(hour["begin"]), _length_s(hour["seen_s"]), _counts(hour["counts"]))
                for hour in plain["hours"]
            ),
            blind=tuple(
                Blind(moment(blind["begin"]), moment(blind["end"]), Why(blind["why"])) for blind in plain["blind"]
            ),
        )


def counted(happened: Iterable[Happening]) -> Counter[Key]:
    """What of it is counted: who entered a zone, who crossed a line."""
    news: Counter[Key] = Counter()
    for one in happened:
        match one:
            case Entered(zone, _, class_name):
                news[zone, What.ENTERED, class_name] += 1
            case Crossed(line, way, _, class_name):
                news[line, What(way.value), class_name] += 1
            case _:
                pass
    return news


def utc(moment: Moment) -> datetime:
    """By the wall clock of then, which ``synchronised`` says whether to trust."""
    return datetime.fromtimestamp(moment.unix_s, timezone.utc)


def by_class(counts: Mapping[Key, int], place: str, what: What) -> dict[str, int]:
    """How often it happened there, by class."""
    return {name: count for (where, kind, name), count in sorted(counts.items()) if (where, kind) == (place, what)}


def _hour_s(moment: Moment) -> int:
    return int(moment.unix_s // HOUR_S) * HOUR_S


def _with(hours: tuple[Hour, ...], until: Moment, more: Hour) -> tuple[Hour, ...]:
    """With what happened after ``until``: in the last hour still, or in another."""
    if hours and hours[-1].goes_on(until, more.begin):
        last = hours[-1]
        whole = replace(last, seen_s=last.seen_s + more.seen_s, counts=_sum(last.counts, more.counts))
        return (*hours[:-1], whole)
    return (*hours, more)[-MOST_HOURS:]


def _sum(first: Mapping[Key, int], second: Mapping[Key, int]) -> Mapping[Key, int]:
    return Counter(first) + Counter(second) if second else first


def _rows(counts: Mapping[Key, int]) -> list[list[str | int]]:
    return [[place, what.value, name, count] for (place, what, name), count in sorted(counts.items())]


def _counts(rows: Iterable[Any]) -> dict[Key, int]:
    return {(str(place), What(what), str(name)): _count(count) for place, what, name, count in rows}


def _count(plain: Any) -> int:
    if not 0 <= (count := operator.index(plain)) <= MOST_COUNTED:
        raise ValueError(f"{plain:g} is no count")
    return count


def _length_s(plain: Any) -> float:
    if not 0.0 <= (length_s := float(plain)) <= MOST_COUNTED:
        raise ValueError(f"{length_s:g} s is no time that passed")
    return length_s
