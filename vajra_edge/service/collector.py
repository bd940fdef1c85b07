"""Collector: keeps frames of the device's own cameras until there are enough of them to calibrate INT8."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from vajra_edge.engine import sampler
from vajra_edge.engine.sampler import Sampler
from vajra_edge.engine.spec import Precision
from vajra_edge.frames import Frame
from vajra_edge.settings import CalibrationSettings, Settings

log = logging.getLogger(__name__)

ENOUGH = 64
"""Images that do where no more come: a static camera has few different ones to give."""

PATIENCE = 4
"""Times ``max_images`` looks, since the start, after which ``ENOUGH`` images do: 11 hours of one camera by default."""


@dataclass(frozen=True)
class ImagesChanged:
    """Event: the calibration images are complete (``frozen``), or were deleted; another plan is wanted now."""

    frozen: bool


@dataclass(frozen=True)
class Collected:
    """How far it got.

    Attributes:
        images: kept so far.
        most: after which the set is frozen.
        frozen: it is; nothing more is kept.
    """

    images: int
    most: int
    frozen: bool


@dataclass(frozen=True)
class _Wanted:
    settings: CalibrationSettings
    batch: int


class Collector:
    """Works only while INT8 is wanted and nothing but the cameras can calibrate it.

    The folder is looked at anew each time, so that deleting it, as its owner may at any moment, starts anew.

    Args:
        state_dir: the images go below it.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / sampler.FOLDER
        self._wanted: _Wanted | None = None
        self._due_s: dict[str, float] = {}
        self._looks = 0
        self._seen: Collected | None = None

    @property
    def collected(self) -> Collected | None:
        """How far it got; None where the cameras are not asked."""
        return self._seen if self._wanted else None

    def apply(self, settings: Settings) -> None:
        """Collect for these settings from now on. Called by the supervisor."""
        calibration = settings.calibration
        asked = settings.engine.precision == Precision.INT8.value and calibration.cameras and calibration.data is None
        wanted = _Wanted(calibration, settings.engine.batch) if asked else None
        if wanted != self._wanted:
            self._due_s = {}
            self._looks = 0
            self._seen = self._look(wanted) if wanted else None
            self._wanted = wanted

    def due(self, camera: str, now_s: float) -> bool:
        """Whether it is time for an image of this camera. Called by the frame loop, for each frame."""
        wanted = self._wanted
        if wanted is None or now_s < self._due_s.get(camera, now_s):
            return False
        self._due_s[camera] = now_s + wanted.settings.sample_s
        return True

    def keep(self, frame: Frame, now_s: float) -> ImagesChanged | None:
        """Keep a frame that is due if it shows something new, and freeze the set once there are enough.

        Waits for the disk: called on a desk.

        Raises:
            StoreError: the disk refuses.
            CalibrationError: the image cannot be encoded, or there are fewer than the engine's batch.
        """
        wanted, before = self._wanted, self._seen
        if wanted is None:
            return None
        images = Sampler(self._folder, every_s=wanted.settings.sample_s, most=wanted.settings.max_images)
        if not (self._folder / sampler.FROZEN).is_file():
            self._looks += 1
            images.offer(frame, now_s)
            if self._suffice(len(images), wanted):
                log.info("the calibration set is complete: %d images of the cameras", len(images))
                images.freeze(wanted.batch)
        self._seen = self._look(wanted)
        changed = before is not None and before.frozen != self._seen.frozen
        return ImagesChanged(self._seen.frozen) if changed else None

    def _suffice(self, images: int, wanted: _Wanted) -> bool:
        most = wanted.settings.max_images
        return images >= most or (images >= max(ENOUGH, wanted.batch) and self._looks >= PATIENCE * most)

    def _look(self, wanted: _Wanted) -> Collected:
        images = Sampler(self._folder, every_s=wanted.settings.sample_s, most=wanted.settings.max_images)
        return Collected(len(images), wanted.settings.max_images, (self._folder / sampler.FROZEN).is_file())
