"""Sampler: calibration images from the device's own cameras, for those who have no data set of the scene.

Frames are taken at intervals, near-duplicates left out, until enough are there; then the folder is frozen: from that
moment it is a ``CalibrationSet`` with a digest, and takes part in the fingerprint. Deleting the folder starts anew.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vajra_edge import durable
from vajra_edge.engine import calibration
from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.errors import CalibrationError
from vajra_edge.frames import Frame
from vajra_edge.settings import CalibrationSettings

FOLDER = "calibration/cameras"
"""Below the state directory."""

FROZEN = "frozen.json"

ALIKE_BITS = 6
"""Two pictures whose difference hashes differ in at most this many of 64 bits show the same scene with nothing new;
the usual figure for this hash is about 10 for 'the same photo', and a static camera needs a finer eye."""

JPEG_QUALITY = 95

_NAME = re.compile(r"(\d{5})-(.+)-([0-9a-f]{16})\.jpg")


class Sampler:
    """Collects into one folder; one writer at a time.

    Args:
        folder: below the state directory; created when the first image is kept.
        every_s: least time between two images of one camera.
        most: images after which nothing more is taken.
    """

    def __init__(self, folder: Path, *, every_s: float, most: int) -> None:
        self.folder = folder
        self.every_s = every_s
        self.most = most
        self._due_s: dict[str, float] = {}
        self._hashes = [int(match[3], 16) for match in map(_NAME.fullmatch, _names(folder)) if match]
        self._frozen = (folder / FROZEN).is_file()

    def __len__(self) -> int:
        return len(self._hashes)

    @property
    def full(self) -> bool:
        """Enough images are there; ``freeze`` may be called."""
        return len(self._hashes) >= self.most

    def wants(self, frame: Frame, now_s: float) -> bool:
        """Whether this frame is due and shows something new. Writes nothing; marks the camera as looked at."""
        if self._frozen or self.full or now_s < self._due_s.get(frame.camera, now_s):
            return False
        self._due_s[frame.camera] = now_s + self.every_s
        mine = difference_hash(frame.image)
        return all((mine ^ other).bit_count() > ALIKE_BITS for other in self._hashes)

    def offer(self, frame: Frame, now_s: float) -> Path | None:
        """Keep the frame if it is wanted; waits for the disk, so not for the thread that infers.

        Args:
            frame: of any camera.
            now_s: monotonic clock.

        Returns:
            The file, or None where the frame was not kept.

        Raises:
            StoreError: the disk refuses.
            CalibrationError: the image cannot be encoded.
        """
        if not self.wants(frame, now_s):
            return None
        mine = difference_hash(frame.image)
        encoded, content = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not encoded:
            raise CalibrationError(f"a frame of camera {frame.camera} cannot be encoded", remedy="check its size")
        path = self.folder / f"{len(self._hashes):05d}-{frame.camera}-{mine:016x}.jpg"
        with durable.reported(self.folder, "written"):
            durable.make_folder(self.folder)
            durable.replace(path, content.tobytes(), self.folder)
        self._hashes.append(mine)
        return path

    def freeze(self, batch: int = 1) -> CalibrationSet:
        """From now on the folder is a calibration set and takes no more images.

        Raises:
            CalibrationError: fewer images than ``batch``.
            StoreError: the disk refuses.
        """
        names = [name for name in _names(self.folder) if _NAME.fullmatch(name)]
        images = calibration.of_files("the device's cameras", tuple(self.folder / name for name in names), batch)
        with durable.reported(self.folder, "written"):
            durable.replace(self.folder / FROZEN, json.dumps(names).encode(), self.folder)
        self._frozen = True
        return images

    def delete(self) -> None:
        """Forget all images; collecting starts anew.

        Raises:
            StoreError: the disk refuses.
        """
        with durable.reported(self.folder, "deleted"):
            if self.folder.is_dir():
                (self.folder / FROZEN).unlink(missing_ok=True)
                shutil.rmtree(self.folder)
        self._hashes, self._due_s, self._frozen = [], {}, False


class NoSampler:
    """What is used where [calibration] cameras is off, or a data set is named."""

    full = False

    def offer(self, frame: Frame, now_s: float) -> None:
        """Keeps nothing."""
        del frame, now_s


def sampler_of(settings: CalibrationSettings, state_dir: Path) -> Sampler | NoSampler:
    """The sampler that the settings ask for."""
    if not settings.cameras or settings.data is not None:
        return NoSampler()
    return Sampler(state_dir / FOLDER, every_s=settings.sample_s, most=settings.max_images)


def frozen(folder: Path, batch: int = 1) -> CalibrationSet | None:
    """The images that ``freeze`` listed; None while collecting goes on.

    Raises:
        CalibrationError: the list is damaged, or has fewer images than ``batch``.
    """
    path = folder / FROZEN
    if not path.is_file():
        return None
    try:
        names = json.loads(path.read_bytes())
        paths = tuple(folder / name for name in names if _NAME.fullmatch(name))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CalibrationError(f"{path} is damaged", remedy=f"delete {folder} to collect anew", path=path) from error
    return calibration.of_files("the device's cameras", paths, batch)


def wanted_set(settings: CalibrationSettings, state_dir: Path, batch: int) -> CalibrationSet | None:
    """The images that the settings name; None where they are still being collected, or nothing is named.

    Raises:
        CalibrationError: the source cannot be used, or is too small.
    """
    if settings.data is not None:
        return CalibrationSet.collect(settings.data, fraction=settings.fraction, most=settings.max_images, batch=batch)
    return frozen(state_dir / FOLDER, batch) if settings.cameras else None


def difference_hash(image: NDArray[np.uint8]) -> int:
    """64 bits: of a 9 x 8 grey thumbnail, whether each pixel is darker than its right neighbour (dHash, N. Krawetz)."""
    grey = cv2.cvtColor(cv2.resize(image, (9, 8), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
