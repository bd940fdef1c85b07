"""Scores of a tracker whose truth is known: MOTA and identity switches (CLEAR MOT 2008), IDF1 (Ristani et al. 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vajra_edge.tracking.assignment import assign, heaviest

Box = tuple[float, float, float, float]
LEAST_IOU = 0.5


@dataclass(frozen=True)
class Scores:
    mota: float
    idf1: float
    switches: int

    def __str__(self) -> str:
        return f"MOTA {self.mota:.3f}, IDF1 {self.idf1:.3f}, {self.switches} switches"


@dataclass
class Scoring:
    """Takes one frame after the other; boxes are left, top, right, bottom."""

    truth: int = 0
    answers: int = 0
    missed: int = 0
    false: int = 0
    switches: int = 0
    together: Counter[tuple[int, int]] = field(default_factory=Counter)
    last: dict[int, int] = field(default_factory=dict)

    def frame(self, truth: Mapping[int, Box], answers: Mapping[int, Box]) -> None:
        names, numbers = list(truth), list(answers)
        overlap = ious(list(truth.values()), list(answers.values()))
        self.together.update((names[r], numbers[c]) for r, c in zip(*np.nonzero(overlap >= LEAST_IOU), strict=True))
        pairs: dict[int, int] = {}
        for row, name in enumerate(names):
            before = self.last.get(name)
            if before in answers and before not in pairs.values() and overlap[row, numbers.index(before)] >= LEAST_IOU:
                pairs[name] = before
        rest = [n for n in names if n not in pairs], [a for a in numbers if a not in pairs.values()]
        part = overlap[np.ix_([names.index(n) for n in rest[0]], [numbers.index(a) for a in rest[1]])]
        near = np.nonzero(part >= LEAST_IOU)
        new = {rest[0][near[0][k]]: rest[1][near[1][k]] for k in assign(*near, part[near])}
        self.switches += sum(n in self.last and self.last[n] != a for n, a in new.items())
        self.last.update(new)
        self.truth, self.answers = self.truth + len(names), self.answers + len(numbers)
        self.missed += len(names) - len(pairs) - len(new)
        self.false += len(numbers) - len(pairs) - len(new)

    def scores(self) -> Scores:
        worth: dict[int, dict[int, float]] = {}
        for (name, number), frames in self.together.items():
            worth.setdefault(name, {})[number] = float(frames)
        agreed = sum(list(worth.values())[row][number] for row, number in heaviest(list(worth.values())))
        mota = 1 - (self.missed + self.false + self.switches) / self.truth
        return Scores(mota, 2 * agreed / (self.truth + self.answers), self.switches)


def ious(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    a, b = np.array(first, float).reshape(-1, 1, 4), np.array(second, float).reshape(1, -1, 4)
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(2)
    return shared / ((a[..., 2:] - a[..., :2]).prod(2) + (b[..., 2:] - b[..., :2]).prod(2) - shared)
