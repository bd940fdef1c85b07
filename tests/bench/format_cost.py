"""What a picture of each format costs its camera's process and the host's path: CPU time of all threads, milliseconds.

    PYTHONPATH=. python tests/bench/format_cost.py [--size 1920x1080] [--input 640] [--times 60]

Prints one JSON line for each format. ``slot_ms``: from a GStreamer buffer's bytes to the shared memory, in the camera's
process. ``letterbox_ms``: from there into the network's input, on the host. ``bgr_ms``: what a snapshot needs. The
formats take turns, and the median is told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace

import numpy as np

from vajra_edge.capture.ring import WritableRing
from vajra_edge.capture.sources.appsink import _picture
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.media.bgr import bgr_of, interleaved
from vajra_edge.types import Frame


def caps(name: str, width: int, height: int, matrix: str) -> SimpleNamespace:
    """As ``GstVideoInfo`` has it, of rows without padding."""
    channels = {"NV12": 1, "BGR": 3, "BGRx": 4}[name]
    told = SimpleNamespace(matrix=SimpleNamespace(value_nick=matrix), range=SimpleNamespace(value_nick="16-235"))
    named, stride = SimpleNamespace(name=name), [channels * width, channels * width]
    return SimpleNamespace(finfo=named, width=width, height=height, stride=stride, colorimetry=told)


def cpu_ms(act: Callable[[], object]) -> float:
    began_s = time.process_time()
    act()
    return (time.process_time() - began_s) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--input", type=int, default=640)
    parser.add_argument("--times", type=int, default=60)
    given = parser.parse_args()
    width, height = (int(one) for one in given.size.split("x"))
    content = np.random.default_rng(0).integers(16, 236, width * height * 4, np.uint8)
    letterbox, taken = Letterbox((given.input, given.input)), defaultdict(list)
    row = letterbox.blank(1)[0]
    rings = {name: WritableRing(lambda _, descriptor: os.fstat(descriptor)) for name in ("BGR", "BGRx", "NV12")}
    for _ in range(given.times):
        for name, ring in rings.items():
            info = caps(name, width, height, "bt709")
            picture = _picture(content, info, "bench")
            frame = Frame(picture.image, 0, datetime.now(timezone.utc), 0, "bench", pixels=picture.pixels)
            place: list[tuple[int, int, int]] = []
            taken[name, "slot_ms"].append(
                cpu_ms(lambda: place.append(ring.write(_picture(content, info, "bench").image)))  # noqa: B023
            )
            ring.back(*place[0])
            taken[name, "letterbox_ms"].append(cpu_ms(lambda: letterbox.apply(interleaved(frame), row)))  # noqa: B023
            taken[name, "bgr_ms"].append(cpu_ms(lambda: bgr_of(frame)))  # noqa: B023
    for name in rings:
        figures = {what: round(statistics.median(taken[name, what]), 2) for of, what in taken if of == name}
        print(json.dumps({"format": name, **figures}))


if __name__ == "__main__":
    main()
