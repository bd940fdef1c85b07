"""Progress: what a build tells of itself, step by step, to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of a build.

    Attributes:
        stage: load, export, simplify, calibrate, build, verify or store.
        percent: of the whole stage, 0 to 100, or None where it cannot be known.
        message: what is being done, for a person.
        eta_s: seconds left, or None.
        waiting: for another build; the time for this one does not run yet.
    """

    stage: str
    percent: float | None = None
    message: str = ""
    eta_s: float | None = None
    waiting: bool = False


Report = Callable[[Progress], None]
"""Takes progress; raises ``BuildCancelled`` when the build is to stop."""
