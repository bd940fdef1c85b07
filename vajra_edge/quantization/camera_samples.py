"""Camera samples: calibration images from the device's own cameras, for those who have no data set of the scene.

A picture is described by its file name alone, so that nothing can disagree. Pictures that show something new are
kept, and in a full folder take the place of others, until what is there does for the accuracy check (``collection``);
then the folder is frozen: from that moment it is a ``CalibrationSet`` with a digest and takes part in the
fingerprint. Deleting the folder starts anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vajra_edge import durable, state_file
from vajra_edge.config.settings import CalibrationSettings
from vajra_edge.errors import CalibrationError, StoreError
from vajra_edge.media.bgr import bgr_of
from vajra_edge.quantization import calibration_set
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.types import Frame
from vajra_edge.wording import Command, say

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
        boxes: objects that the serving plan found in it and that the accuracy check would count, published or not.
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


SIDE = 16
"""Cells a side. A cell of a 640 x 480 frame averages 1,200 pixels: noise of 25 grey levels, as a night camera's, leaves
0.7 of them in it."""

LEAST_CONTRAST = 4.0
"""Standard deviation in grey levels. A picture with less is a covered lens or a dark night: it shows nothing."""

NEW_LEVELS = 8.0
NEW_CELLS = 3
"""A scene is another one where at least this many cells (1 % of the picture) changed by this many grey levels."""


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(SIDE, SIDE) float32 grey levels, averaged by area and never rounded: a rounded flat picture is all noise.

    Args:
        image: (height, width, 3) BGR or (height, width) grey.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image  # noqa: PLR2004
    return np.asarray(cv2.resize(grey.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)


def of_file(path: Path) -> NDArray[np.float32] | None:
    """The thumbnail of a stored JPEG, decoded at half its size; None of one that was read and is damaged.

    Raises:
        OSError: it cannot be read, which says nothing about the picture. ``cv2.imread`` would not tell them apart.
    """
    content = np.frombuffer(state_file.read(path), np.uint8)
    try:
        grey = cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_2)
    except cv2.error:  # nothing in it, or a header that promises more pixels than OpenCV allows
        return None
    return None if grey is None else thumbnail(np.asarray(grey, np.uint8))


def contrast(mine: NDArray[np.float32]) -> float:
    """Standard deviation over the cells, in grey levels."""
    return float(mine.std())


def shows_new(mine: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> bool:
    """Whether a scene differs from every other; one that only became brighter as a whole (exposure) does not."""
    if not others:
        return True
    differences = np.stack(others) - mine
    differences -= differences.mean(axis=(1, 2), keepdims=True)
    changed_cells = (np.abs(differences) >= NEW_LEVELS).sum(axis=(1, 2))
    return bool(changed_cells.min() >= NEW_CELLS)


EMPTY_ONE_IN = 4
"""Of the set may be scenes without objects. Ranges want some of them; the accuracy check learns nothing from them."""


def superfluous(pictures: Sequence[Kept], most: int) -> tuple[Kept, ...]:
    """Those to be left out so that ``most`` remain; in the order of leaving.

    Args:
        pictures: of all cameras, the one that is offered among them.
        most: that may stay.
    """
    stay, leave = list(pictures), []
    while len(stay) > most:
        empty = [one for one in stay if one.boxes == 0]
        gone = _crowded(empty if len(empty) * EMPTY_ONE_IN > most else stay)
        stay.remove(gone)
        leave.append(gone)
    return tuple(leave)


def _crowded(pictures: Sequence[Kept]) -> Kept:
    """Of the two pictures of one camera that were taken closest together, the emptier; of two alike, the later."""
    by_camera: defaultdict[str, list[Kept]] = defaultdict(list)
    for one in sorted(pictures, key=lambda one: (one.taken_at, one.number)):
        by_camera[one.camera].append(one)
    pairs = [pair for own in by_camera.values() for pair in pairwise(own)]
    if not pairs:
        return min(pictures, key=lambda one: (one.boxes, one.number))
    _, later, earlier = min(
        ((later.taken_at - earlier.taken_at, later, earlier) for earlier, later in pairs),
        key=lambda found: (found[0], found[1].number),
    )
    return min((later, earlier), key=lambda one: one.boxes)


log = logging.getLogger(__name__)

Read = TypeVar("Read")

FOLDER = "calibration/cameras"
"""Below the state directory."""

FROZEN = "frozen.json"

LEAST_FREE_BYTES = 256 << 20
"""Images leave this much of the disk to what matters more: a plan, the journal, the system."""

JPEG_QUALITY = 95

LEFT_OUT_ONE_IN = 4
"""Of the pictures, and always one, may be unreadable (a bad sector) and are done without. Where more are, it is the
disk, and what is read well again tomorrow would be missed in a set frozen today."""

NOT_THE_PICTURES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ENOENT})
"""Reasons that lie with this process, its user or an owner who deletes: they say nothing about one picture."""

SOURCE = "the device's cameras"

ANEW = say("run '", Command.CALIBRATION_DELETE, "' to collect anew")


class Look(str, Enum):
    """What came of a frame."""

    KEPT = "kept"
    ALIKE = "shows nothing new"
    FLAT = "shows too little contrast"
    SPARE = "shows less than the pictures that are there"
    FROZEN = "finds the set frozen"


class Sampler:
    """Collects into one folder, which is looked at anew each time; one writer at a time.

    Args:
        folder: below the state directory; created when the first image is kept.
        most: images that are there at one time, beside those that cannot be read.

    Attributes:
        unreadable: names of the pictures that could not be read when this was tried last. They stay, for they may be
            read again, and are left out.
    """

    def __init__(self, folder: Path, *, most: int) -> None:
        self.folder = folder
        self.most = most
        self.unreadable: frozenset[str] = frozenset()
        self._thumbnails: dict[str, NDArray[np.float32]] = {}

    def offer(self, frame: Frame, boxes: int) -> Look:
        """Keep a frame that shows something new; waits for the disk, so not for the thread that infers.

        Args:
            frame: of any camera.
            boxes: objects that the accuracy check would count in it, those of at least ``accuracy_check.CONFIDENCE``.

        Raises:
            StoreError: the disk refuses, or has less than ``LEAST_FREE_BYTES``, or more pictures cannot be read than
                are done without.
            CalibrationError: the image cannot be encoded.
        """
        if is_frozen(self.folder):
            return Look.FROZEN
        files = listed(self.folder)
        there = self._readable(files)  # for a dark frame too: who asks what is lacking counts on ``unreadable``
        image = bgr_of(frame)
        mine = thumbnail(image)
        if contrast(mine) < LEAST_CONTRAST:
            return Look.FLAT
        if not shows_new(mine, tuple(self._thumbnails.values())):
            return Look.ALIKE
        number = files[-1].number + 1 if files else 0
        new = Kept(number, frame.camera, frame.taken_at, boxes)
        leave = superfluous((*there, new), self.most)
        if new not in leave:
            with durable.reported(self.folder, "written"):
                durable.make_folder(self.folder)
            self._require_space()
            self._write(new.name, _encode(image, frame.camera))
            self._thumbnails[new.name] = mine
        for one in leave:
            self._delete(one.name)
        return Look.SPARE if new in leave else Look.KEPT

    def freeze(self, batch: int = 1) -> CalibrationSet:
        """From now on the folder is a calibration set and takes no more images.

        Raises:
            CalibrationError: fewer images than ``batch``.
            StoreError: the disk refuses, or more pictures cannot be read than are done without.
        """
        files = listed(self.folder)
        names = [one.name for one in self._readable(files)]
        digests, lost = self._each(names, _digest, _done_without(files) - len(self.unreadable))
        self.unreadable |= lost
        images = calibration_set.of_files(SOURCE, tuple(self.folder / name for name in digests), batch)
        self._write(FROZEN, json.dumps(digests).encode())
        return images

    def _readable(self, listed: Sequence[Kept]) -> tuple[Kept, ...]:
        """The pictures of those listed that can be used.

        Raises:
            StoreError: too many cannot be read for now; they stay, and nothing is judged without them.
        """
        names = {one.name for one in listed}
        self._thumbnails = {name: mine for name, mine in self._thumbnails.items() if name in names}
        new, self.unreadable = self._each(names - self._thumbnails.keys(), self._thumbnail, _done_without(listed))
        self._thumbnails |= {name: mine for name, mine in new.items() if mine is not None}
        return tuple(one for one in listed if one.name in self._thumbnails)

    def _each(
        self, names: Iterable[str], read: Callable[[Path], Read], most: int
    ) -> tuple[dict[str, Read], frozenset[str]]:
        """What ``read`` makes of each picture, and the names of those that cannot be read, ``most`` at most.

        Raises:
            StoreError: more cannot be read, or one for a reason that is not the picture's.
        """
        found: dict[str, Read] = {}
        lost: set[str] = set()
        for name in names:
            with durable.reported(self.folder, "read"):
                try:
                    found[name] = read(self.folder / name)
                except OSError as error:
                    self._thumbnails.pop(name, None)  # so that the next look reads it again
                    if error.errno in NOT_THE_PICTURES or len(lost) >= most:
                        raise
                    lost.add(name)
                    self._say_left_out(name, error)
        return found, frozenset(lost)

    def _say_left_out(self, name: str, error: OSError) -> None:
        if name not in self.unreadable:
            reason = error.strerror or error
            log.warning("calibration image %s cannot be read and is left out: %s", self.folder / name, reason)

    def _thumbnail(self, path: Path) -> NDArray[np.float32] | None:
        """None of a picture that goes, for it is damaged and would stop the build that it is meant for, or is gone."""
        try:
            mine = of_file(path)
        except FileNotFoundError:  # its owner deletes the pictures at this moment
            return None
        if mine is None:
            log.warning("calibration image %s is damaged and deleted", path)
            self._delete(path.name)
        return mine

    def _require_space(self) -> None:
        with durable.reported(self.folder, "written"):
            free_bytes = shutil.disk_usage(self.folder).free
        if free_bytes < LEAST_FREE_BYTES:
            raise StoreError(
                f"{self.folder}: {free_bytes >> 20} MiB are free, and images leave {LEAST_FREE_BYTES >> 20} to others",
                remedy="free space on that disk",
                path=self.folder,
                errno=errno.ENOSPC,
            )

    def _delete(self, name: str) -> None:
        with durable.reported(self.folder, "written"):
            (self.folder / name).unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        with durable.reported(self.folder, "written"):
            durable.replace(self.folder / name, content, self.folder)


def _done_without(listed: Sequence[Kept]) -> int:
    return max(1, len(listed) // LEFT_OUT_ONE_IN)


def _encode(image: NDArray[np.uint8], camera: str) -> bytes:
    encoded, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise CalibrationError(f"a frame of camera {camera} cannot be encoded", remedy="check its size")
    return content.tobytes()


def is_frozen(folder: Path) -> bool:
    """Whether the folder holds a set and takes no more images.

    Raises:
        StoreError: the folder is there and cannot be read.
    """
    with durable.reported(folder, "read"):
        return (folder / FROZEN).is_file()


def frozen(folder: Path, batch: int = 1) -> CalibrationSet | None:
    """The images that ``freeze`` listed and that are still as they were; None while collecting goes on.

    The set is known by its list: while at least half of it is left, what is lost makes no other set of it.

    Raises:
        CalibrationError: the list is damaged or cannot be read, or less than half of the images are left, or fewer than
            ``batch``.
    """
    path = folder / FROZEN
    try:
        content = state_file.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        remedy = "give the folder to the service's user, or check its disk"
        raise CalibrationError(f"{path}: {error.strerror or error}", remedy=remedy, path=path) from error
    try:
        digests = _listed(json.loads(content), folder)
    except (ValueError, AttributeError, RecursionError) as error:
        raise CalibrationError(f"{path} is damaged", remedy=ANEW, path=path) from error
    left = tuple(
        folder / name
        for name, digest in digests.items()
        if is_picture(name) and digest and _digest_there(folder / name) == digest
    )
    if len(left) * 2 < len(digests) or not left:
        said = f"{len(left)} of the {len(digests)} calibration images that were frozen in {folder} are left"
        raise CalibrationError(said, remedy=say("restore them, or ", ANEW), path=path, images=len(left))
    listed = calibration_set.digest_of((digest, None) for digest in digests.values())
    return calibration_set.of_files(_source(len(left), len(digests)), left, batch, listed)


def _listed(plain: Any, folder: Path) -> dict[str, str]:
    """Names and digests of a list. The first 0.1.0 listed names alone: its pictures are taken as they are."""
    if isinstance(plain, list):
        return {str(name): _digest_there(folder / str(name)) for name in plain if is_picture(str(name))}
    return {str(name): str(digest) for name, digest in plain.items()}


def _source(left: int, listed: int) -> str:
    if left == listed:
        return SOURCE
    log.warning("%d of the %d frozen calibration images are missing, damaged or unreadable", listed - left, listed)
    return f"{SOURCE}, {left} of {listed} frozen images"


def _digest_there(path: Path) -> str:
    """Empty where the picture cannot be read, or is gone."""
    try:
        return _digest(path)
    except OSError:
        return ""


def _digest(path: Path) -> str:
    return hashlib.sha256(state_file.read(path)).hexdigest()


def wanted_set(settings: CalibrationSettings, state_dir: Path, batch: int | None) -> CalibrationSet | None:
    """The images that the settings name, or those of the cameras once they are frozen; None where there are neither.

    ``[calibration] cameras`` says whether any are collected; what is frozen stays of use until it is deleted.

    Raises:
        CalibrationError: the source cannot be used, or is too small.
    """
    least = batch or 1
    if settings.data is not None:
        return CalibrationSet.collect(settings.data, fraction=settings.fraction, most=settings.max_images, batch=least)
    return frozen(state_dir / FOLDER, least)
