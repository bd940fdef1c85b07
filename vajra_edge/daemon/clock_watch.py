"""Clock watch: whether the wall clock jumped, or became known to be right, since the last look.

What jumps is seen against the clock of this boot, which nobody sets and which goes on while the board sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from vajra_edge.clock import Moment
from vajra_edge.plans.audit_log import AuditEntry, Happened

JUMP_S = 0.25
"""Time servers' programs set a clock that is off by 0.4 s or more, and slew any other."""

SLEW = 0.1
"""Of the time between two looks: what chrony slews a clock by at the most is 8 %, and that is no jump."""

QUIET_S = 60.0
"""Once something was told the next waits for so long: a clock that two programs fight over fills no history."""


@dataclass(frozen=True)
class ClockJump:
    """The wall clock was set.

    Attributes:
        expected_unix_s: what it would have said.
        unix_s: what it says.
        by_s: by how much it was set, forward or back; of several jumps the sum.
        jumps: how many.
    """

    expected_unix_s: float
    unix_s: float
    by_s: float
    jumps: int = 1

    def then(self, later: ClockJump) -> ClockJump:
        """Both as one."""
        return replace(self, unix_s=later.unix_s, by_s=self.by_s + later.by_s, jumps=self.jumps + 1)

    def entry(self) -> AuditEntry:
        """For the history."""
        direction = "forward" if self.by_s >= 0.0 else "back"
        times = f", in {self.jumps} steps" if self.jumps > 1 else ""
        reason = f"from {_utc(self.expected_unix_s)} to {_utc(self.unix_s)}, {abs(self.by_s):.3f} s {direction}{times}"
        figures = {"by_s": self.by_s, "from_unix_s": self.expected_unix_s, "to_unix_s": self.unix_s}
        rounded = {name: round(value, 3) for name, value in figures.items()}
        return AuditEntry(Happened.CLOCK_JUMPED, reason=reason, asked_by="the clock", figures=rounded)


class ClockWatch:
    """Looks at the clocks. Called by the supervisor alone.

    Args:
        now: reads them.
    """

    def __init__(self, now: Callable[[], Moment]) -> None:
        self._now = now
        self._last = now()
        self._known = self._last.synchronised
        self._jump: ClockJump | None = None
        self._told_s: dict[Happened, float] = {}

    def look(self) -> tuple[AuditEntry, ...]:
        """What happened since the last look, in order."""
        here, last = self._now(), self._last
        self._last = here
        passed_s = here.boot_s - last.boot_s
        by_s = here.unix_s - last.unix_s - passed_s
        if abs(by_s) > JUMP_S + SLEW * passed_s:
            new = ClockJump(last.unix_s + passed_s, here.unix_s, by_s)
            self._jump = new if self._jump is None else self._jump.then(new)
        return (*self._jumped(here), *self._trusted(here))

    def _jumped(self, here: Moment) -> tuple[AuditEntry, ...]:
        if self._jump is None or not self._may_tell(Happened.CLOCK_JUMPED, here):
            return ()
        jump, self._jump = self._jump, None
        return (replace(jump.entry(), at=here),)

    def _trusted(self, here: Moment) -> tuple[AuditEntry, ...]:
        if here.synchronised == self._known or not self._may_tell(Happened.CLOCK_SYNCHRONISED, here):
            return ()
        self._known = here.synchronised
        if here.synchronised:
            reason = f"it says {_utc(here.unix_s)}, {here.boot_s:.0f} s after the boot"
            return (AuditEntry(Happened.CLOCK_SYNCHRONISED, reason=reason, asked_by="the clock", at=here),)
        reason = "no time server has confirmed it for hours, or somebody set it"
        return (AuditEntry(Happened.CLOCK_UNSYNCHRONISED, reason=reason, asked_by="the clock", at=here),)

    def _may_tell(self, happened: Happened, here: Moment) -> bool:
        if here.boot_s - self._told_s.get(happened, float("-inf")) < QUIET_S:
            return False
        self._told_s[happened] = here.boot_s
        return True


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="milliseconds")
