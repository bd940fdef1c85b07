"""Scenes whose truth is known: people walk, cross, stop, hide behind posts and each other, and a detector is made up.

Time is continuous, so that one scene gives the same walks at 2, 5 and 30 frames a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 1280, 720
HIDDEN = 0.25
"""The detector misses what is seen of a person to less than this."""


@dataclass(frozen=True)
class Walker:
    """One person: enters at ``begin_s`` from a side and walks at a speed that changes a little, perhaps with a stop."""

    begin_s: float
    feet: float
    """Height of the feet in the picture in pixels, from which size follows: nearer is lower."""
    start_x: float
    speed: float
    stop_s: tuple[float, float]
    phase: float

    @property
    def height_px(self) -> float:
        return 60 + 240 * (self.feet - 260) / (HEIGHT - 260)

    def box(self, now_s: float) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom at this time; None: not there."""
        t = now_s - self.begin_s
        if t < 0:
            return None
        walked = t - min(max(t - self.stop_s[0], 0), self.stop_s[1])
        x = self.start_x + self.speed * self.height_px * (walked + 0.08 * np.sin(2 * walked + self.phase))
        tall, wide = self.height_px, self.height_px * (0.38 + 0.04 * np.sin(6 * walked + self.phase))
        y = self.feet + 4 * np.sin(0.7 * walked + self.phase)
        if not -wide / 2 < x < WIDTH + wide / 2:
            return None
        return max(x - wide / 2, 0), y - tall, min(x + wide / 2, WIDTH), y


@dataclass(frozen=True)
class Seen:
    """One picture: what is true and what the made-up detector says."""

    now_s: float
    truth: dict[int, tuple[float, float, float, float]]
    xyxy: np.ndarray
    confidence: np.ndarray


def walkers(count: int, seconds: float, rng: np.random.Generator) -> list[Walker]:
    made = []
    for _ in range(count):
        way = rng.choice([-1, 1])
        made.append(
            Walker(
                begin_s=float(rng.uniform(-6, seconds - 4)),
                feet=float(rng.uniform(330, HEIGHT - 10)),
                start_x=-30.0 if way > 0 else WIDTH + 30.0,
                speed=float(way * rng.uniform(0.5, 1.1)),
                stop_s=(float(rng.uniform(1, 6)), float(rng.choice([0, 0, 1.5, 3.0]))),
                phase=float(rng.uniform(0, 6)),
            )
        )
    return made


def scene(
    fps: float, seconds: float, count: int, seed: int, missed: float = 0.05, false: float = 0.1, dropped: float = 0.0
) -> list[Seen]:
    """A scene as a detector sees it.

    Args:
        fps: pictures a second.
        seconds: how long.
        count: people in all.
        seed: of everything.
        missed: chance that a person in full view is not found.
        false: false boxes a picture, in the mean.
        dropped: chance that a picture is lost.
    """
    rng = np.random.default_rng(seed)
    people = sorted(walkers(count, seconds, rng), key=lambda w: w.feet)
    posts = [(float(x), float(rng.uniform(20, 50))) for x in rng.uniform(200, WIDTH - 200, 2)]
    pictures = []
    for index in range(int(seconds * fps)):
        now_s = index / fps
        boxes = {i: b for i, w in enumerate(people) if (b := w.box(now_s)) is not None}
        if rng.random() < dropped:
            continue
        pictures.append(_picture(now_s, boxes, posts, rng, missed, false))
    return pictures


def _picture(now_s, boxes, posts, rng, missed, false) -> Seen:
    found, confidence, truth = [], [], {}
    nearer = []
    for i, box in reversed(boxes.items()):  # the nearest first: they hide the others
        left, top, right, bottom = box
        columns = np.linspace(left, right, 24)
        free = np.ones(24, bool)
        for b in nearer:
            if b[1] < bottom - 0.3 * (bottom - top):
                free &= ~((columns > b[0]) & (columns < b[2]))
        for x, wide in posts:
            free &= ~((columns > x - wide / 2) & (columns < x + wide / 2))
        nearer.append(box)
        seen = float(free.mean())
        if seen >= HIDDEN:
            truth[i] = box
        if seen < HIDDEN or rng.random() < missed + 0.5 * (1 - seen):
            continue
        tall = bottom - top
        if seen < 0.8:
            inside = columns[free]
            left, right = max(left, inside.min() - 2), min(right, inside.max() + 2)
        found.append(np.array([left, top, right, bottom]) + rng.normal(0, 0.02 * tall, 4))
        confidence.append(float(np.clip(0.25 + 0.65 * seen + rng.normal(0, 0.08), 0.12, 0.98)))
    for _ in range(rng.poisson(false)):
        tall = rng.uniform(60, 200)
        x, y = rng.uniform(0, WIDTH), rng.uniform(200, HEIGHT)
        found.append(np.array([x, y - tall, x + tall * 0.4, y]))
        confidence.append(float(rng.uniform(0.12, 0.6)))
    return Seen(now_s, truth, np.array(found, float).reshape(-1, 4), np.array(confidence, float))
