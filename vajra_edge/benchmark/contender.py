"""Contender: a loaded plan that is measured, and its engine alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.base import Runner
from vajra_edge.benchmark.figures import Subject
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.inference.detector import Detector, Filter
from vajra_edge.mqtt.messages import EngineTag


@dataclass(frozen=True)
class Contender:
    """What a run measures.

    Attributes:
        subject: what it is.
        detector: of its plan; whoever made it closes it.
        bare: makes, of images and how many go into one call, one call of its engine and nothing else.
        tag: for its messages.
        filter: as the settings have it for the camera.
        threads: CPU inference threads; None: all.
    """

    subject: Subject
    detector: Detector
    bare: Callable[[Sequence[NDArray[np.uint8]], int], Callable[[], object]]
    tag: EngineTag
    filter: Filter
    threads: int | None = None


def bare_runner(runner: Runner) -> Callable[[Sequence[NDArray[np.uint8]], int], Callable[[], object]]:
    """The engine alone where the detector calls it from the host: the input is ready, the output is left alone."""

    def of(images: Sequence[NDArray[np.uint8]], count: int) -> Callable[[], object]:
        letterbox = Letterbox(runner.signature.resolution_hw)
        batch = letterbox.blank(runner.signature.batch)[:count]
        for number, row in enumerate(batch):
            letterbox.apply(images[number % len(images)], row)
        return lambda: runner.infer(batch)

    return of


def calls_ms(
    call: Callable[[], object], seconds: float, clock_s: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Call for about ``seconds``, at least once; what each call took."""
    took_ms: list[float] = []
    until_s = clock_s() + seconds
    began_s = clock_s()
    while not took_ms or began_s < until_s:
        call()
        ended_s = clock_s()
        took_ms.append((ended_s - began_s) * 1e3)
        began_s = ended_s
    return took_ms
