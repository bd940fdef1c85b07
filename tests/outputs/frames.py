"""Makers of frames as outputs read them."""

from __future__ import annotations

from typing import Any

from vajra_edge.outputs.sighted import Sighted, Sighting

BEGAN_S = 1_700_000_000.0


def person(track: int | None = 1, score: float = 0.8, left: float = 100.0, **more: Any) -> Sighting:
    """Somebody 50 by 100 pixels large."""
    return Sighting(track, more.pop("label", "person"), score, (left, 50.0, left + 50.0, 150.0), **more)


def frame(at_s: float, *objects: Sighting, camera: str = "gate", seq: int = 0) -> Sighted:
    """A frame so many seconds after the first."""
    return Sighted(camera, seq, 1000.0 + at_s, BEGAN_S + at_s, (640, 480), objects)
