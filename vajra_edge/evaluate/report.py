"""Report: how well a network finds what is there, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ClassScore:
    """One class that the ground truth holds.

    Attributes:
        name: of the class.
        objects: of it in the ground truth, crowds not counted.
        map50_95: mean over IoU 0.50, 0.55 ... 0.95 of the average precision, 0..1.
        map50: average precision at IoU 0.50.
    """

    name: str
    objects: int
    map50_95: float
    map50: float


@dataclass(frozen=True)
class Scores:
    """What ``coco.score`` finds: means over the classes that the ground truth holds.

    Attributes:
        map50_95: COCO's primary figure, 0..1.
        map50: at IoU 0.50.
        images: scored.
        objects: in the ground truth, crowds not counted.
        per_class: in the order of class ids.
    """

    map50_95: float
    map50: float
    images: int
    objects: int
    per_class: tuple[ClassScore, ...]


@dataclass(frozen=True)
class Report:
    """What ``val`` returns.

    Attributes:
        scores: the accuracy.
        speed_ms: mean milliseconds an image by stage.
        notes: what the reader must know, such as that a network with NMS scores the best class of an anchor only.
    """

    scores: Scores
    speed_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def map50_95(self) -> float:
        """COCO's primary figure, 0..1."""
        return self.scores.map50_95

    @property
    def map50(self) -> float:
        """At IoU 0.50."""
        return self.scores.map50

    @property
    def per_class(self) -> tuple[ClassScore, ...]:
        """Each class that the ground truth holds."""
        return self.scores.per_class

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, unrounded: those of ``Scores``, then ``speed_ms`` and ``notes``."""
        return {
            **asdict(self.scores),
            "per_class": [asdict(score) for score in self.scores.per_class],
            "speed_ms": dict(self.speed_ms),
            "notes": list(self.notes),
        }
