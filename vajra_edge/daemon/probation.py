"""Probation: whether a plan that replaced another does at least as well on the same cameras. Pure figures, no clock."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

FRAMES = 100
"""Frames on each side that a verdict needs."""

KEPT = 300
"""Frames kept, the newest."""

SLOWER = 5.0
"""Times older than the accuracy check's own figures lead to expect; less may be the weather of a busy machine."""

GRACE_MS = 100.0
"""Added to what is allowed, so that a few milliseconds never count as many times slower."""

SEEN = 0.5
"""Detections a frame under which a scene is so empty that nothing found proves nothing."""


@dataclass(frozen=True)
class Figures:
    """What a plan did lately.

    Attributes:
        frames: how many the figures are taken from.
        age_p99_ms: from capture to published.
        found: mean detections a frame.
    """

    frames: int
    age_p99_ms: float
    found: float


class Tally:
    """The last frames of one plan; one thread adds, any thread reads."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, int]] = deque(maxlen=KEPT)

    def add(self, age_ms: float, found: int) -> None:
        """One frame was published."""
        self._frames.append((age_ms, found))

    def figures(self) -> Figures:
        """A snapshot."""
        frames = list(self._frames)
        if not frames:
            return Figures(0, 0.0, 0.0)
        ages = sorted(age_ms for age_ms, _ in frames)
        p99 = ages[min(len(ages) - 1, math.ceil(0.99 * len(ages)) - 1)]
        return Figures(len(frames), p99, sum(found for _, found in frames) / len(frames))


def unfit(before: Figures, after: Figures, gate_ratio: float | None, *, same_classes: bool) -> str:
    """Why the new plan must not stay; empty while nothing speaks against it.

    Args:
        before: of the plan that it replaced, until the swap.
        after: of the new plan, since the swap.
        gate_ratio: how many times slower than the old plan the accuracy check measured it, which the operator asked
        for (a
            bigger network, say); None: not measured, so that slowness is not judged.
        same_classes: both plans know the same classes, so that finding nothing at all is suspicious.
    """
    if min(before.frames, after.frames) < FRAMES:
        return ""
    if same_classes and before.found >= SEEN and after.found == 0.0:
        return f"it found nothing in {after.frames} frames, the plan before {before.found:.1f} objects a frame"
    if gate_ratio is not None:
        allowed_ms = SLOWER * max(gate_ratio, 1.0) * before.age_p99_ms + GRACE_MS
        if after.age_p99_ms > allowed_ms:
            return f"p99 of frame age is {after.age_p99_ms:.0f} ms, with the plan before {before.age_p99_ms:.0f} ms"
    return ""
