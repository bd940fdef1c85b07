"""Missed precisions: looks whether one that a build missed for want of memory or time is to be tried again by now.

When that is stands on the disk, so that it holds over restarts, and so does how often it was tried: see
``build.refusals.Missed``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from vajra_edge.backends.base import select
from vajra_edge.build.refusals import Refusals
from vajra_edge.build.request import BuildRequest
from vajra_edge.daemon.background import Background
from vajra_edge.plans.fingerprint import LIBRARY

log = logging.getLogger(__name__)

LOOK_S = 60.0
"""Between two looks at what is on the disk."""


@dataclass(frozen=True)
class MissedSeen:
    """Event: what is above a plan that serves.

    Attributes:
        fingerprint: of the plan.
        line: what was missed, why, and when it is tried again, for people; empty where nothing was.
        due: it is to be tried now, and that was counted.
    """

    fingerprint: str
    line: str
    due: bool


class MissedWatch:
    """The looks of one daemon. Called by the supervisor alone.

    Args:
        background: where libraries and the disk may take their time; posts ``MissedSeen``.
    """

    def __init__(self, background: Background[MissedSeen]) -> None:
        self._background = background
        self._due_s = 0.0

    def tick(self, request: BuildRequest, fingerprint: str, now_s: float) -> None:
        """Look now and then. Called while nothing is under way and a plan of a lower precision serves.

        Args:
            request: that it was built for.
            fingerprint: of the plan.
            now_s: monotonic.
        """
        if now_s >= self._due_s:
            self._due_s = now_s + LOOK_S
            self._background.look("look for what a build missed", lambda: look(request, fingerprint))

    def soon(self) -> None:
        """Something begins: look again once it has ended."""
        self._due_s = 0.0


def look(request: BuildRequest, fingerprint: str) -> MissedSeen:
    """What was missed, and whether its time has come.

    Raises:
        VajraError: the library cannot be asked for its release.
    """
    library = select(request.backend).backend.identity(request.spec).get(LIBRARY, "")
    refusals = Refusals(request.state_dir, fingerprint, library)
    missed = refusals.missed
    if missed is None:
        return MissedSeen(fingerprint, "", due=False)
    if refusals.try_missed():
        line = f"{missed.reason}; it is tried again now"
        log.info("plan %s: %s", fingerprint[:12], line)
        return MissedSeen(fingerprint, line, due=True)
    return MissedSeen(fingerprint, missed.line, due=False)
