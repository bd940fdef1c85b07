"""Contender: a loaded plan that is measured, and its engine alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from vajra_edge.benchmark.figures import Subject
from vajra_edge.inference.detector import Detector, Filter
from vajra_edge.mqtt.messages import EngineTag

SLICE_S = 0.05
"""Of the bare engine's turns: long beside what a look at the clock costs, short enough that slow slices stand out."""


@dataclass(frozen=True)
class Contender:
    """What a run measures.

    Attributes:
        subject: what it is.
        detector: of its plan; whoever made it closes it.
        tag: for its messages.
        filter: as the settings have it for the camera.
        threads: CPU inference threads; None: all.
    """

    subject: Subject
    detector: Detector
    tag: EngineTag
    filter: Filter
    threads: int | None = None


def bare_ms(
    detector: Detector, count: int, seconds: float, clock_s: Callable[[], float] = time.perf_counter
) -> list[float]:
    """The engine alone on ``count`` images, for about ``seconds``, one slice at the least.

    Returns:
        Mean milliseconds a call, of each slice; a slower engine is called once a slice.
    """
    means: list[float] = []
    until_s = clock_s() + seconds
    while not means or clock_s() < until_s:
        means.append(detector.bare_ms(SLICE_S, count))
    return means
