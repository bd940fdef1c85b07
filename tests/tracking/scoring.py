"""Scores of a tracker whose truth is known: MOTA and identity switches (CLEAR MOT 2008), IDF1 (Ristani et al. 2016) and
HOTA (Luiten et al. 2021, arXiv:2009.07736)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vajra_edge.tracking.assignment import assign, heaviest

Box = tuple[float, float, float, float]
LEAST_IOU = 0.5
ALPHAS = np.arange(1, 20) * 0.05
"""Least IoU of a pair: HOTA is the mean over these."""


@dataclass(frozen=True)
class Scores:
    hota: float
    deta: float
    assa: float
    mota: float
    idf1: float
    switches: int

    def __str__(self) -> str:
        return f"HOTA {self.hota:.3f}, MOTA {self.mota:.3f}, IDF1 {self.idf1:.3f}, {self.switches} switches"


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
    frames: list[tuple[list[int], list[int], np.ndarray]] = field(default_factory=list)

    def frame(self, truth: Mapping[int, Box], answers: Mapping[int, Box]) -> None:
        names, numbers = list(truth), list(answers)
        overlap = ious(list(truth.values()), list(answers.values()))
        self.frames.append((names, numbers, overlap))
        self.together.update((names[r], numbers[c]) for r, c in zip(*np.nonzero(overlap >= LEAST_IOU), strict=True))
        pairs: dict[int, int] = {}
        for row, name in enumerate(names):
            before = self.last.get(name)
            if before in answers and before not in pairs.values() and overlap[row, numbers.index(before)] >= LEAST_IOU:
                pairs[name] = before
        rest = [n for n in names if n not in pairs], [a for a in numbers if a not in pairs.values()]
        part = overlap[np.ix_([names.index(n) for n in rest[0]], [numbers.index(a) for a in rest[1]])]
        near = np.nonzero(part >= LEAST_IOU)
        new = {rest[0][near[0][k]]: rest[1][near[1][k]] for k in assign(*near, part[near].take)}
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
        return Scores(*hota(self.frames), mota, 2 * agreed / (self.truth + self.answers), self.switches)


def hota(frames: Sequence[tuple[list[int], list[int], np.ndarray]]) -> tuple[float, float, float]:
    """HOTA, DetA and AssA, each the mean over all alphas.

    Args:
        frames: who is there, which numbers were given, and the IoU of each of the first with each of the second.
    """
    truth, answers, agreed = Counter(), Counter(), Counter()
    for names, numbers, overlap in frames:
        truth.update(names)
        answers.update(numbers)
        shared = overlap / np.maximum(overlap.sum(0) + overlap.sum(1)[:, None] - overlap, 1e-12)
        for r, c in zip(*np.nonzero(shared), strict=True):
            agreed[names[r], numbers[c]] += float(shared[r, c])
    alike = {(n, a): both / (truth[n] + answers[a] - both) for (n, a), both in agreed.items()}
    found = [Counter() for _ in ALPHAS]
    for names, numbers, overlap in frames:
        worth = [
            {c: alike[n, a] * float(overlap[r, c]) for c, a in enumerate(numbers) if overlap[r, c] > 0}
            for r, n in enumerate(names)
        ]
        some = [r for r, row in enumerate(worth) if row]
        for k, c in heaviest([worth[r] for r in some]):
            for counts, alpha in zip(found, ALPHAS, strict=True):
                counts[names[some[k]], numbers[c]] += bool(overlap[some[k], c] >= alpha)
    scores = [_at_one_alpha(counts, truth, answers) for counts in found]
    return tuple(float(mean) for mean in np.mean(scores, 0))


def _at_one_alpha(found: Counter, truth: Counter, answers: Counter) -> tuple[float, float, float]:
    hits = found.total()
    deta = hits / max(truth.total() + answers.total() - hits, 1)
    # Of each true positive: how much of both tracks, in all frames, is this pair.
    assa = sum(n * n / (truth[name] + answers[a] - n) for (name, a), n in found.items()) / max(hits, 1)
    return (deta * assa) ** 0.5, deta, assa


def ious(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    a, b = np.array(first, float).reshape(-1, 1, 4), np.array(second, float).reshape(1, -1, 4)
    shared = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(2)
    return shared / ((a[..., 2:] - a[..., :2]).prod(2) + (b[..., 2:] - b[..., :2]).prod(2) - shared)
