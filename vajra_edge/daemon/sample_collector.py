"""Sample collector: keeps frames of the device's own cameras until they do for calibrating INT8; then freezes them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from vajra_edge.config.settings import CalibrationSettings, Settings
from vajra_edge.errors import StoreError
from vajra_edge.plans.spec import Precision
from vajra_edge.quantization import camera_samples
from vajra_edge.quantization.camera_samples import LEAST_CONTRAST, Look, Sampler
from vajra_edge.quantization.collection import Collected
from vajra_edge.types import Frame

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagesChanged:
    """Event: the calibration images are complete (``frozen``), or some or all were deleted: is another plan wanted?"""

    frozen: bool


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
        self._folder = state_dir / camera_samples.FOLDER
        self._wanted: _Wanted | None = None
        self._due_s: dict[str, float] = {}
        self._flat: tuple[str, ...] = ()
        self._refused: StoreError | None = None
        self._seen: Collected | None = None

    @property
    def collected(self) -> Collected | None:
        """How far it got; None where the cameras are not asked."""
        return self._seen if self._wanted else None

    def apply(self, settings: Settings) -> None:
        """Collect for these settings from now on. Called by the supervisor, so an unreadable folder becomes a note."""
        calibration = settings.calibration
        asked = settings.engine.precision == Precision.INT8.value and calibration.cameras and calibration.data is None
        images = Sampler(self._folder, most=calibration.max_images)
        wanted = _Wanted(calibration, settings.engine.batch or 1, images) if asked else None
        if wanted != self._wanted:
            self._due_s = {}
            self._flat, self._refused = (), None
            self._seen = self._look(wanted, None) if wanted else None
            self._wanted = wanted

    def due(self, camera: str, now_s: float) -> bool:
        """Whether it is time for an image of this camera. Called by the frame loop, for each frame."""
        wanted = self._wanted
        if wanted is None or now_s < self._due_s.get(camera, now_s):
            return False
        self._due_s[camera] = now_s + wanted.settings.sample_s
        return True

    def keep(self, frame: Frame, boxes: int) -> ImagesChanged | None:
        """Keep a frame that is due if it shows something new, and freeze the set once it lacks nothing.

        Waits for the disk: called in the background. A disk that refuses is said once, until it takes images again; a
        folder that cannot be read counts as it was seen last.

        Args:
            frame: of any camera.
            boxes: objects that the accuracy check would count in it, see ``accuracy_check.counted``.

        Raises:
            CalibrationError: the image cannot be encoded.
        """
        wanted, before = self._wanted, self._seen
        if wanted is None:
            return None
        try:
            self._take(wanted, frame, boxes)
        except StoreError as error:
            self._refuse(error)
        seen = self._seen = self._look(wanted, before)
        return ImagesChanged(seen.frozen) if before is not None and _set_of(before) != _set_of(seen) else None

    def _take(self, wanted: _Wanted, frame: Frame, boxes: int) -> None:
        look = wanted.images.offer(frame, boxes)
        self._note(frame.camera, look)
        if self._refused is not None and (look is Look.KEPT or self._refused.verb == "read"):
            log.info("calibration images are kept again")
            self._refused = None
        seen = self._count(wanted)
        if not seen.frozen and not seen.lacking:
            wanted.images.freeze(wanted.batch)
            log.info("the calibration set is complete: %d images of the cameras", seen.images)

    def _refuse(self, error: StoreError) -> None:
        if self._refused is None or _reason(self._refused) != _reason(error):
            log.warning("no calibration images are kept: %s", error)
            self._refused = error

    def _note(self, camera: str, look: Look) -> None:
        if (look is Look.FLAT) == (camera in self._flat):
            return
        self._flat = tuple(sorted({*self._flat} ^ {camera}))
        seen = "is dark or covered" if look is Look.FLAT else "shows something again"
        log.info("camera %s %s: calibration needs %.0f grey levels of contrast", camera, seen, LEAST_CONTRAST)

    def _look(self, wanted: _Wanted, before: Collected | None) -> Collected:
        try:
            seen = self._count(wanted)
        except StoreError as error:
            self._refuse(error)
            seen = before or Collected(0, wanted.settings.max_images)
        notes = [f"camera {name} shows less than {LEAST_CONTRAST:.0f} grey levels of contrast" for name in self._flat]
        if (lost := len(wanted.images.unreadable)) and not seen.frozen:
            notes.append(f"{lost} more cannot be read and {'is' if lost == 1 else 'are'} left out")
        notes += [str(self._refused)] if self._refused else []
        return replace(seen, notes=tuple(notes))

    def _count(self, wanted: _Wanted) -> Collected:
        return Collected.of(self._folder, wanted.settings, wanted.batch, wanted.images.unreadable)


def _reason(error: StoreError) -> tuple[int | None, str]:
    """What makes a refusal another one: a folder that can be read again may not be written yet, for the same errno."""
    return error.errno, error.verb


def _set_of(seen: Collected) -> tuple[bool, int]:
    """What a desired plan depends on: whether there is a set, and how many images are left of it."""
    return seen.frozen, seen.images if seen.frozen else 0
