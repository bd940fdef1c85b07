"""Progress of a build: its stages, what each of them took, and the end of the time for further attempts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vajra_edge.build import protocol
from vajra_edge.errors import BuildCancelled
from vajra_edge.plans.report import StageReport
from vajra_edge.progress import Progress, Report
from vajra_edge.wording import Setting, say


@dataclass
class Stages:
    """Reports each stage as it begins, and keeps what it took.

    Attributes:
        report: takes progress.
        taken: what each stage took, by name.
    """

    report: Report
    taken: dict[str, StageReport] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str, message: str) -> Iterator[None]:
        """Run the body as the stage ``name``; one that is entered again adds up."""
        self.report(Progress(name, None, message))
        before_s = time.monotonic()
        yield
        spent_s = time.monotonic() - before_s
        if (earlier := self.taken.get(name)) is not None:
            spent_s += earlier.seconds
        self.taken[name] = StageReport(round(spent_s, 3), protocol.peak_rss_bytes())


Clock = Callable[[], float]

LONG = ("calibrate", "build")
"""Stages that are cut short. The check of a plan that is built already takes seconds."""

OVER = say("the time for it was over, see ", Setting.BUILD_TIMEOUT_S)


class OutOfTime(BuildCancelled):
    """The time for this attempt is over; raised from the report of progress and caught by whoever began the attempt.

    It is a ``BuildCancelled`` because libraries and passes let that one through.
    """


class WalkProgress:
    """Takes the progress of each attempt and reports that of all.

    Args:
        report: takes progress; may raise to stop.
        clock: seconds, monotonic.
        until_s: on that clock, when attempts that can be spared are cut short.
    """

    def __init__(self, report: Report, clock: Clock, until_s: float) -> None:
        self.clock = clock
        self._report, self._until_s = report, until_s
        self._name = ""
        self._begun = self._following = 0
        self._spared = False
        self._percent: float | None = None
        self._since_s: float | None = None

    @property
    def left_s(self) -> float:
        """Time until attempts are cut short, below 0 after that."""
        return self._until_s - self.clock()

    def begin(self, name: str, *, following: int, spared: bool) -> None:
        """The next attempt.

        Args:
            name: of it, for people.
            following: builds that are sure to come after it if it succeeds.
            spared: it is cut short when time is up.
        """
        self._name, self._following, self._spared = name, following, spared
        self._begun += 1
        self._since_s = None

    def report(self, progress: Progress) -> None:
        """One step of the attempt.

        Raises:
            OutOfTime: time is up, and the attempt can be spared.
        """
        if self._spared and progress.stage in LONG and self.left_s < 0:
            raise OutOfTime(OVER)
        self._report(self._of_all(progress) if progress.stage == "build" else progress)

    def _of_all(self, progress: Progress) -> Progress:
        """Percent and remaining time of this build and those that are known to follow; percent never goes back."""
        expected = self._begun + self._following
        if self._since_s is None:
            self._since_s = self.clock()
        if progress.percent is not None:
            share = (self._begun - 1 + progress.percent / 100) / expected
            self._percent = max(self._percent or 0.0, round(100 * share, 1))
        eta_s = progress.eta_s
        if eta_s is not None:
            eta_s += self._following * (self.clock() - self._since_s + eta_s)
        place = f", {self._begun} of {expected}" if expected > 1 else ""
        message = f"{self._name}{place}: {progress.message}" if progress.message else f"{self._name}{place}"
        return replace(progress, percent=self._percent, message=message, eta_s=eta_s)
