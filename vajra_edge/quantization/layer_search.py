"""Layer search: which layers to leave out of INT8, measured as drift on calibration images.

The accuracy check counts matched boxes, which stay matched long before accuracy suffers; to rank layers by what they
cost, and to choose among mixtures, a measure that moves with every bit of noise is needed.

1. Each layer alone is turned to INT8, small ones of like size in groups, and the drift of the outputs from FP32 is
   their cost.
2. Independent rounding errors add as squares, so layers leave INT8 in the order of cost squared per multiply-add.
3. A handful of mixtures along that order is measured whole, on more images, near where the costs say that the answer
   is: the largest INT8 share whose drift is within ``AIM`` is taken. Where even ``CHEAP_PART`` does not reach it, that
   is taken if it is within ``LIMIT``; otherwise the largest share below it that is. A mixture beyond ``WORST`` is for
   the caller to refuse.

Measurements are counted and never timed: a slow machine finds what a fast one does.

Trials: mixtures of INT8 and FP32 on the few calibration images that show most, compared with FP32.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import CalibrationError
from vajra_edge.graph.passes.instrument import Mixtures
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.report import Mixture
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.observer import Replay

SCORE_FLOOR = 0.02
"""Anchors below this best score in both precisions are not compared ..."""

LEAST_ANCHORS = 10
"""... except the best few of each image, so that empty scenes are judged too."""


@dataclass(frozen=True)
class Drift:
    """Means over the compared anchors, weighted by their score.

    Attributes:
        score: largest difference of a class score, 0..1.
        box: 1 - intersection over union of the two boxes, 0..1.
    """

    score: float
    box: float

    @property
    def total(self) -> float:
        """One number to rank by."""
        return self.score + self.box

    def within(self, bound: Drift) -> bool:
        """Whether neither part is above that of ``bound``."""
        return self.score <= bound.score and self.box <= bound.box


def drift(reference: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]) -> Drift:
    """Compare RAW outputs (4 + classes, anchors) of the same images; 1, 1 where ``found`` is not finite."""
    score = box = weight = 0.0
    for one, other in zip(reference, found, strict=True):
        if not np.isfinite(other).all():
            return Drift(1.0, 1.0)
        best = np.maximum(one[4:].max(axis=0), other[4:].max(axis=0))
        few = min(LEAST_ANCHORS, len(best))
        anchors = best >= min(SCORE_FLOOR, float(np.partition(best, -few)[-few]))
        weights = best[anchors]
        score += float((np.abs(one[4:, anchors] - other[4:, anchors]).max(axis=0) * weights).sum())
        box += float(((1 - _overlap(one[:4, anchors], other[:4, anchors])) * weights).sum())
        weight += float(weights.sum())
    return Drift(score / weight, box / weight) if weight else Drift(0.0, 0.0)


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of box i with box i: two (4, n) cx, cy, w, h to (n,); 1 where both are empty."""
    low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
    shared = np.prod(np.clip(high - low, 0, None), axis=0)
    union = np.prod(one[2:], axis=0) + np.prod(other[2:], axis=0) - shared
    overlap: NDArray[np.float32] = np.divide(shared, union, out=np.ones_like(shared), where=union > 0)
    return overlap


AIM = Drift(score=0.008, box=0.008)
"""Drift below which the loss of mAP50-95 is lost in its own noise. Measured with tests/bench/int8_accuracy.py --curve
on the trained nano, of which 0.010 costs half a point and 0.013 a whole one."""

LIMIT = Drift(score=0.025, box=0.04)
"""Drift that costs about half a point of mAP50-95 on the hardest network at hand, YOLOX-nano, over four splits of
coco128 (same bench); 0.03 costs up to one."""

WORST = Drift(score=0.04, box=0.06)
"""Drift beyond which a point and more is lost there; such a mixture is not worth building."""

CHEAP_PART = 0.92
"""Part of what the static rules leave in INT8 down to which precision is bought without asking: less than a tenth of
the work runs at half the speed."""

