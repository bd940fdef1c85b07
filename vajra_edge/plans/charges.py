"""Charges: what a plan did to the process, and how long it waits for its next try. Pure; the clock is an argument.

No charge lasts: each only lengthens the pause before the next try. What a plan is charged with counts together only
where it really happened within one stretch of time, see ``clock.Moment``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vajra_edge.clock import Moment

STRIKES = 3
STRIKES_WITHIN_S = 600.0
"""A plan that took the process down this often within this time while it served gives way to the one before it."""

KEPT = 16
"""Charges of one plan. Three crashes decide; more are kept for people."""

ALONE_S = (5.0, 30.0, 120.0, 600.0)
"""Pauses before the next try where nothing else can serve: the device is blind meanwhile. The last one repeats."""

BESIDE_S = (600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""The same where another plan serves meanwhile; each try may cost that one's frames once more."""


class Charged(str, Enum):
    """With what. LOAD: it took the process down while it was loaded or warmed up. CRASH: while it served.

    UNFIT: it served worse than the one before it. BROKEN: it died twice in a process of its own.
    """

    LOAD = "load"
    CRASH = "crash"
    UNFIT = "unfit"
    BROKEN = "broken"


@dataclass(frozen=True)
class Charge:
    """One of them, with its reason in one line."""

    charged: Charged
    reason: str
    at: Moment

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"charged": self.charged.value, "reason": self.reason, "at": self.at.to_json()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Charge:
        """The inverse.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        return cls(Charged(plain["charged"]), str(plain["reason"]), Moment.from_json(plain["at"]))


@dataclass(frozen=True)
class Hold:
    """A plan in doubt: it waits, and is tried in a process of its own before it is loaded again.

    Attributes:
        reason: why, in one line.
        since: the charge that brought it here.
        level: how often in a row: 1 for the first time.
        charged: with what.
    """

    reason: str
    since: Moment
    level: int
    charged: Charged

    def wait_s(self, *, alone: bool) -> float:
        """From ``since`` to the next try.

        Args:
            alone: nothing else can serve meanwhile.
        """
        pauses_s = ALONE_S if alone else BESIDE_S
        level = len(pauses_s) if self.charged is Charged.BROKEN else self.level
        return pauses_s[min(level, len(pauses_s)) - 1]

    def left_s(self, now: Moment, *, alone: bool) -> float:
        """Until the next try; 0 once it is due. Where no clock tells how long ago, this boot counts."""
        return max(self.wait_s(alone=alone) - now.at_least_since_s(self.since), 0.0)


def hold_of(charges: Sequence[Charge]) -> Hold | None:
    """What all charges of one plan come to, the newest last; None: nothing keeps it from being loaded.

    A load that fails, a bad service and a proof hold at once, crashes in service when they gather. Whatever comes soon
    after the pause that it was given lengthens the next one; whatever comes long after, or nobody knows when, is a
    first time again.
    """
    hold: Hold | None = None
    gathered: list[Charge] = []
    for charge in charges:
        if hold is not None and not _soon_after(hold, charge):
            hold = None
        gathered = [one for one in gathered if _within(one.at, charge.at, STRIKES_WITHIN_S)]
        if charge.charged is Charged.CRASH:
            gathered.append(charge)
        if hold is not None or charge.charged is not Charged.CRASH or len(gathered) >= STRIKES:
            reason = _gathered(gathered) if hold is None and charge.charged is Charged.CRASH else charge.reason
            hold = Hold(reason, charge.at, hold.level + 1 if hold else 1, charge.charged)
            gathered = []
    return hold


def _soon_after(hold: Hold, charge: Charge) -> bool:
    return _within(hold.since, charge.at, hold.wait_s(alone=False) + STRIKES_WITHIN_S)


def _within(earlier: Moment, later: Moment, most_s: float) -> bool:
    passed_s = later.since_s(earlier)
    return passed_s is not None and passed_s <= most_s


def _gathered(crashes: Sequence[Charge]) -> str:
    return f"it crashed {len(crashes)} times in {STRIKES_WITHIN_S / 60:.0f} minutes ({crashes[-1].reason})"
