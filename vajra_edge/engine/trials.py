"""Trials: mixtures of INT8 and FP32 on the few calibration images that show most, compared with FP32."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.engine.drift import Drift, drift
from vajra_edge.engine.replay import Replay
from vajra_edge.engine.sensitivity import CONFIRM_IMAGES, COST_IMAGES
from vajra_edge.errors import CalibrationError
from vajra_edge.graph.mixtures import Mixtures
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Progress, Report

STRETCHES = 16
"""Parts of the network after each of which what FP32 computed is kept, so that later trials start there. One part is
kept at a time (trained nano at 640: 13 MiB); a trial in graph order then takes little over half of the time."""

FP32 = frozenset[str]()
"""The mixture without INT8."""


class Trials:
    """Runs mixtures.

    Args:
        mixtures: of the network.
        output: name of their output, in the RAW layout.
        signature: of the network.
        threads: of the CPU; None: all.
        report: takes progress; may raise to stop.
        most_images: inferences of one image that will be made at most.
    """

    def __init__(
        self,
        mixtures: Mixtures,
        output: str,
        signature: Signature,
        threads: int | None,
        report: Report,
        most_images: int,
    ) -> None:
        self._mixtures = mixtures
        self._output = output
        self._signature = signature
        self._threads = threads
        self._report = report
        self._most_images = most_images
        self._images: list[NDArray[np.float32]] = []
        self._reference: list[NDArray[np.float32]] = []
        self._trials = self._done_images = 0
        self._start = 0
        self._known: dict[str, NDArray[Any]] = {}

    def pick(self, candidates: CalibrationSet) -> None:
        """Keep the images with the largest sum of scores, largest first; no more of them are ever held.

        Raises:
            CalibrationError: an image cannot be read, or the network is not finite on one.
        """
        replay, images = (
            self._replay(self._mixtures.graph(FP32)),
            iter(candidates.inputs(self._signature.resolution_hw)),
        )
        kept: list[tuple[float, NDArray[np.float32], NDArray[np.float32]]] = []
        while some := list(itertools.islice(images, replay.rows)):
            made = replay.run(np.concatenate(some))[self._output]
            if not np.isfinite(made).all():
                raise CalibrationError("the network is not finite on a calibration image", remedy="check the weights")
            rows = zip(some, made[: len(some)], strict=True)
            kept += [(float(row[4:].max(axis=0).sum()), image, row.copy()) for image, row in rows]
            kept = sorted(kept, key=lambda entry: -entry[0])[:CONFIRM_IMAGES]
        self._images = [image for _, image, _ in kept]
        self._reference = [made for _, _, made in kept]

    def run(self, on: frozenset[str], count: int) -> Drift:
        """See ``sensitivity.Trial``."""
        self._trials += 1
        percent = 100 * self._done_images / self._most_images
        self._report(Progress("calibrate", percent, f"choosing layers: trial {self._trials}"))
        self._done_images += count
        known = self._known_before(on) if count <= COST_IMAGES else {}
        replay, images = self._replay(self._mixtures.graph(on, known)), self._images[:count]
        found: list[NDArray[np.float32]] = []
        for at in range(0, len(images), replay.rows):
            batch = images[at : at + replay.rows]
            found += list(replay.run(np.concatenate(batch), known)[self._output][: len(batch)])
        return drift(self._reference[:count], found)

    def _known_before(self, on: frozenset[str]) -> dict[str, NDArray[Any]]:
        """What FP32 computed for the images that rank before any of these layers is reached; {} for earlier ones."""
        first = min((self._mixtures.places[unit] for unit in on), default=0)
        if first - self._start >= self._mixtures.length / STRETCHES:
            names = self._mixtures.crossing(first)
            graph = self._mixtures.graph(FP32, self._known, [name for name in names if name not in self._known])
            made = self._replay(graph).run(np.concatenate(self._images[:COST_IMAGES]), self._known)
            self._known = {name: made[name] if name in made else self._known[name] for name in names}
            self._start = first
        return self._known if first >= self._start else {}

    def _replay(self, graph: bytes) -> Replay:
        return Replay(graph, self._signature, self._threads)
