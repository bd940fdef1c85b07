"""Collection: how far the cameras' calibration pictures got, what they lack to be frozen, and their deletion."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

from vajra_edge import durable
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.calibration_set import LEAST_BOXES, held_out
from vajra_edge.quantization.camera_samples import Kept

ENOUGH = 64
"""Images that do, where no more come: a static camera has few different ones to give."""

BOXES = math.ceil(1.5 * LEAST_BOXES)
"""In the held-out part. The reference, and the weights of another day, will not find the very same boxes."""

SPREAD = 4
"""Times ``max_images`` * ``sample_s`` from the first to the last picture, however many cameras there are: 11 hours by
default, so that a set that began by day has seen the night, or the other way round."""

GAPS = 4
"""A gap between two pictures counts for no more than a fourth of that span. A Jetson without an RTC battery begins in
the past, and when NTP sets its clock, years lie between two pictures: they would freeze those of the first minutes. A
smaller part could never be enough of the smallest set, of eight, whose gaps thinning leaves uneven."""


FIRST_RELEASE = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""A picture from before it was taken while nobody had set the clock."""


@dataclass(frozen=True)
class Collected:
    """What is in the folder.

    Attributes:
        images: kept so far.
        most: that are kept at one time.
        boxes: objects in them, see ``Kept``.
        since: UTC of the first one whose time can be true; None while there is none.
        frozen: they are a set; nothing more is kept.
        lacking: why they are not frozen yet, in words; empty once they may be, or are.
        notes: what keeps pictures from being kept, in words; known to the daemon alone.
    """

    images: int
    most: int
    boxes: int = 0
    since: datetime | None = None
    frozen: bool = False
    lacking: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, folder: Path, settings: CalibrationSettings, batch: int, without: frozenset[str] = frozenset()
    ) -> Collected:
        """Look at a folder.

        Args:
            folder: where the sampler keeps them.
            settings: how many, and how often.
            batch: of the engine that is to be calibrated.
            without: names of pictures that count for nothing, for the sampler cannot read them.

        Raises:
            StoreError: it is there and cannot be read.
        """
        there = [one for one in camera_samples.listed(folder) if one.name not in without]
        frozen = camera_samples.is_frozen(folder)
        return cls(
            images=len(there),
            most=settings.max_images,
            boxes=sum(one.boxes for one in there),
            since=min((one.taken_at for one in there if one.taken_at >= FIRST_RELEASE), default=None),
            frozen=frozen,
            lacking=() if frozen else lacking(there, settings, batch),
        )

    def line(self) -> str:
        """In one line, for the status."""
        said = f"collecting {self.images} of {self.most} calibration images for int8"
        if self.since is not None:
            said += f", {self.boxes} boxes since {self.since:%Y-%m-%d %H:%M} UTC"
        waits = (f"waits for {' and '.join(self.lacking)}",) if self.lacking else ()
        return "; ".join((said, *waits, *self.notes))


def lacking(there: Sequence[Kept], settings: CalibrationSettings, batch: int) -> tuple[str, ...]:
    """What pictures lack before the accuracy check can judge an INT8 plan by them; nothing where they do.

    Args:
        there: the pictures in their order.
        settings: how many there may be, and how often.
        batch: of the engine that is to be calibrated.
    """
    if settings.max_images < batch:
        return (f"[calibration] max_images = {settings.max_images} to be raised to the batch of {batch}",)
    images = max(min(ENOUGH, settings.max_images), batch)
    judged = held_out(len(there))
    boxes = sum(one.boxes for number, one in enumerate(there) if number in judged)
    hours = SPREAD * settings.max_images * settings.sample_s / 3600
    hours_there = _hours(there, hours / GAPS)
    wants = {
        f"{images} images": len(there) < images,
        f"{BOXES} boxes on those held out for the gate ({boxes} so far)": boxes < BOXES,
        f"pictures of {hours:.1f} hours ({hours_there:.1f} so far)": hours_there < hours,
    }
    return tuple(said for said, missing in wants.items() if missing)


def _hours(there: Sequence[Kept], most: float) -> float:
    """From the first to the last picture; no gap between two counts for more than ``most`` hours."""
    times = sorted(one.taken_at for one in there)
    return sum(min((later - earlier).total_seconds() / 3600, most) for earlier, later in pairwise(times))


DELETED = ".deleted-"


def delete(folder: Path) -> None:
    """Remove all images and their list: for whoever looks meanwhile, in one step.

    A link to another disk, or one that is mounted here, stays: its images go one by one, their list at last, so that
    nobody takes what is left for a set that is being collected.

    Raises:
        StoreError: the disk refuses.
    """
    aside = folder.with_name(f"{folder.name}{DELETED}{uuid.uuid4().hex}")
    with durable.reported(folder, "deleted"):
        if folder.is_symlink() or os.path.ismount(folder):
            _empty(folder)
        elif folder.is_dir():
            with suppress(FileNotFoundError):  # somebody else deletes it too
                folder.rename(aside)
            durable.sync_folder(folder.parent)
        for rest in folder.parent.glob(f"{folder.name}{DELETED}*"):  # one may be left of a deletion that was cut short
            _remove(rest)


def _empty(folder: Path) -> None:
    for name in (*filter(camera_samples.is_picture, camera_samples.names(folder)), camera_samples.FROZEN):
        with suppress(NotADirectoryError):  # a link to nothing useful
            (folder / name).unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    if folder.is_symlink():  # earlier versions moved a link aside, and could not go on
        _empty(folder)
        folder.unlink(missing_ok=True)
    while folder.exists():
        with suppress(FileNotFoundError):  # somebody else deletes it too, and was faster with one of the files
            shutil.rmtree(folder)
