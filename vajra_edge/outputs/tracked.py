"""Tracked: one object from its first frame to its last, as Frigate's events tell of it.

A field whose value needs what this device does not do (faces, plates, speeds, recordings, whether something stands
still) is null, or an empty list of what was recognised: nothing is made up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from vajra_edge.outputs.sighted import Sighted, Sighting

MOST_SCORES = 10
"""Newest scores whose median is what an object is worth; 0 in a frame in which it was not found."""

BETTER_SCORE, BETTER_AREA = 0.05, 1.1
"""A picture of an object is better than the best one by so much, or this many times larger."""

UPDATE_S = 5.0
"""A better picture is told this often at most."""

LONGEST_S = 60.0
"""An object is told of at least this often."""

_ID_CHARS = 6

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Best:
    """The best picture of an object so far: when, where in it, and how sure."""

    unix_s: float
    box: Box
    score: float


@dataclass(frozen=True)
class Tracked:
    """One object.

    Attributes:
        id: as Frigate makes them: the time at which it began, and letters.
        camera: the camera's id.
        label: name of its class when it began: an event has one label.
        region: of the picture that was looked at: all of it.
        start_s: when it began, by the clock of the wall.
        unix_s: when it was seen last, likewise.
        seen_s: the same, monotonic.
        box: there.
        score: there.
        scores: newest ones.
        top_score: highest median of them.
        best: its best picture.
        zones: that it is in.
        entered: that it was ever in, in this order.
        told_s: when it was told of last, monotonic.
        told: what was said then.
    """

    id: str
    camera: str
    label: str
    region: Box
    start_s: float
    unix_s: float
    seen_s: float
    box: Box
    score: float
    scores: tuple[float, ...]
    top_score: float
    best: Best
    zones: tuple[str, ...] = ()
    entered: tuple[str, ...] = ()
    told_s: float = 0.0
    told: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, device: str, frame: Sighted, one: Sighting) -> Tracked:
        """An object that is seen for the first time."""
        box, score = _box(one), one.score
        return cls(
            _id(device, frame, one),
            frame.camera,
            one.label,
            (0, 0, *frame.resolution_wh),
            frame.unix_s,
            frame.unix_s,
            frame.now_s,
            box,
            score,
            (score,),
            score,
            Best(frame.unix_s, box, score),
            one.zones,
            one.zones,
        )

    def seen(self, frame: Sighted, one: Sighting) -> Tracked:
        """It is in this frame, too."""
        scores = (*self.scores, one.score)[-MOST_SCORES:]
        now = Best(frame.unix_s, _box(one), one.score)
        return replace(
            self,
            unix_s=frame.unix_s,
            seen_s=frame.now_s,
            box=now.box,
            score=now.score,
            scores=scores,
            top_score=max(self.top_score, median(scores)),
            best=now if _is_better(now, self.best) else self.best,
            zones=one.zones,
            entered=(*self.entered, *(zone for zone in one.zones if zone not in self.entered)),
        )

    def hidden(self) -> Tracked:
        """It is not in this frame."""
        return replace(self, scores=(*self.scores, 0.0)[-MOST_SCORES:])

    def has_news(self, now_s: float) -> bool:
        """Whether an update is due: it is in other zones, there is a better picture of it, or it was long ago."""
        if list(self.zones) != self.told["current_zones"]:
            return True
        since_s = now_s - self.told_s
        better = self.told["snapshot"]["frame_time"] != self.best.unix_s
        return since_s >= LONGEST_S or (better and since_s >= UPDATE_S)

    def after_telling(self, now_s: float) -> Tracked:
        """As it is once it was told of."""
        return replace(self, told_s=now_s, told=self.view())

    def before_it_was_sure(self) -> dict[str, Any]:
        """What an event says of the time before it: nothing but what began."""
        unsure: dict[str, Any] = {
            "false_positive": True,
            "top_score": 0.0,
            "snapshot": None,
            "current_zones": [],
            "entered_zones": [],
        }
        return {**self.view(), **unsure}

    def view(self, *, ended: bool = False) -> dict[str, Any]:
        """As Frigate says it."""
        best = self.best
        return {
            "id": self.id,
            "camera": self.camera,
            "frame_time": self.unix_s,
            "snapshot": {
                "frame_time": best.unix_s,
                "box": best.box,
                "area": _area(best.box),
                "region": self.region,
                "score": best.score,
                "attributes": [],
            },
            "label": self.label,
            "sub_label": None,
            "top_score": self.top_score,
            "false_positive": False,
            "start_time": self.start_s,
            "end_time": self.unix_s if ended else None,
            "score": self.score,
            "box": self.box,
            "area": _area(self.box),
            "ratio": (self.box[2] - self.box[0]) / max(self.box[3] - self.box[1], 1),
            "region": self.region,
            "current_zones": list(self.zones),
            "entered_zones": list(self.entered),
            "thumbnail": None,
            "has_snapshot": False,
            "has_clip": False,
            **_NOT_KNOWN,
        }


_NOT_KNOWN: Mapping[str, Any] = {
    "active": None,
    "stationary": None,
    "motionless_count": None,
    "position_changes": None,
    "attributes": {},
    "current_attributes": [],
    "current_estimated_speed": None,
    "average_estimated_speed": None,
    "velocity_angle": None,
    "recognized_license_plate": None,
    "recognized_license_plate_score": None,
}


def _id(device: str, frame: Sighted, one: Sighting) -> str:
    """Two cameras may begin an object in the same moment, and two objects may begin in one frame."""
    digest = hashlib.sha256(f"{device}/{frame.camera}/{one.track}".encode()).digest()
    return f"{frame.unix_s:.6f}-{''.join(chr(ord('a') + byte % 26) for byte in digest[:_ID_CHARS])}"


def _box(one: Sighting) -> Box:
    left, top, right, bottom = (round(side) for side in one.xyxy)
    return left, top, right, bottom


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _is_better(now: Best, best: Best) -> bool:
    return now.score > best.score + BETTER_SCORE or _area(now.box) > BETTER_AREA * _area(best.box)
