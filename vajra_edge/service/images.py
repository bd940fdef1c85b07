"""Images: looks, while INT8 cannot use its calibration images, whether they are others by now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vajra_edge import dataset
from vajra_edge.engine import sampler
from vajra_edge.engine.spec import Precision
from vajra_edge.errors import DatasetError
from vajra_edge.service.desk import Desk
from vajra_edge.settings import CalibrationSettings, Settings

LOOK_S = 30.0
"""Two looks alike follow a change before it counts, so that a set is copied whole: it is used within a minute or so."""


@dataclass(frozen=True)
class ImagesMoved:
    """Event: the images are others than when they could not be used."""


class Images:
    """The looks of one daemon; times and names are looked at, the content is not.

    Args:
        desk: where the disk may take its time.
        state_dir: where the cameras' own images are kept.
    """

    def __init__(self, desk: Desk[ImagesMoved], state_dir: Path) -> None:
        self._desk, self._state_dir = desk, state_dir
        self._base: str | None = None
        self._last: str | None = None
        self._due_s = 0.0

    def look(self, settings: Settings) -> str | None:
        """What they look like now; None where INT8 is not asked for. Slow."""
        asked = settings.engine.precision == Precision.INT8.value
        return look(settings.calibration, self._state_dir) if asked else None

    def used(self, looked: str | None, now_s: float) -> None:
        """The wish was worked out from images that looked like this; None: from none."""
        self._base, self._last, self._due_s = looked, looked, now_s + LOOK_S

    def tick(self, settings: Settings, now_s: float) -> None:
        """Look now and then. Called while INT8 waits for usable images; the desk posts ``ImagesMoved``."""
        if self._base is not None and now_s >= self._due_s:
            self._due_s = now_s + LOOK_S
            self._desk.do("look at the calibration images", lambda: self._compare(settings))

    def _compare(self, settings: Settings) -> ImagesMoved | None:
        before, self._last = self._last, self.look(settings)
        return ImagesMoved() if self._last == before != self._base else None


def look(calibration: CalibrationSettings, state_dir: Path) -> str:
    """A digest of names, lengths and times of all images, or why there are none.

    Args:
        calibration: names them.
        state_dir: where the cameras' own are kept.
    """
    try:
        paths = _paths(calibration, state_dir)
    except (DatasetError, OSError) as error:
        return str(error)
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path} {_seen(path)}\n".encode())
    return total.hexdigest()


def _paths(calibration: CalibrationSettings, state_dir: Path) -> list[Path]:
    if calibration.data is not None:
        return sorted({entry.path for entry in dataset.open_dataset(calibration.data).entries})
    folder = state_dir / sampler.FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _seen(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
