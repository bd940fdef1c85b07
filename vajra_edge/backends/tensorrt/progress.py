"""Build progress: TensorRT's nested phases become percent and remaining time, and a way to stop.

The builder calls an IProgressMonitor, from several threads; an exception must not leave it, so that a cancelled or
failing report is kept, the builder is told to stop, and the exception is raised once it has.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.progress import Progress, Report

Clock = Callable[[], float]

EVERY_S = 1.0
"""Least time between two reports of the same whole percent."""

WINDOW_S = 30.0
"""The builder's phases are of very unequal length, so that only the recent pace says how long the rest may take."""


@dataclass
class BuildPhase:
    """One open phase of the builder."""

    parent: str | None
    steps: int
    done: int = 0


class BuildPhases:
    """The tree of open phases and the share of the work that is done. Pure; the caller holds a lock."""

    def __init__(self) -> None:
        self.open: dict[str, BuildPhase] = {}
        self.share = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins; the first without a parent stands for the whole build."""
        self.open[name] = BuildPhase(parent, max(steps, 1))

    def step(self, name: str, index: int) -> None:
        """Step ``index`` (from 0) of a phase is complete."""
        phase = self.open.get(name)
        if phase is not None:
            phase.done = max(phase.done, index + 1)
            self._update()

    def finish(self, name: str) -> None:
        """A phase ends, perhaps before its last step."""
        phase = self.open.pop(name, None)
        if phase is not None and phase.parent is None:
            self.share = 1.0

    def _update(self) -> None:
        root = next((name for name, phase in self.open.items() if phase.parent is None), None)
        if root is not None:
            # Phases may restart under the same name; the share never goes back.
            self.share = max(self.share, self._share(root))

    def _share(self, name: str) -> float:
        phase = self.open[name]
        inside = [self._share(child) for child, entry in self.open.items() if entry.parent == name]
        return min(1.0, (phase.done + max(inside, default=0.0)) / phase.steps)


class BuildWatch:
    """Between the builder's callbacks and the report: never raises into the builder, remembers what was raised.

    Args:
        report: takes progress; its exception stops the build.
        expected_s: what an earlier build of the same kind took, or None.
        clock: seconds, monotonic.
    """

    def __init__(self, report: Report, expected_s: float | None = None, clock: Clock = time.monotonic) -> None:
        self.phases = BuildPhases()
        self.raised: BaseException | None = None
        self._report = report
        self._expected_s = expected_s
        self._clock = clock
        self._began_s = clock()
        self._recent: deque[tuple[float, float]] = deque([(self._began_s, 0.0)])
        self._told: tuple[int, float] | None = None
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """``IProgressMonitor.phase_start``."""
        with self._lock:
            self.phases.start(name, parent, steps)
            self._tell(name)

    def step(self, name: str, index: int) -> bool:
        """``IProgressMonitor.step_complete``; False asks the builder to stop."""
        with self._lock:
            self.phases.step(name, index)
            self._tell(name)
            return self.raised is None

    def finish(self, name: str) -> None:
        """``IProgressMonitor.phase_finish``."""
        with self._lock:
            self.phases.finish(name)
            self._tell(name)

    def settle(self) -> None:
        """Raise what the report raised, once the builder has stopped."""
        if self.raised is not None:
            raise self.raised

    def _tell(self, name: str) -> None:
        share, now_s = self.phases.share, self._clock()
        percent = int(share * 100)
        if self._told is not None and self._told[0] == percent and now_s - self._told[1] < EVERY_S:
            return
        self._told = (percent, now_s)
        self._send(Progress("build", round(share * 100, 1), name, self._eta_s(share, now_s)))

    def _eta_s(self, share: float, now_s: float) -> float | None:
        """Seconds left: from the earlier build while that holds, else from the pace of the last half minute."""
        self._recent.append((now_s, share))
        while len(self._recent) > 1 and self._recent[1][0] <= now_s - WINDOW_S:
            self._recent.popleft()
        left_s = (self._expected_s or 0.0) - (now_s - self._began_s)
        if left_s > 0:
            return left_s
        then_s, before = self._recent[0]
        return (1 - share) * (now_s - then_s) / (share - before) if share > before else None

    def _send(self, progress: Progress) -> None:
        if self.raised is not None:
            return
        try:
            self._report(progress)
        except BaseException as error:  # noqa: BLE001  the top of a foreign callback: nothing may pass into C++
            self.raised = error


@contextmanager
def watched(library: Library, config: Any, watch: BuildWatch) -> Iterator[None]:
    """Let ``watch`` see a build for the length of a block."""
    monitor = _monitor(library, watch)  # kept alive here: the builder holds no Python reference of its own
    config.progress_monitor = monitor
    yield


def _monitor(library: Library, watch: BuildWatch) -> Any:
    trt = library.trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]  # a foreign base class without types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
