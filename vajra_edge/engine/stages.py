"""Stages: what a build is doing, for the progress bar, and what each stage took, for the manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vajra_edge.engine import child
from vajra_edge.engine.report import StageReport
from vajra_edge.progress import Progress, Report


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
        self.taken[name] = StageReport(round(spent_s, 3), child.peak_rss_bytes())
