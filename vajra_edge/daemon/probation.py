"""Probation: whether a plan that replaced another does at least as well on the same cameras. Pure; the clock comes in.

An error of the plan ends it at once, and so does the death of the process under it, see ``death``. What is judged here
is a plan that runs: how old its frames are, and what it finds for each camera.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

FRAMES = 100
"""Frames on each side that a verdict needs."""

FEW = 20
"""Frames of a plan that is so slow that it does not come to ``FRAMES`` in its probation."""

KEPT = 300
"""Frames kept of each camera, the newest."""

SLOWER = 5.0
"""Times older than the accuracy check's own figures lead to expect; less may be the weather of a busy machine."""

GRACE_MS = 100.0
"""Added to what is allowed, so that a few milliseconds never count as many times slower."""

SEEN = 0.5
"""Detections a frame under which a scene is so empty that nothing found proves nothing."""

LEAST_SHARE = 0.1
"""Of what the plan before found for a camera. A parked car may leave while plans change; a tenth is another matter."""

SCENE_S = 20.0
"""One camera's scene is watched for so long before it counts: what left it a moment ago may come back."""


@dataclass(frozen=True)
class CameraFigures:
    """What a plan found for one camera lately.

    Attributes:
        frames: how many the figure is taken from.
        found: mean detections a frame.
    """

    frames: int
    found: float


@dataclass(frozen=True)
class Figures:
    """What a plan did lately.

    Attributes:
        frames: how many the figures are taken from.
        age_p50_ms: median of the frames' ages, from capture to published.
        age_p99_ms: likewise, what one in a hundred exceeds: of ``FRAMES`` the second oldest.
        found: mean detections a frame.
        cameras: the same of each camera.
    """

    frames: int
    age_p50_ms: float
    age_p99_ms: float
    found: float
    cameras: Mapping[str, CameraFigures] = field(default_factory=dict)


class Tally:
    """The last frames of one plan; one thread adds, any thread reads."""

    def __init__(self) -> None:
        self._cameras: dict[str, deque[tuple[float, int]]] = {}

    def add(self, camera: str, age_ms: float, found: int) -> None:
        """One frame was published."""
        frames = self._cameras.get(camera)
        if frames is None:
            frames = deque(maxlen=KEPT)
            self._cameras = {**self._cameras, camera: frames}
        frames.append((age_ms, found))

    def figures(self) -> Figures:
        """A snapshot."""
        cameras = {camera: list(frames) for camera, frames in self._cameras.items()}
        frames = [frame for of_one in cameras.values() for frame in of_one]
        if not frames:
            return Figures(0, 0.0, 0.0, 0.0)
        ages = sorted(age_ms for age_ms, _ in frames)
        p50, p99 = (ages[math.ceil(share * len(ages)) - 1] for share in (0.5, 0.99))
        of_each = {camera: CameraFigures(len(one), _mean_found(one)) for camera, one in cameras.items() if one}
        return Figures(len(frames), p50, p99, _mean_found(frames), of_each)


def _mean_found(frames: Iterable[tuple[float, int]]) -> float:
    counts = [found for _, found in frames]
    return sum(counts) / len(counts)


def unfit(
    before: Figures, after: Figures, gate_ratio: float | None, *, same_classes: bool, served_s: float = 0.0
) -> str:
    """Why the new plan must not stay; empty while nothing speaks against it.

    Args:
        before: of the plan that it replaced, until the swap.
        after: of the new plan, since the swap.
        gate_ratio: how many times slower than the old plan the accuracy check measured it, which the operator asked
            for (a bigger network, say); None: not measured, so that slowness is not judged.
        same_classes: both plans know the same classes, so that finding nothing at all is suspicious.
        served_s: since the swap.
    """
    if before.frames < FRAMES:
        return ""
    if after.frames >= FRAMES or (after.frames >= FEW and served_s >= SCENE_S):
        late = _late(before, after, gate_ratio)
        if late:
            return late
    if after.frames < FRAMES:
        return ""
    if same_classes and before.found >= SEEN and after.found == 0.0:
        return f"it found nothing in {after.frames} frames, the plan before {before.found:.1f} objects a frame"
    return _blind(before.cameras, after.cameras) if same_classes and served_s >= SCENE_S else ""


def _late(before: Figures, after: Figures, gate_ratio: float | None) -> str:
    """Most of its frames are: one spike of a neighbour makes a few late, all of one batch, whatever plan serves."""
    if gate_ratio is None:
        return ""
    times = SLOWER * max(gate_ratio, 1.0)
    old, new = (before.age_p50_ms, before.age_p99_ms), (after.age_p50_ms, after.age_p99_ms)
    if any(is_ms <= times * was_ms + GRACE_MS for was_ms, is_ms in zip(old, new, strict=True)):
        return ""
    return "frame age is {:.0f} ms (p99 {:.0f} ms), with the plan before {:.0f} ms ({:.0f} ms)".format(*new, *old)


def _blind(before: Mapping[str, CameraFigures], after: Mapping[str, CameraFigures]) -> str:
    """Names a camera for which the new plan finds next to nothing of what the old one did."""
    for camera, old in before.items():
        new = after.get(camera)
        if new is None or min(old.frames, new.frames) < FRAMES or old.found < SEEN:
            continue
        if new.found < LEAST_SHARE * old.found:
            return f"camera {camera}: it found {new.found:.2f} objects a frame, the plan before {old.found:.1f}"
    return ""


def compared(before: Figures | None, after: Figures) -> dict[str, float]:
    """Both sides by name, for the history."""
    told = {"frames": float(after.frames), **_measured(after)}
    if before is not None:
        told |= {f"before_{name}": value for name, value in _measured(before).items()}
    return {name: round(value, 3) for name, value in told.items()}


def _measured(figures: Figures) -> dict[str, float]:
    return {
        "age_p50_ms": figures.age_p50_ms,
        "age_p99_ms": figures.age_p99_ms,
        "found_a_frame": figures.found,
    }
