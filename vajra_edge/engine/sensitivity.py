"""Sensitivity: which layers to leave in FP16, measured on calibration images within a time budget.

1. Each group of layers alone is turned to INT8, and the drift of the outputs from FP32 is its cost. All groups run in
   one session (``graph.switches``). With little time the groups are large; what is left of the budget splits the
   costliest ones.
2. Independent rounding errors add as squares, so layers leave INT8 in the order of cost squared per multiply-add.
3. A handful of mixtures along that order is measured whole, on more images: the largest INT8 share whose drift is
   within ``AIM`` is taken. Where even ``CHEAP_PART`` does not reach it, that is taken if it is within ``LIMIT``;
   otherwise the largest share below it that is. A mixture beyond ``WORST`` is for the caller to refuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vajra_edge.engine.drift import Drift

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

COST_IMAGES = 2
"""Images that rank the layers: each layer costs that many inferences."""

CONFIRM_IMAGES = 8
"""Images that judge a mixture; fewer where time is short."""

RANKING_BUDGET = 0.7
"""Part of the time that ranking may take; the rest is for judging mixtures."""

JUDGED = 16
"""Mixtures that time is set aside for: two searches among a hundred steps, each of which halves what is left."""

Clock = Callable[[], float]
Trial = Callable[[frozenset[str], int], Drift]
"""Drift of the mixture with these layers in INT8, over so many images."""


@dataclass(frozen=True)
class Group:
    """Layers that are measured together.

    Attributes:
        layers: their keys, in graph order.
        macs: multiply-adds of them all; of a residual addition its elements.
        cost: total drift when they alone are in INT8.
    """

    layers: tuple[str, ...]
    macs: int
    cost: float

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

    def to_json(self) -> dict[str, object]:
        """For the manifest."""
        numbers = {"int8_share": self.share, "score_drift": self.drift.score, "box_drift": self.drift.box}
        return {"layers_kept": len(self.high), **{name: round(value, 5) for name, value in numbers.items()}}


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        point: the mixture to build.
        curve: every mixture that was measured, largest INT8 share first.
        groups: what was ranked, costliest a multiply-add first.
    """

    point: Point
    curve: tuple[Point, ...]
    groups: tuple[Group, ...]


def choose(trial: Trial, layers: Mapping[str, int], total_macs: int, budget_s: float, clock: Clock) -> Choice:
    """Find the mixture.

    Args:
        trial: measures one mixture.
        layers: multiply-adds of each switchable layer, in graph order; of a residual addition its elements.
        total_macs: multiply-adds of the whole network.
        budget_s: time for all trials. Three are made whatever it says: one that tells what a trial takes, one group,
            one mixture.
        clock: seconds, monotonic.
    """
    started_s = clock()
    trial(frozenset(layers), COST_IMAGES)
    image_s = (clock() - started_s) / COST_IMAGES
    ranked = _ranked(trial, layers, started_s + budget_s * RANKING_BUDGET, clock, COST_IMAGES * image_s)
    groups = tuple(sorted(ranked, key=lambda group: -group.worth))
    until_s = started_s + budget_s
    images = _affordable(until_s - clock(), JUDGED * image_s, CONFIRM_IMAGES)
    search = _Search(trial, layers, total_macs, groups, images, until_s - images * image_s, clock)
    point = search.largest(AIM, 1.0, CHEAP_PART)
    if not point.drift.within(AIM) and not point.drift.within(LIMIT):
        further = search.largest(LIMIT, CHEAP_PART, LEAST_PART)
        point = min(point, further, key=lambda one: (not one.drift.within(LIMIT), one.drift.total))
    curve = sorted(search.measured.values(), key=lambda found: -found.share)
    return Choice(point, tuple(curve), groups)


def _affordable(left_s: float, each_s: float, most: int) -> int:
    """How many of something that takes ``each_s`` fit into what is left, 1 to ``most``."""
    return most if each_s * most <= left_s else max(1, int(left_s / max(each_s, 1e-9)))


def _ranked(trial: Trial, layers: Mapping[str, int], until_s: float, clock: Clock, trial_s: float) -> list[Group]:
    """Measure as finely as the time allows: layer by layer, or chunks of which the costliest are halved."""

    def measured(keys: Sequence[str]) -> Group:
        cost = trial(frozenset(keys), COST_IMAGES).total
        return Group(tuple(keys), sum(layers[key] for key in keys), cost)

    names = list(layers)
    affordable = _affordable(until_s - clock(), trial_s, len(names))
    size = 1 if affordable == len(names) else math.ceil(len(names) / max(1, affordable // 2))
    groups = [measured(names[at : at + size]) for at in range(0, len(names), size)]
    while clock() + 2 * trial_s < until_s and any(len(group.layers) > 1 for group in groups):
        costliest = max((group for group in groups if len(group.layers) > 1), key=lambda group: group.cost)
        groups.remove(costliest)
        half = len(costliest.layers) // 2
        groups += [measured(costliest.layers[:half]), measured(costliest.layers[half:])]
    return groups


class _Search:
    """Measures mixtures along the order of groups, each one once, until time is up."""

    def __init__(
        self,
        trial: Trial,
        layers: Mapping[str, int],
        total_macs: int,
        groups: Sequence[Group],
        images: int = CONFIRM_IMAGES,
        until_s: float = math.inf,
        clock: Clock = lambda: 0.0,
    ) -> None:
        self.trial = trial
        self.layers = layers
        self.total_macs = total_macs
        self.groups = groups
        self.images = images
        self.until_s = until_s
        self.clock = clock
        self.measured: dict[frozenset[str], Point] = {}

    def largest(self, bound: Drift, part_from: float, part_to: float) -> Point:
        """The mixture with the largest INT8 share between two parts of all ``layers`` that is within ``bound``.

        Where none is, the one with the smallest share; where time is up, the best that is known.
        """
        steps = [step for step in self._steps(part_to) if self._part(step) <= part_from] or [frozenset[str]()]
        low, high = 0, len(steps) - 1
        while low < high and self.clock() < self.until_s:
            middle = (low + high) // 2
            if self._at(steps[middle]).drift.within(bound):
                high = middle
            else:
                low = middle + 1
        return self._at(steps[high])

    def _steps(self, part_to: float) -> list[frozenset[str]]:
        """Layers out of INT8, one group more at each step; groups too large for what is left are passed over."""
        steps = [frozenset[str]()]
        for group in self.groups:
            more = steps[-1].union(group.layers)
            if self._part(more) >= part_to:
                steps.append(more)
        return steps

    def _macs(self, high: frozenset[str]) -> int:
        return sum(count for key, count in self.layers.items() if key not in high)

    def _part(self, high: frozenset[str]) -> float:
        """Of what the static rules leave in INT8."""
        return self._macs(high) / max(self._macs(frozenset()), 1)

    def _at(self, high: frozenset[str]) -> Point:
        if high not in self.measured:
            share = self._macs(high) / self.total_macs if self.total_macs else 0.0
            on = frozenset(self.layers) - high
            self.measured[high] = Point(high, share, self.trial(on, self.images))
        return self.measured[high]
