"""Kept: one camera picture of the calibration folder, described by its file name alone: nothing can disagree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from vajra_edge import durable

_NAME = re.compile(r"(\d{8,})-(.+)-(\d{8}T\d{9})Z-(\d+)\.jpg")
_FIRST_NAME = re.compile(r"\d{5}-.+-[0-9a-f]{16}\.jpg")
"""Of pictures that the first 0.1.0 froze: number, camera, and a hash of what they show."""

_TIME = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Kept:
    """One picture.

    Attributes:
        number: counts the pictures that were ever kept here; the order of the set.
        camera: the camera's id.
        taken_at: UTC, to the millisecond.
        boxes: objects that the serving plan found in it and that the gate would count, published or not.
    """

    number: int
    camera: str
    taken_at: datetime
    boxes: int

    @property
    def name(self) -> str:
        """Of the file."""
        moment = f"{self.taken_at.astimezone(timezone.utc):{_TIME}}"[:-3]
        return f"{self.number:08d}-{self.camera}-{moment}Z-{self.boxes}.jpg"

    @classmethod
    def parse(cls, name: str) -> Kept | None:
        """What ``name`` describes; None for any other file's name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        try:
            taken_at = datetime.strptime(match[3], _TIME).replace(tzinfo=timezone.utc)
        except ValueError:
            return None
        return cls(int(match[1]), match[2], taken_at, int(match[4]))


def listed(folder: Path) -> tuple[Kept, ...]:
    """The pictures of a folder, in their order; none where there is no folder.

    Raises:
        StoreError: the folder is there and cannot be read.
    """
    found = [one for one in map(Kept.parse, names(folder)) if one is not None]
    return tuple(sorted(found, key=lambda one: one.number))


def names(folder: Path) -> tuple[str, ...]:
    """Everything in a folder, in no order; nothing where there is no folder.

    Raises:
        StoreError: the folder is there and cannot be read.
    """
    with durable.reported(folder, "read"):
        try:
            return tuple(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):  # not made yet, or deleted at this moment
            return ()


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture that the cameras gave, to this version or to the first 0.1.0."""
    return Kept.parse(name) is not None or ("/" not in name and _FIRST_NAME.fullmatch(name) is not None)
