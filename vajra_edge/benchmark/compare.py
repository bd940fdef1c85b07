"""Compare: which of two plans is faster, as far as the turns can tell, and when they cannot be compared at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

import numpy as np

from vajra_edge.benchmark.figures import Figures, Turn

LEAST_TURNS = 6
"""Of fewer than six, no order of turns is rarer than one in twenty by chance."""

_DRAWS, _SEED = 4000, 1
_LEVEL = 0.95

STATE = ("load_1min", "temperature_c", "clock_mhz")
"""Of a host: how it was at that moment, which is a remark and no other host."""

OF_THE_RUN = ("seconds", "turn_s")
"""Of the setup: how long, which moves the spread alone."""


@dataclass(frozen=True)
class Difference:
    """How much slower B is than A, of one figure.

    Attributes:
        figure: its name.
        a: of A, median over turns.
        b: of B.
        percent: of A; below 0 where B is faster. null: one of both was not measured.
        low: end of the interval that holds it 19 times out of 20.
        high: the other end.
    """

    figure: str
    a: float | None
    b: float | None
    percent: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What can be said of two.

    Attributes:
        a: the first.
        b: the second.
        by_turns: they were measured in one run, turn beside turn.
        differences: of what belongs to the machine or to the setup, each in words; empty where nothing does.
        plans: of what belongs to the plans, likewise: that is what is compared.
        figures: figure by figure; the first decides.
        verdict: in words.
    """

    a: Figures
    b: Figures
    by_turns: bool
    differences: tuple[str, ...]
    plans: tuple[str, ...]
    figures: tuple[Difference, ...]
    verdict: str


def compare(a: Figures, b: Figures, *, by_turns: bool) -> Comparison:
    """Compare B with A.

    Args:
        a: what was there before.
        b: what is tried.
        by_turns: their turns were taken side by side, so that they are pairs.
    """
    told = [_difference(name, a, b, by_turns=by_turns) for name in ("frame_ms", "latency_p50_ms", "engine_ms")]
    known = tuple(one for one in told if one.a is not None or one.b is not None)
    decides = next((one for one in known if one.percent is not None), None)
    hosts = () if by_turns else _differing("", a.host, b.host, STATE)
    differences = (*hosts, *_differing("", a.setup, b.setup, OF_THE_RUN))
    releases = () if a.version == b.version else (f"vajra-edge: {a.version} and {b.version}",)
    plans = (*_differing("", a.subject, b.subject, ("backend_reason",)), *releases)
    return Comparison(a, b, by_turns, differences, plans, known, _verdict(decides, a, b))


def _verdict(decides: Difference | None, a: Figures, b: Figures) -> str:
    turns = min(len(a.turns), len(b.turns))
    if decides is None or decides.low is None or decides.high is None or decides.percent is None:
        few = f"there are {turns} turns, and {LEAST_TURNS} are needed: measure for longer"
        return f"no difference that this run can tell ({few})"
    interval = f"{decides.low:+.1f} to {decides.high:+.1f} %"
    if decides.low <= 0.0 <= decides.high:
        return f"no difference that this run can tell ({interval} of {decides.figure})"
    word = "slower" if decides.percent > 0 else "faster"
    return f"B is {word} than A: {decides.percent:+.1f} % of {decides.figure} ({interval})"


def _difference(name: str, a: Figures, b: Figures, *, by_turns: bool) -> Difference:
    ours, theirs = _of(name, a.turns), _of(name, b.turns)
    if not ours or not theirs:
        return Difference(name, _median(ours), _median(theirs))
    pairs = list(zip(ours, theirs, strict=False))
    if min(len(ours), len(theirs)) < LEAST_TURNS:
        return Difference(name, _median(ours), _median(theirs))
    middle, low, high = _paired(pairs) if by_turns else _apart(ours, theirs)
    return Difference(name, _median(ours), _median(theirs), *(round(_percent(one), 2) for one in (middle, low, high)))


def _paired(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The median of the pairs' quotients and its interval, in logarithms.

    The interval is between two of the quotients, by the sign test, which asks nothing of how they spread: that many on
    either side are left out as chance leaves out with one in twenty at the most.
    """
    quotients = sorted(math.log(theirs / ours) for ours, theirs in pairs)
    outside = _left_out(len(quotients))
    return median(quotients), quotients[outside], quotients[-1 - outside]


def _left_out(count: int) -> int:
    """How many of ``count`` ordered values lie outside the interval of their median, on each side."""
    tail, outside = 0.0, 0
    for lowest in range(count // 2):
        tail += math.comb(count, lowest) / 2**count
        if tail > (1 - _LEVEL) / 2:
            break
        outside = lowest
    return outside


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The quotient of the medians of two runs and its interval, in logarithms.

    Turns are drawn again and again (bootstrap); how far the halves of a run are from each other is added on both sides,
    for two runs meet the machine in two moods, and their own turns do not show by how much.
    """
    random = np.random.default_rng(_SEED)
    logs = [np.log(np.asarray(values)) for values in (ours, theirs)]
    drawn = [np.median(random.choice(one, (_DRAWS, len(one))), axis=1) for one in logs]
    low, high = np.quantile(drawn[1] - drawn[0], ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    drift = max(abs(_drift(one)) for one in logs)
    return float(np.median(logs[1]) - np.median(logs[0])), float(low) - drift, float(high) + drift


def _drift(logs: Any) -> float:
    """From the first half of a run to the second."""
    half = len(logs) // 2
    return float(np.median(logs[half:]) - np.median(logs[:half]))


def _of(name: str, turns: Sequence[Turn]) -> list[float]:
    return [value for turn in turns if (value := getattr(turn, name)) is not None]


def _median(values: Sequence[float]) -> float | None:
    return round(median(values), 4) if values else None


def _percent(quotient: float) -> float:
    return (math.exp(quotient) - 1) * 100


def _differing(place: str, a: Any, b: Any, but: Sequence[str]) -> Iterator[str]:
    """Each field in which two values of one kind differ, in words; a plan on a CPU has no GPU, on whatever machine."""
    for field in fields(a):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        if field.name == "gpu" and ours is not None and theirs is not None:
            yield from _differing("gpu.", ours, theirs, but)
        elif field.name not in {"gpu", *but} and ours != theirs:
            yield f"{place}{field.name}: {_said(ours)} and {_said(theirs)}"


def _said(value: Any) -> str:
    if value is None:
        return "unknown"
    return str(value) if isinstance(value, (str, int, float)) else getattr(value, "name", str(value))
