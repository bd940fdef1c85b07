"""Dataset: a data.yaml, a COCO json, a folder, a list or a video as one iterable of pictures.

The paths of a data.yaml are relative to its ``path``, and that is relative to the yaml file. Nothing is downloaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vajra_edge.datasets import data_yaml, labels
from vajra_edge.datasets.labels import Truth
from vajra_edge.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
MAX_LIST_BYTES = 256 << 20

ROOTS_OWN = "lost+found"
"""At the top of every ext4 disk; nobody else may read it, and nobody's pictures are in it."""


@dataclass(frozen=True)
class Picture:
    """One image of a dataset.

    Attributes:
        name: its path; of a video, the path, ``#`` and the frame's number.
        image: (height, width, 3) uint8, BGR.
        truth: its objects; None where the dataset has no labels.
    """

    name: str
    image: NDArray[np.uint8]
    truth: Truth | None


@dataclass(frozen=True)
class Entry:
    """Where one picture comes from.

    Attributes:
        path: of the image or video.
        frame: number in the video; None for an image.
        truth: from a COCO file; None where a YOLO text file may exist.
    """

    path: Path
    frame: int | None = None
    truth: Truth | None = None


@dataclass(frozen=True)
class Dataset:
    """Pictures that are read one after the other, as often as it is iterated.

    Attributes:
        source: what the user named, for messages.
        entries: one a picture, in order.
        class_names: from data.yaml or COCO json, else None.
        labelled: at least one picture has labels; the others of it are then empty scenes, as upstream has it.
    """

    source: Path
    entries: tuple[Entry, ...]
    class_names: tuple[str, ...] | None
    labelled: bool

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Picture]:
        """Read, decode and label.

        Raises:
            DatasetError: an image, video or label file cannot be used; says which, and the line.
        """
        for entry, image in _images(self.entries):
            name = str(entry.path) if entry.frame is None else f"{entry.path}#{entry.frame}"
            yield Picture(name, image, self._truth(entry, image))

    def sample(self, fraction: float = 1.0, most: int | None = None) -> Dataset:
        """A share of the pictures, spread evenly over all; at least one.

        Args:
            fraction: above 0, up to 1.
            most: upper limit of the count.
        """
        count = max(1, round(len(self) * fraction))
        count = min(count, most if most is not None else count)
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int) if count > 1 else [0]
        return replace(self, entries=tuple(self.entries[index] for index in chosen))

    def _truth(self, entry: Entry, image: NDArray[np.uint8]) -> Truth | None:
        if entry.truth is not None or not self.labelled:
            return entry.truth
        path = labels.yolo_path(entry.path)
        with _reported(path):
            if not path.is_file():
                return Truth.of([])
        classes = len(self.class_names) if self.class_names else None
        return labels.read_yolo(path, (image.shape[1], image.shape[0]), classes)


def open_dataset(source: Path, split: str = "val") -> Dataset:
    """Find the pictures; nothing but lists and names is read yet.

    Args:
        source: a data.yaml, a COCO json, a .txt list of images, a folder (with all below it), an image or a video.
        split: of a data.yaml: train, val or test.

    Raises:
        DatasetError: it does not exist, may not be read, holds no pictures, or the data.yaml is wrong; says file, key
            and line.
    """
    with _reported(source):
        if source.suffix.lower() in {".yaml", ".yml"}:
            found = data_yaml.read(source, split)
            return _gathered(source, found.places, found.root, found.class_names)
        return _gathered(source, [source], source.parent, None)


@contextmanager
def _reported(source: Path) -> Iterator[None]:
    """Turn an OSError of the body into our error.

    To ask what a path is (``is_dir``) raises too: of a pulled disk (EIO), of a dead share (ESTALE, EHOSTDOWN), and of
    what lies in a folder that may not be entered (EACCES).
    """
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(source) else ""
        raise DatasetError(
            f"{source}: {error.strerror or error}{where}",
            remedy="let this user read it (a service's ProtectHome hides /home), and check that disk or share",
            path=source,
            errno=error.errno,
        ) from error


def _gathered(source: Path, places: Iterable[Path], root: Path, class_names: tuple[str, ...] | None) -> Dataset:
    entries: list[Entry] = []
    for place in places:
        if place.suffix.lower() == ".json" and place.is_file():
            coco = labels.read_coco(place, class_names)
            class_names = coco.class_names
            entries += _of_coco(place, root, coco)
        else:
            entries += _of_place(source, place, root)
    if not entries:
        raise DatasetError(f"{source}: no pictures in it", remedy=f"known are {' '.join(sorted(IMAGE_SUFFIXES))}")
    labelled = any(entry.truth is not None or _has_label(entry) for entry in entries)
    return Dataset(source, tuple(entries), class_names, labelled)


