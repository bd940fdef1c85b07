"""Admission: how many requests are taken, of each caller and of all together; the rest hears "busy", or nothing.

A request costs the daemon an answer, and a refusal costs one too. So a flood is answered "busy" a few times a second,
and what comes beyond that is only counted: frames must not wait for strangers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

CALLERS_KEPT = 64
"""Callers whose pace is remembered; whoever was not heard for longest is forgotten, and begins anew."""


class Verdict(Enum):
    """What becomes of a request."""

    TAKEN = "taken"
    BUSY = "busy"
    SILENT = "silent"


@dataclass(frozen=True)
class RequestPace:
    """So many a second for ever, and so many at once after a rest."""

    each_s: float
    at_once: float


@dataclass(frozen=True)
class AdmissionLimits:
    """What a way in lets through.

    Attributes:
        caller: requests of one caller.
        all_callers: requests of all together.
        refusals: answers of the kind "busy", of all together.
        open: requests of one verb that wait for their answer.
    """

    caller: RequestPace
    all_callers: RequestPace
    refusals: RequestPace
    open: int


class Bucket:
    """One pace, kept.

    Args:
        pace: how fast it fills, and how much it holds; it begins full.
        now_s: monotonic.
    """

    def __init__(self, pace: RequestPace, now_s: float) -> None:
        self._pace = pace
        self._left, self._at_s = pace.at_once, now_s

    def take(self, now_s: float) -> bool:
        """Take one, if there is one."""
        filled = self._left + self._pace.each_s * max(now_s - self._at_s, 0.0)
        self._left, self._at_s = min(filled, self._pace.at_once), now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Admission:
    """Decides about each request. Any thread may ask.

    Args:
        limits: of this way in.
        clock: monotonic seconds.
    """

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, Bucket] = OrderedDict()
        self._all = Bucket(limits.all_callers, clock())
        self._refusals = Bucket(limits.refusals, clock())
        self._open: Counter[str] = Counter()
        self._refused = 0

    @property
    def refused(self) -> int:
        """Requests that were not taken, since the start."""
        return self._refused

    def ask(self, caller: str, verb: str) -> Verdict:
        """Whether a request is taken; each that is must be followed by ``done``, once it was answered."""
        with self._lock:
            now_s = self._clock()
            room = self._open[verb] < self._limits.open
            if self._bucket(caller, now_s).take(now_s) and room and self._all.take(now_s):
                self._open[verb] += 1
                return Verdict.TAKEN
            self._refused += 1
            return Verdict.BUSY if self._refusals.take(now_s) else Verdict.SILENT

    def done(self, verb: str) -> None:
        """A request that was taken has had its last answer."""
        with self._lock:
            self._open[verb] = max(self._open[verb] - 1, 0)

    def _bucket(self, caller: str, now_s: float) -> Bucket:
        bucket = self._callers.pop(caller, None) or Bucket(self._limits.caller, now_s)
        self._callers[caller] = bucket
        if len(self._callers) > CALLERS_KEPT:
            self._callers.popitem(last=False)
        return bucket
