"""Meter: processor time, memory and the GPU, while the frame path runs and at no other time."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from vajra_edge.benchmark.figures import GpuUse, Use
from vajra_edge.benchmark.gauges import GpuGauge
from vajra_edge.benchmark.gpu_reading import GpuReading
from vajra_edge.benchmark.spread import Spread

SAMPLE_S = 0.1
"""A GPU's own figures are means of some tenths of a second."""


class Meter:
    """Adds up over turns.

    Args:
        gauge: of the plan's GPU; None: it runs on a CPU.
        clock_s: passing time.
        used_s: processor time of this process.
        root: where /proc is.
    """

    def __init__(
        self,
        gauge: GpuGauge | None,
        clock_s: Callable[[], float] = time.perf_counter,
        used_s: Callable[[], float] = time.process_time,
        root: Path = Path("/"),
    ) -> None:
        self.gauge, self._clock_s, self._used_s, self._root = gauge, clock_s, used_s, root
        self._passed_s: defaultdict[str, float] = defaultdict(float)
        self._cpu_s: defaultdict[str, float] = defaultdict(float)
        self._readings: list[GpuReading] = []

    @contextmanager
    def running(self, what: str, child: Callable[[], int | None] = lambda: None) -> Iterator[None]:
        """The frame path runs within.

        Args:
            what: ``paced`` or ``full``.
            child: number of the camera's process, asked at both ends; None where there is none.
        """
        pid = child()
        began_s, used_s, childs_s = self._clock_s(), self._used_s(), self._of(pid)
        with self._sampled():
            yield
        passed_s = self._clock_s() - began_s
        self._passed_s[what] += passed_s
        self._cpu_s[what] += self._used_s() - used_s
        if pid == child() and (after_s := self._of(pid)) is not None and childs_s is not None:
            self._passed_s[f"{what} child"] += passed_s
            self._cpu_s[f"{what} child"] += after_s - childs_s

    def use(self) -> Use:
        """What it came to."""
        return Use(
            cpu_cores=self._cores("paced"),
            full_cpu_cores=self._cores("full"),
            capture_cpu_cores=self._cores("paced child"),
            rss_bytes=self._memory("VmRSS"),
            peak_rss_bytes=self._memory("VmHWM"),
            gpu=None if self.gauge is None else gpu_use(self._readings),
        )

    def _cores(self, what: str) -> float | None:
        passed_s = self._passed_s.get(what)
        return round(self._cpu_s[what] / passed_s, 3) if passed_s else None

    def _of(self, pid: int | None) -> float | None:
        """Processor time of another process; None where it is gone."""
        try:
            text = (self._root / f"proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()  # its name may hold anything
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _memory(self, field: str) -> int | None:
        try:
            text = (self._root / "proc/self/status").read_text(encoding="utf-8")
        except OSError:
            return None
        found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) * 1024 if found else None

    @contextmanager
    def _sampled(self) -> Iterator[None]:
        gauge = self.gauge
        if gauge is None:
            yield
            return
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(SAMPLE_S):
                self._readings.append(gauge.read())

        thread = threading.Thread(target=look, name="gpu-gauge", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def gpu_use(readings: list[GpuReading]) -> GpuUse:
    """What many looks say together; of what no look told, nothing."""

    def of(name: str) -> list[float]:
        return [value for one in readings if (value := getattr(one, name)) is not None]

    loads, clocks, draws = of("load_percent"), of("clock_mhz"), of("power_w")
    memory, heat = of("memory_used_bytes"), of("temperature_c")
    reasons = [one.throttled for one in readings if one.throttled is not None]
    return GpuUse(
        load_percent=Spread.of(loads) if loads else None,
        clock_mhz=median(clocks) if clocks else None,
        lowest_clock_mhz=min(clocks, default=None),
        memory_used_bytes=int(max(memory)) if memory else None,
        power_w=round(median(draws), 1) if draws else None,
        temperature_c=max(heat, default=None),
        throttled=tuple(sorted({reason for some in reasons for reason in some})) if reasons else None,
    )
