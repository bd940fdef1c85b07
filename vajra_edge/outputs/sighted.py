"""Sighted: one frame that was inferred and tracked, as outputs read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vajra_edge.tracking.tracker import Numbers
from vajra_edge.types import Detections, Frame


@dataclass(frozen=True)
class Message:
    """One message for the broker.

    Attributes:
        path: full MQTT topic.
        payload: its bytes; none: takes a retained one off the broker.
        qos: at most once, or 1, at least once.
        retain: the broker keeps it.
    """

    path: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True)
class Sighting:
    """One object in one frame.

    Attributes:
        track: its number, ``NO_TRACK`` where it has none; None: the camera does not track.
        label: name of its class.
        score: confidence.
        xyxy: left, top, right and bottom in pixels.
        zones: that it is in.
    """

    track: int | None
    label: str
    score: float
    xyxy: tuple[float, float, float, float]
    zones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sighted:
    """What one frame shows.

    Attributes:
        camera: the camera's id.
        seq: counts its frames.
        now_s: when it was taken, monotonic.
        unix_s: the same by the clock of the wall.
        resolution_wh: of the picture, in pixels.
        objects: in it; one with a number that is not finite is left out.
    """

    camera: str
    seq: int
    now_s: float
    unix_s: float
    resolution_wh: tuple[int, int]
    objects: tuple[Sighting, ...] = ()

    @classmethod
    def blank(cls, frame: Frame) -> Sighted:
        """Of a frame, whose picture is not kept: its memory is wanted for the next ones."""
        return cls(frame.camera, frame.seq, frame.captured_ns / 1e9, frame.taken_at.timestamp(), frame.resolution_wh)


def sighted(
    blank: Sighted,
    found: Detections,
    tracks: Numbers | None,
    names: Sequence[str],
    zones: Mapping[int, tuple[str, ...]],
) -> Sighted:
    """With what was found.

    Args:
        blank: of the frame.
        found: in it.
        tracks: of each; None: the camera is not tracked.
        names: of classes, by id.
        zones: that each track is in.
    """
    finite = np.isfinite(found.xyxy).all(1) & np.isfinite(found.confidence)
    numbers = [None] * len(found) if tracks is None else tracks.tolist()
    rows = zip(numbers, found.class_id.tolist(), found.confidence.tolist(), found.xyxy.tolist(), strict=True)
    objects = tuple(
        Sighting(
            track,
            names[index] if 0 <= index < len(names) else str(index),
            score,
            (box[0], box[1], box[2], box[3]),
            zones.get(track, ()) if track is not None else (),
        )
        for (track, index, score, box), is_finite in zip(rows, finite.tolist(), strict=True)
        if is_finite
    )
    return replace(blank, objects=objects)
