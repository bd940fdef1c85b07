"""Trials: plans in doubt are tried in a child before the daemon loads them. A child that dies proves something.

Nothing else runs in that process: no camera, no broker, no other plan. A plan that dies there twice is broken, whatever
the daemon was at when it died; whatever else goes wrong proves nothing.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from vajra_edge.build.trial import TrialRequest
from vajra_edge.daemon.build_process import Builder, BuildEvent, BuildProgressed, BuildSucceeded
from vajra_edge.daemon.events import Job

log = logging.getLogger(__name__)

DEATHS = 2
"""One may be the memory's, or a ray's."""

GRACE_S = 3.0
COMMAND = (sys.executable, "-m", "vajra_edge.build.trial")


class Outcome(Enum):
    """What a trial came to."""

    PASSED = "passed"
    BROKEN = "broken"
    OPEN = "open"


@dataclass(frozen=True)
class Tried:
    """The end of a trial; ``reason`` in one line, empty where the plan passed."""

    job: Job
    outcome: Outcome
    reason: str = ""


class PlanTrials:
    """One after the other. Called by the supervisor alone.

    Args:
        post: takes ``Tried``, from a thread of ours; must not wait.
        command: the child.
    """

    def __init__(self, post: Callable[[Tried], None], command: tuple[str, ...] = COMMAND) -> None:
        self._post = post
        self._child = Builder(self._told, GRACE_S, command, "trial")
        self._lock = threading.Lock()  # a child that died is followed by its second from a thread of ours
        self._asked: dict[int, _Asked] = {}
        self._closed = False

    def start(self, job: Job, request: TrialRequest) -> None:
        """Try a plan; ``Tried`` follows."""
        log.info("plan %s is tried in a process of its own before it is loaded", job.fingerprint[:12])
        self._start(_Asked(job, request))

    def close(self, timeout_s: float) -> bool:
        """End what runs; whether it ended in time."""
        with self._lock:
            self._closed = True
        return self._child.close(timeout_s)

    def _start(self, asked: _Asked) -> None:
        with self._lock:
            if not self._closed:
                self._asked[asked.job.number] = asked
                self._child.start(asked.job.number, asked.request)

    def _told(self, event: BuildEvent) -> None:
        if isinstance(event, BuildProgressed):
            return
        with self._lock:
            asked = self._asked.pop(event.job_id)
            if self._closed:
                return
        if isinstance(event, BuildSucceeded):
            self._post(Tried(asked.job, Outcome.PASSED))
        elif not event.crashed:
            self._post(Tried(asked.job, Outcome.OPEN, event.message))
        elif asked.deaths + 1 < DEATHS:
            self._start(replace(asked, deaths=asked.deaths + 1))
        else:
            reason = f"it died {DEATHS} times in a process of its own: {event.message}"
            self._post(Tried(asked.job, Outcome.BROKEN, reason))


@dataclass(frozen=True)
class _Asked:
    job: Job
    request: TrialRequest
    deaths: int = 0
