"""What it costs a frame to wait for the GPU asleep, and what it saves: ``python tests/device/waiting_cost.py``.

The frame is copies within the GPU's memory, as many as take about as long as an engine. One line of JSON a length; the
product sleeps where ``sleeps`` is true.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.waiting import WaitCost

FRAMES_MS = (0.5, 2.0, 5.0)
COPY_BYTES = 8 << 20
FRAMES = 300


@dataclass(frozen=True)
class Way:
    """One way of waiting: medians of a frame, and the share of a core it kept busy."""

    frame_us: float
    cpu_us: float


def tried(frame: Callable[[], None], frames: int) -> Way:
    """A frame's wall time, and the thread's processor time."""
    taken_s, began_s = [], time.thread_time()
    for _ in range(frames):
        start_s = time.perf_counter()
        frame()
        taken_s.append(time.perf_counter() - start_s)
    return Way(round(median(taken_s) * 1e6, 1), round((time.thread_time() - began_s) / frames * 1e6, 1))


def report(frames: int = FRAMES) -> Iterator[dict[str, object]]:
    """A line for each length of a frame."""
    with ExitStack() as held:
        stream = held.enter_context(cuda.Stream())
        event = held.enter_context(cuda.Event())
        source, target = (held.enter_context(cuda.DeviceBuffer(COPY_BYTES)) for _ in range(2))

        def queue(copies: int) -> None:
            for _ in range(copies):
                stream.copy(target.address, source.address, COPY_BYTES)

        def polling(copies: int) -> None:
            queue(copies)
            stream.synchronize()

        def sleeping(copies: int) -> None:
            queue(copies)
            event.record(stream)
            event.synchronize()

        polling(100)
        copy_us = tried(lambda: polling(100), 10).frame_us / 100
        for wanted_ms in FRAMES_MS:
            copies = max(1, round(wanted_ms * 1e3 / copy_us))
            ways = {way.__name__: tried(partial(way, copies), frames) for way in (polling, sleeping, polling)}
            cost = WaitCost(ways["polling"].frame_us / 1e6, ways["sleeping"].frame_us / 1e6)
            yield {"frame_ms": wanted_ms, "sleeps": cost.sleeps, **{name: asdict(way) for name, way in ways.items()}}


if __name__ == "__main__":
    if (absent := cuda.absence(0)) is not None:
        sys.exit(f"no GPU here: {absent}")
    print(json.dumps({"gpu": asdict(cuda.describe(0)), "cuda": cuda.reason()}))
    for line in report():
        print(json.dumps(line), flush=True)
