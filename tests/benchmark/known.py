"""Figures that a test knows, made from turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from vajra_edge.benchmark.figures import Figures, Frames, Host, HostGpu, Messages, Setup, Stages, Subject, Turn, Use
from vajra_edge.benchmark.spread import Spread

NONE = Spread()
L4 = HostGpu("NVIDIA L4", "570.86", 900.0, 2040.0, None, 72.0)
HOST = Host(None, "x86_64", "6.1", "Xeon", 2, None, None, 1 << 34, 0.1, None, None, 40.0)
SUBJECT = Subject(
    "nano.onnx",
    "ab" * 32,
    "cd" * 32,
    "onnxruntime",
    "onnxruntime 1.23",
    "as set",
    "fp32",
    "cpu",
    (640, 640),
    1,
    True,
    "the CPU",
)
SETUP = Setup("clip.mp4", "00c0ffee", (768, 576), None, None, 5.0, 0.25, 2, 20.0, 1.0)


def figures(frames_ms: Sequence[float | None], engine_ms: float = 10.0, **changed: Any) -> Figures:
    """A run whose turns took so long a frame; ``changed`` are fields of the figures."""
    turns = tuple(Turn(engine_ms, one, 2 * (one or 15.0)) for one in frames_ms)
    known = Figures(
        version="0.1.0",
        taken_at=datetime(2026, 11, 28, tzinfo=timezone.utc),
        host=HOST,
        subject=SUBJECT,
        setup=SETUP,
        engine_ms=Spread.of([engine_ms] * len(turns)),
        frame_ms=None,
        frames_per_s=None,
        ratio=None,
        stages=Stages(NONE, NONE, NONE, NONE, NONE, NONE),
        latency_ms=NONE,
        frames=Frames(0, 0, 0, None, None),
        messages=Messages(0, 0),
        use=Use(None, None, None, None, None),
        turns=turns,
    )
    return replace(known, **changed)
