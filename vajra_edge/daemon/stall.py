"""Stall: whether all loops of the daemon stood still at once, which is the board's doing and no loop's.

A frozen board, a stuck disk below the program's own pages, a stop signal or a debugger stops every thread at the same
moment. What tells is that nobody gave a sign of life and nobody looked: a loop that hangs by itself leaves the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

STILL_S = 5.0
"""Longer than any loop waits on purpose without a sign of life, several times over."""

ASLEEP_S = 2.0
"""The two clocks drift by far less between two looks."""

KEPT = 8
"""Stalls that are remembered."""

BUSY = 0.5
"""Of the time in which nobody gave a sign: with more than this on the CPU, a library held all threads up."""


@dataclass(frozen=True)
class Clocks:
    """Seconds of CLOCK_MONOTONIC, of CLOCK_BOOTTIME, which goes on while the board sleeps, and of CPU time."""

    monotonic_s: float
    boot_s: float
    cpu_s: float


def read_clocks() -> Clocks:
    """Now."""
    return Clocks(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.process_time())


@dataclass(frozen=True)
class Stall:
    """All loops stood still.

    Attributes:
        until_s: monotonic time at which somebody moved again.
        seconds: for how long.
        asleep: the board was suspended; CLOCK_MONOTONIC stood still too, so that nobody seems late.
        busy: the process was on the CPU meanwhile: a library of it kept the interpreter from all threads.
    """

    until_s: float
    seconds: float
    asleep: bool = False
    busy: bool = False

    @property
    def line(self) -> str:
        """For people."""
        if self.asleep:
            return f"the board slept for {self.seconds:.0f} s"
        if self.busy:
            return f"a library kept every thread of the daemon waiting for {self.seconds:.0f} s"
        return f"the board stood still for {self.seconds:.0f} s"


class Stillness:
    """Hears every sign of life and finds the gaps between them. The caller holds a lock.

    Args:
        still_s: a longer gap is a stall; infinite: none is.
        clocks: read at most once a second, and at each gap.
    """

    def __init__(self, still_s: float, clocks: Callable[[], Clocks] = read_clocks) -> None:
        self._still_s, self._clocks = still_s, clocks
        self._last: Clocks | None = None
        self._last_s = 0.0
        self.stalls: deque[Stall] = deque(maxlen=KEPT)

    def alive(self, now_s: float) -> float:
        """Somebody beats, or looks.

        Args:
            now_s: monotonic, of the same clock at every call.

        Returns:
            Seconds for which nobody did before, which are nobody's fault; 0 where that was within reason.
        """
        gap_s, self._last_s = now_s - self._last_s, now_s
        last = self._last
        if last is not None and gap_s <= self._still_s and now_s - last.monotonic_s < 1.0:
            return 0.0
        self._last = here = self._clocks()
        if last is None:
            return 0.0
        slept_s = (here.boot_s - last.boot_s) - (here.monotonic_s - last.monotonic_s)
        if slept_s > ASLEEP_S and self._still_s != float("inf"):
            self.stalls.append(Stall(now_s, slept_s, asleep=True))
        if gap_s <= self._still_s:
            return 0.0
        busy = here.cpu_s - last.cpu_s > BUSY * gap_s
        self.stalls.append(Stall(now_s, gap_s, busy=busy))
        return gap_s