LEAST_PART = 0.63
"""Below this part INT8 is not worth its drift: with the 96 to 99 % that the static rules leave, three fifths of all
multiply-adds."""

COST_IMAGES = 1
"""Images that rank the layers: on both networks of tests/bench/int8_accuracy.py the order by the one image with most to
detect gives the share that the order by two gives, to a thousandth."""

CONFIRM_IMAGES = 8
"""Images that judge a mixture."""

JUDGED = 8
"""Mixtures that are measured in one search at most ..."""

GUESSED = 3
"""... the first of them where the costs say, the rest in the middle of what is left."""

NEGLIGIBLE = 1 / 3
"""Part of the average layer's multiply-adds up to which layers are measured together: one of them that costs much takes
no more than that out of INT8 with it."""

TOLD_APART = 0.005
"""Difference of INT8 share for which no further mixture is measured."""

Trial = Callable[[frozenset[str], int], Drift]
"""Drift of the mixture with these layers in INT8, over so many images."""


@dataclass(frozen=True)
class Group:
    """Layers that are measured together.

    Attributes:
        layers: their keys, in graph order.
        macs: multiply-adds of them all; of a residual addition its elements.
        drift: of the outputs when they alone are in INT8.
    """

    layers: tuple[str, ...]
    macs: int
    drift: Drift

    @property
    def cost(self) -> float:
        """Total drift."""
        return self.drift.total

    @property
    def worth(self) -> float:
        """What leaving INT8 saves for each multiply-add."""
        return self.cost**2 / max(self.macs, 1)


@dataclass(frozen=True)
class Point:
    """One measured mixture: the layers out of INT8, the share of multiply-adds in it, and the drift."""

    high: frozenset[str]
    share: float
    drift: Drift

    def mixture(self) -> Mixture:
        """For the manifest."""
        return Mixture(len(self.high), round(self.share, 5), round(self.drift.score, 5), round(self.drift.box, 5))


@dataclass(frozen=True)
class LayerChoice:
    """What was found.

    Attributes:
        point: the mixture to build.
        curve: every mixture that was measured, largest INT8 share first.
        groups: what was ranked, costliest a multiply-add first.
    """

    point: Point
    curve: tuple[Point, ...]
    groups: tuple[Group, ...]


def choose(trial: Trial, layers: Mapping[str, int], total_macs: int) -> LayerChoice:
    """Find the mixture; ``most_images`` says how many inferences that takes at most.

    Args:
        trial: measures one mixture.
        layers: multiply-adds of each switchable layer, in graph order; of a residual addition its elements.
        total_macs: multiply-adds of the whole network.
    """
    groups = _ranked(trial, layers)
    search = _Search(trial, layers, total_macs, groups)
    point = search.largest(AIM, 1.0, CHEAP_PART)
    if not point.drift.within(AIM) and not point.drift.within(LIMIT):
        further = search.largest(LIMIT, CHEAP_PART, LEAST_PART)
        point = min(point, further, key=lambda one: (not one.drift.within(LIMIT), one.drift.total))
    curve = sorted(search.measured.values(), key=lambda found: -found.share)
    return LayerChoice(point, tuple(curve), groups)


def most_images(layers: Mapping[str, int]) -> int:
    """Inferences of one image that ``choose`` takes at most: one trial a group, and two searches."""
    return len(_together(layers)) * COST_IMAGES + 2 * JUDGED * CONFIRM_IMAGES


def _ranked(trial: Trial, layers: Mapping[str, int]) -> tuple[Group, ...]:
    """Every group measured, in graph order; costliest a multiply-add first."""
    groups = [
        Group(keys, sum(layers[key] for key in keys), trial(frozenset(keys), COST_IMAGES)) for keys in _together(layers)
    ]
    return tuple(sorted(groups, key=lambda group: -group.worth))