def _has_label(entry: Entry) -> bool:
    return entry.frame is None and labels.yolo_path(entry.path).is_file()


def _of_place(source: Path, place: Path, root: Path) -> list[Entry]:
    suffix = place.suffix.lower()
    if place.is_dir():
        return [Entry(path) for path in _below(place) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not place.is_file():
        raise DatasetError(f"{source}: {place} does not exist", remedy="paths are relative to the file that names them")
    if suffix == ".txt":
        return [Entry(path) for path in _listed(place, root)]
    if suffix in VIDEO_SUFFIXES:
        return [Entry(place, frame) for frame in range(_frame_count(place))]
    if suffix in IMAGE_SUFFIXES:
        return [Entry(place)]
    raise DatasetError(
        f"{place}: unknown kind {suffix!r}", remedy="give images, a video, a .txt list or a .json of COCO"
    )


def _below(folder: Path) -> list[Path]:
    """All names below, sorted; one folder that may not be read is an error, or a set would become smaller unseen.

    Raises:
        OSError: a folder cannot be read, and it is neither the disk's own nor a private hidden one.
    """

    def refuse(error: OSError) -> None:
        if not _nobodys_pictures(Path(error.filename).relative_to(folder), error.errno):
            raise error

    return sorted(Path(root, name) for root, _, names in os.walk(folder, onerror=refuse) for name in names)


def _nobodys_pictures(below: Path, code: int | None) -> bool:
    """Whether a folder that gave ``code`` belongs to the disk or the desktop, as a trash or a search index does.

    Only what may not be read is passed over: a hidden folder on a disk that fails had been in the set until then.
    """
    private = code in {errno.EACCES, errno.EPERM} and any(part.startswith(".") for part in below.parts)
    return private or below.name == ROOTS_OWN


def _listed(place: Path, root: Path) -> Iterator[Path]:
    """The images of a list file, relative to it or to the dataset's root."""
    for number, line in enumerate(labels.read_text(place, MAX_LIST_BYTES).splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        found = next((path for path in (place.parent / name, root / name) if path.is_file()), None)
        if found is None:
            raise DatasetError(f"{place}:{number}: {name[:200]} does not exist", remedy="mend the list")
        yield found


def _of_coco(place: Path, root: Path, coco: labels.CocoFile) -> list[Entry]:
    """The images of a COCO file, looked for where its users keep them: beside it, or in a folder named like it."""
    beside, name = place.parent, place.stem.removeprefix("instances_")
    folders = (
        beside,
        root,
        root / "images",
        beside.parent,
        *(base / "images" / name for base in (root, beside.parent)),
    )
    folders += (root / name, beside.parent / name, beside.parent / "images")
    first = next(iter(coco.truths), None)
    if first is None:
        return []
    folder = next((folder for folder in folders if (folder / first).is_file()), None)
    if folder is None:
        raise DatasetError(
            f"{place}: its image {first!r} is not found", remedy=f"put the images into {root / 'images'}"
        )
    return [Entry(folder / file_name, truth=truth) for file_name, truth in coco.truths.items()]


def _frame_count(path: Path) -> int:
    video = _open_video(path)
    try:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        video.release()


def _open_video(path: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise DatasetError(f"{path}: OpenCV cannot open this video", remedy="convert it to mp4 with h264")
    return video


def _images(entries: Iterable[Entry]) -> Iterator[tuple[Entry, NDArray[np.uint8]]]:
    """Decode; the frames of one video in one run through it."""
    for path, group in groupby(entries, key=lambda entry: entry.path):
        wanted = list(group)
        if wanted[0].frame is not None:
            yield from _frames(path, wanted)
            continue
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DatasetError(f"{path}: not an image that OpenCV can read", remedy="remove or replace it")
        for entry in wanted:
            yield entry, np.asarray(image, np.uint8)


def _frames(path: Path, wanted: Iterable[Entry]) -> Iterator[tuple[Entry, NDArray[np.uint8]]]:
    """The wanted frames, in rising order. A container may promise more frames than it has: it ends there."""
    video = _open_video(path)
    try:
        position = 0
        for entry in wanted:
            while position < (entry.frame or 0) and video.grab():
                position += 1
            read, image = video.read()
            if not read:
                return
            position += 1
            yield entry, np.asarray(image, np.uint8)
    finally:
        video.release()
