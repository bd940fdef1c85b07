"""Collector: keeps frames of the device's own cameras until there are enough of them to calibrate INT8."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from vajra_edge.engine import kept, sampler
from vajra_edge.engine.sampler import Look, Sampler
from vajra_edge.engine.spec import Precision
from vajra_edge.engine.thumbnail import LEAST_CONTRAST
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
        flat: cameras whose last picture had too little contrast to be kept.
    """

    images: int
    most: int
    frozen: bool
    flat: tuple[str, ...] = ()

    def line(self) -> str:
        """For the status: what is collected, and what keeps it from going on."""
        said = [f"collecting {self.images} of {self.most} calibration images for int8"]
        said += [f"camera {name} shows less than {LEAST_CONTRAST:.0f} grey levels of contrast" for name in self.flat]
        return "; ".join(said)


@dataclass(frozen=True)
class _Wanted:
    settings: CalibrationSettings
    batch: int
    images: Sampler = field(compare=False)


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
        self._flat: set[str] = set()
        self._seen: Collected | None = None

    @property
    def collected(self) -> Collected | None:
        """How far it got; None where the cameras are not asked."""
        return self._seen if self._wanted else None

    def apply(self, settings: Settings) -> None:
        """Collect for these settings from now on. Called by the supervisor."""
        calibration = settings.calibration
        asked = settings.engine.precision == Precision.INT8.value and calibration.cameras and calibration.data is None
        images = Sampler(self._folder, most=calibration.max_images)
        wanted = _Wanted(calibration, settings.engine.batch, images) if asked else None
        if wanted != self._wanted:
            self._due_s = {}
            self._flat = set()
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

    def keep(self, frame: Frame, boxes: int) -> ImagesChanged | None:
        """Keep a frame that is due if it shows something new, and freeze the set once there are enough.

        Waits for the disk: called on a desk.

        Args:
            frame: of any camera.
            boxes: objects that were found in it.

        Raises:
            StoreError: the disk refuses.
            CalibrationError: the image cannot be encoded, or there are fewer than the engine's batch.
        """
        wanted, before = self._wanted, self._seen
        if wanted is None:
            return None
        if not (self._folder / sampler.FROZEN).is_file():
            self._looks += 1
            self._note(frame.camera, wanted.images.offer(frame, boxes))
            if self._suffice(images := len(kept.listed(self._folder)), wanted):
                log.info("the calibration set is complete: %d images of the cameras", images)
                wanted.images.freeze(wanted.batch)
        self._seen = self._look(wanted)
        changed = before is not None and before.frozen != self._seen.frozen
        return ImagesChanged(self._seen.frozen) if changed else None

    def _note(self, camera: str, look: Look) -> None:
        if (look is Look.FLAT) == (camera in self._flat):
            return
        self._flat ^= {camera}
        seen = "is dark or covered" if look is Look.FLAT else "shows something again"
        log.info("camera %s %s: calibration needs %.0f grey levels of contrast", camera, seen, LEAST_CONTRAST)

    def _suffice(self, images: int, wanted: _Wanted) -> bool:
        most = wanted.settings.max_images
        return images >= most or (images >= max(ENOUGH, wanted.batch) and self._looks >= PATIENCE * most)

    def _look(self, wanted: _Wanted) -> Collected:
        images, frozen = len(kept.listed(self._folder)), (self._folder / sampler.FROZEN).is_file()
        return Collected(images, wanted.settings.max_images, frozen, tuple(sorted(self._flat)))