def _together(layers: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Layers to measure as one, each group and all of them in graph order.

    Their multiply-adds differ by less than a factor of four: cost varies with size (a depthwise convolution beside a
    pointwise one), so that a group of both would hide which of them is worth keeping.
    """
    most = NEGLIGIBLE * sum(layers.values()) / max(len(layers), 1)
    groups: list[list[str]] = []
    filling: dict[int, tuple[list[str], float]] = {}
    for key, macs in layers.items():
        size = macs.bit_length() // 2
        group, held = filling.get(size, ([], most))
        if held + macs > most:
            group, held = [], 0
            groups.append(group)
        group.append(key)
        filling[size] = (group, held + macs)
    return [tuple(group) for group in groups]


@dataclass(frozen=True)
class _Step:
    """A mixture along the order of groups.

    Attributes:
        high: the layers out of INT8.
        part: of the multiply-adds of all ``layers`` that is in INT8.
        estimate: drift by the groups' own, which add as squares.
    """

    high: frozenset[str]
    part: float
    estimate: Drift


def _steps(groups: Sequence[Group], part_to: float) -> list[_Step]:
    """Mixtures with one group more out of INT8 at each step; groups too large for what is left are passed over.

    Args:
        groups: all layers, those that leave first in front.
        part_to: smallest part that may be left in INT8.
    """
    macs = sum(group.macs for group in groups)
    total, left, steps = max(macs, 1), list(groups), [_Step(frozenset(), 1.0, _sum(groups))]
    for group in groups:
        if (macs - group.macs) / total >= part_to:
            macs -= group.macs
            left.remove(group)
            steps.append(_Step(steps[-1].high.union(group.layers), macs / total, _sum(left)))
    return steps


def _sum(groups: Iterable[Group]) -> Drift:
    drifts = [group.drift for group in groups]
    return Drift(math.hypot(*(one.score for one in drifts)), math.hypot(*(one.box for one in drifts)))


class _Search:
    """Measures mixtures along the order of groups, each one once."""

    def __init__(self, trial: Trial, layers: Mapping[str, int], total_macs: int, groups: Sequence[Group]) -> None:
        self.trial = trial
        self.layers = layers
        self.total_macs = total_macs
        self.groups = groups
        self.measured: dict[frozenset[str], Point] = {}

    def largest(self, bound: Drift, part_from: float, part_to: float) -> Point:
        """The mixture with the largest INT8 share between two parts of all ``layers`` that is within ``bound``.

        Where none is, the one with the smallest share.
        """
        steps = _steps(self.groups, part_to)
        steps = [step for step in steps if step.part <= part_from] or steps[:1]
        low, high, off = 0, len(steps) - 1, Drift(1.0, 1.0)
        for turn in range(JUDGED - 1):
            if self._share(steps[low].high) - self._share(steps[high].high) <= TOLD_APART:
                break
            last = high - 1 if steps[high].high in self.measured else high
            guess = (at for at in range(low, last) if _scaled(steps[at].estimate, off).within(bound))
            at = next(guess, last) if turn < GUESSED else (low + last) // 2
            drift = self._at(steps[at].high).drift
            off = _ratio(drift, steps[at].estimate)
            low, high = (low, at) if drift.within(bound) else (min(at + 1, high), high)
        return self._at(steps[high].high)

    def _share(self, high: frozenset[str]) -> float:
        on = sum(count for key, count in self.layers.items() if key not in high)
        return on / self.total_macs if self.total_macs else 0.0

    def _at(self, high: frozenset[str]) -> Point:
        if high not in self.measured:
            on = frozenset(self.layers) - high
            self.measured[high] = Point(high, self._share(high), self.trial(on, CONFIRM_IMAGES))
        return self.measured[high]


def _ratio(drift: Drift, estimate: Drift) -> Drift:
    """By how much an estimate was off, part by part; where nothing was expected, by nothing."""
    pairs = ((drift.score, estimate.score), (drift.box, estimate.box))
    return Drift(*(found / expected if expected else 1.0 for found, expected in pairs))


def _scaled(drift: Drift, factor: Drift) -> Drift:
    return Drift(drift.score * factor.score, drift.box * factor.box)


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
        """See ``layer_search.Trial``."""
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
