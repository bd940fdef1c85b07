"""Dataset: a data.yaml, a COCO json, a folder, a list or a video as one iterable of pictures.

The paths of a data.yaml are relative to its ``path``, and that is relative to the yaml file. Nothing is downloaded.
Labels are read when they are asked for, all of them before the first picture.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vajra_edge.datasets import coco, data_yaml, labels, places, yolo
from vajra_edge.datasets.account import NAMED, Account, LeftOut, ReadAs
from vajra_edge.datasets.coco import CocoFile
from vajra_edge.datasets.labels import Drawn, Truth
from vajra_edge.datasets.places import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vajra_edge.errors import DatasetError
from vajra_edge.media import clip, image_file
from vajra_edge.media.faults import UnusableFile
from vajra_edge.media.image_header import TURNED, orientation_of

_LOGGER = logging.getLogger(__name__)
Image: TypeAlias = "NDArray[np.uint8]"
"""(height, width, 3), BGR."""
LeaveOut: TypeAlias = "Callable[[LeftOut, Path, int], None]"
"""Told why something of a file is left out, and how many pictures that costs as far as is known."""
_LONGEST = 300
"""Letters of a path in a message; one that is too long for the system may have thousands."""


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
        listed: its name in the COCO file that lists it; None where a YOLO text file may exist.
        annotations: that COCO file.
        drawn: its objects, once they have been read.
    """

    path: Path
    frame: int | None = None
    listed: str | None = None
    annotations: CocoFile | None = field(default=None, repr=False)
    drawn: Drawn | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """See ``Picture.name``."""
        return str(self.path) if self.frame is None else f"{self.path}#{self.frame}"


@dataclass(frozen=True)
class Dataset:
    """Pictures that are read one after the other, as often as it is iterated.

    Attributes:
        source: what the user named, for messages.
        entries: one a picture, in order.
        class_names: from data.yaml, COCO json or ``classes.txt``, else None.
        labelled: at least one picture has labels; the others of it are then empty scenes, as upstream has it.
        known: what data.yaml tells of the labels besides.
        folders: those that were searched for images.
        lost: what was left out already, by reason: images that a COCO file lists and that are not there, and those that
            are named twice.
    """

    source: Path
    entries: tuple[Entry, ...]
    class_names: tuple[str, ...] | None
    labelled: bool
    known: yolo.Known = yolo.NOTHING_KNOWN
    folders: tuple[Path, ...] = ()
    lost: tuple[tuple[LeftOut, str], ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Picture]:
        """Read, decode and label.

        Raises:
            DatasetError: an image, video or label file cannot be used; says which, and the line.
        """
        yield from self.with_labels(Account()).pictures()

    def pictures(self, account: Account | None = None) -> Iterator[Picture]:
        """Read and decode; with objects where ``with_labels`` has read them.

        Args:
            account: images that cannot be used are left out and counted there; None: each is an error.

        Raises:
            DatasetError: an image or video cannot be used, or labels state another size than their pictures have.
        """
        counted = account or Account()

        def leave_out(fault: LeftOut, path: Path, count: int) -> None:
            counted.add(fault, str(path), count)

        misfits: list[str] = []
        for entry, image in self.images(None if account is None else leave_out):
            drawn, size = entry.drawn, (image.shape[1], image.shape[0])
            if drawn is not None and not drawn.fits(size):
                drawn = _upright(entry.path, drawn, size, counted)
                if drawn is None:
                    misfits.append(_misfit(entry, size))
                    self._refuse(misfits, at_once=len(misfits) == NAMED)
                    continue
            yield Picture(entry.name, image, None if drawn is None else drawn.truth(size))
        self._refuse(misfits, at_once=True)

    def images(self, leave_out: LeaveOut | None = None) -> Iterator[tuple[Entry, Image]]:
        """Decode, without a look at labels.

        Args:
            leave_out: told of each image or clip that cannot be used, and of how many frames of a damaged clip; None:
                a file that cannot be used is an error.

        Raises:
            DatasetError: an image or video cannot be used; says which.
        """
        for path, group in groupby(self.entries, key=lambda entry: entry.path):
            wanted = list(group)
            try:
                if wanted[0].frame is not None:
                    yield from _of_clip(path, wanted, leave_out)
                else:
                    yield from _of_image(path, wanted)
            except UnusableFile as error:
                if leave_out is None:
                    raise
                leave_out(LeftOut.of(error.fault), path, 1)

    def with_labels(self, account: Account, classes: int | None = None) -> Dataset:
        """The same with the objects of every picture, as drawn.

        Args:
            account: what cannot be used, or is read otherwise, is counted there.
            classes: of the network; the bound of class ids where the dataset has no names.

        Raises:
            DatasetError: a label or annotation is wrong; says file and line or entry.
        """
        if not self.labelled:
            return self
        for reason, name in self.lost:
            account.add(reason, name)
        pictures = self._without_clips(account)
        with _reported(self.source):
            orphans = [path for folder in self.folders for path in places.labels_without_pictures(folder, self._images)]
            paths = [self._label_file(entry) for entry in pictures]
        self._refuse_shared(pictures, paths)
        for path in orphans:
            account.add(LeftOut.LABELS_WITHOUT_PICTURE, str(path))
        bounds = [len(self.class_names)] if self.class_names else [n for n in (self.known.classes, classes) if n]
        drawn = yolo.read(paths, replace(self.known, classes=min(bounds, default=None)), account)
        files = {id(entry.annotations): entry.annotations for entry in pictures if entry.annotations is not None}
        objects = {key: file.objects(account) for key, file in files.items()}
        entries = tuple(
            replace(entry, drawn=text if entry.listed is None else objects[id(entry.annotations)][entry.listed])
            for entry, text in zip(pictures, drawn, strict=True)
        )
        self._refuse(list(islice(_misfits(entries), NAMED)), at_once=True)
        return replace(self, entries=entries)

    def _without_clips(self, account: Account) -> list[Entry]:
        """Pictures alone: a frame of a clip has no labels, and is no empty scene for that."""
        with _reported(self.source):
            clips = {path for folder in self.folders for path in places.clips_below(folder)}
        for path in sorted(clips.union(entry.path for entry in self.entries if entry.frame is not None)):
            account.add(LeftOut.CLIP_WITHOUT_LABELS, str(path))
        return [entry for entry in self.entries if entry.frame is None]

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

    def whole(self) -> Dataset:
        """Without the images whose end is missing; each is named in a warning.

        Raises:
            DatasetError: none is left.
        """
        cut = {entry.path for entry in self.entries if entry.frame is None and image_file.is_cut(entry.path)}
        for path in sorted(cut):
            _LOGGER.warning("%s; left out", image_file.cut_short(path).message)
        left = tuple(entry for entry in self.entries if entry.path not in cut)
        if not left:
            raise DatasetError(f"{self.source}: the end of every picture is missing", remedy="copy them again")
        return replace(self, entries=left)

    def without_labels(self) -> DatasetError:
        """Why nothing can be scored, and where labels were looked for."""
        first = next((entry.path for entry in self.entries if entry.frame is None), None)
        if first is None:
            return DatasetError(f"{self.source}: no labels", remedy="val needs images with labels; a video has none")
        wanted = labels.yolo_path(first)
        with _reported(self.source):
            near = [
                path for folder in (wanted.parent, first.parent, self.source.parent) for path in _annotations(folder)
            ]
        remedy = f"of {first.name} they would be {wanted}; or give a COCO json"
        if near and near[0].suffix == ".xml":
            remedy = f"{near[0]} looks like Pascal VOC or CVAT: {coco.CONVERT}"
        elif near:
            remedy = f"give {near[0]}, if that is a COCO json"
        return DatasetError(f"{self.source}: no labels", remedy=remedy)

    @property
    def _images(self) -> list[Path]:
        return [entry.path for entry in self.entries if entry.frame is None]

    def _label_file(self, entry: Entry) -> Path | None:
        path = labels.yolo_path(entry.path)
        return path if entry.frame is None and entry.listed is None and path.is_file() else None

    def _refuse_shared(self, pictures: Sequence[Entry], paths: Sequence[Path | None]) -> None:
        """Refuse labels of which there is no telling whose they are: ``a.jpg`` and ``a.png`` would share ``a.txt``."""
        owners: dict[Path, Path] = {}
        for entry, path in zip(pictures, paths, strict=True):
            if path is not None and owners.setdefault(path, entry.path) != entry.path:
                raise DatasetError(
                    f"{self.source}: {owners[path].name} and {entry.path.name} share the labels {path}",
                    remedy="remove or rename the one that was not labelled",
                )

    def _refuse(self, misfits: list[str], *, at_once: bool) -> None:
        if misfits and at_once:
            raise DatasetError(
                f"{self.source}: labels were drawn on pictures of another size: {', '.join(misfits)}",
                remedy="take the pictures that were labelled, or scale the boxes and mend width and height",
            )


def _of_image(path: Path, wanted: Iterable[Entry]) -> Iterator[tuple[Entry, Image]]:
    with _reported(path):
        image = image_file.read(path).whole()
    yield from ((entry, image) for entry in wanted)


def _of_clip(path: Path, wanted: Iterable[Entry], leave_out: LeaveOut | None) -> Iterator[tuple[Entry, Image]]:
    """Frames in rising order, up to where the clip can be read."""
    left = {entry.frame: entry for entry in wanted if entry.frame is not None}
    frames = clip.ClipFrames(path, sorted(left))
    for number, image in frames:
        yield left.pop(number), image
    if left and frames.damaged and leave_out is not None:
        leave_out(LeftOut.FRAME_UNREADABLE, path, len(left))


def _upright(path: Path, drawn: Drawn, size: tuple[int, int], account: Account) -> Drawn | None:
    """The boxes on the upright picture, where EXIF alone is why their size is another; else None."""
    turned_by = orientation_of(path.read_bytes())
    if drawn.stated_wh != (size[1], size[0]) or turned_by not in TURNED or not drawn.is_turnable:
        return None
    if drawn.is_upright():
        account.add(ReadAs.UPRIGHT, str(path))
        return drawn
    account.add(ReadAs.TURNED, str(path))
    return drawn.turned(turned_by)


def _misfits(entries: Iterable[Entry]) -> Iterator[str]:
    """Pictures whose headers alone show that they are not those that were labelled, before anything is run."""
    for entry in entries:
        if entry.drawn is None or entry.drawn.stated_wh is None or not len(entry.drawn):
            continue
        with _reported(entry.path):
            size = image_file.upright_size(entry.path)
        turned = size is not None and entry.drawn.stated_wh == (size[1], size[0])
        if size is not None and not turned and not entry.drawn.fits(size):
            yield _misfit(entry, size)


def _misfit(entry: Entry, size: tuple[int, int]) -> str:
    width, height = entry.drawn.stated_wh or (0, 0) if entry.drawn is not None else (0, 0)
    why = ": exchanged, as by a program that passes over EXIF" if (height, width) == size and height != width else ""
    return f"{entry.path.name} ({width} x {height} in the labels, {size[0]} x {size[1]} in the file{why})"


def _annotations(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix in {".json", ".xml"} and not places.is_companion(path)
    )


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
            return _gathered(source, data_yaml.read(source, split))
        return _gathered(source, data_yaml.DataYaml(source.parent, (source,), None))


@contextmanager
def _reported(source: Path) -> Iterator[None]:
    """Turn an OSError of the body into our error.

    To ask what a path is (``is_dir``) raises too: of a pulled disk (EIO), of a dead share (ESTALE, EHOSTDOWN), and of
    what lies in a folder that may not be entered (EACCES).
    """
    try:
        yield
    except OSError as error:
        where = f" ({str(error.filename)[:_LONGEST]})" if error.filename and str(error.filename) != str(source) else ""
        raise DatasetError(
            f"{source}: {error.strerror or error}{where}",
            remedy="let this user read it (a service's ProtectHome hides /home), and check that disk or share",
            path=source,
            errno=error.errno,
        ) from error


def _gathered(source: Path, named: data_yaml.DataYaml) -> Dataset:
    entries: list[Entry] = []
    lost: list[tuple[LeftOut, str]] = []
    class_names = named.class_names
    for place in named.places:
        if place.suffix.lower() == ".json" and place.is_file():
            annotations = coco.read(place, class_names)
            class_names = annotations.class_names
            found, absent = _of_coco(annotations, named.root)
            entries += found
            lost += ((LeftOut.PICTURE_MISSING, name) for name in absent)
        else:
            found, unreadable = _with_frames(_of_place(source, place, named.root), alone=len(named.places) == 1)
            entries += found
            lost += unreadable
    if not entries:
        raise DatasetError(f"{source}: no pictures in it", remedy=f"known are {' '.join(sorted(IMAGE_SUFFIXES))}")
    once = _once(source, entries)
    labelled = next((labels.yolo_path(entry.path) for entry in once if _has_label(entry)), None)
    if class_names is None and labelled is not None:
        names = places.class_list(labelled)
        class_names = names if named.classes in {None, len(names)} else None
    kept = set(map(id, once))
    lost += ((LeftOut.PICTURE_TWICE, str(entry.path)) for entry in entries if id(entry) not in kept)
    return Dataset(
        source,
        tuple(once),
        class_names or None,
        labelled is not None or any(entry.listed is not None for entry in once),
        yolo.Known(named.classes, named.keypoints),
        tuple(place for place in named.places if place.is_dir()),
        tuple(lost),
    )


def _once(source: Path, entries: Iterable[Entry]) -> list[Entry]:
    """Each picture once, though lists or folders overlap.

    Raises:
        DatasetError: two files of annotations, or one and a folder, have objects of it.
    """
    found: dict[tuple[str, int | None], Entry] = {}
    for entry in entries:
        first = found.setdefault((os.path.abspath(entry.path), entry.frame), entry)  # noqa: PTH100  links stay
        if first is not entry and (first.listed, entry.listed) != (None, None):
            files = {one.annotations.path.name if one.annotations else "a folder or list" for one in (first, entry)}
            raise DatasetError(
                f"{source}: {entry.path.name} is there twice, by {' and '.join(sorted(files))}",
                remedy="name each picture once, with all its objects",
            )
    return list(found.values())


def _has_label(entry: Entry) -> bool:
    return entry.frame is None and labels.yolo_path(entry.path).is_file()


def _of_place(source: Path, place: Path, root: Path) -> list[Entry]:
    suffix = place.suffix.lower()
    if place.is_dir():
        return [Entry(path) for path in places.images_below(place)]
    if not place.is_file():
        if matching := places.images_of(str(place), (Path(),)):
            return [Entry(path) for path in matching]
        remedy = places.elsewhere(str(place), source.parent) or "paths are relative to the file that names them"
        raise DatasetError(f"{source}: {place} does not exist", remedy=remedy)
    if suffix == ".txt":
        return [Entry(path) for path in places.listed(place, root)]
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return [Entry(place)]
    if suffix == ".xml":
        raise DatasetError(f"{source}: {place.name} looks like Pascal VOC or CVAT", remedy=coco.CONVERT)
    raise DatasetError(
        f"{place}: unknown kind {suffix!r}", remedy="give images, a video, a .txt list or a .json of COCO"
    )


def _with_frames(found: Sequence[Entry], *, alone: bool) -> tuple[list[Entry], list[tuple[LeftOut, str]]]:
    """One entry for each frame of the clips among the entries, and the clips that are left out.

    Args:
        found: of one place.
        alone: the dataset has no other; a clip that is all there is must not be left out.

    Raises:
        UnusableClip: it is all there is.
    """
    entries: list[Entry] = []
    lost: list[tuple[LeftOut, str]] = []
    for entry in found:
        if entry.path.suffix.lower() not in VIDEO_SUFFIXES:
            entries.append(entry)
            continue
        try:
            entries += (Entry(entry.path, frame) for frame in range(clip.count(entry.path)))
        except UnusableFile as error:
            if alone and len(found) == 1:
                raise
            _LOGGER.warning("%s; left out", error)
            lost.append((LeftOut.of(error.fault), str(entry.path)))
    return entries, lost


def _of_coco(annotations: CocoFile, root: Path) -> tuple[list[Entry], list[str]]:
    """The images of a COCO file, looked for where its users keep them: beside it, or in a folder named like it.

    Returns:
        Those that are there, and the names of those that are not.

    Raises:
        DatasetError: none is there, or two are one file.
    """
    place = annotations.path
    beside, name = place.parent, place.stem.removeprefix("instances_")
    folders = (
        beside,
        root,
        root / "images",
        beside.parent,
        *(base / "images" / name for base in (root, beside.parent)),
    )
    folders += (root / name, beside.parent / name, beside.parent / "images")
    entries: dict[Path, Entry] = {}
    missing: list[str] = []
    for image, path in zip(annotations.images, coco.found_files(annotations.images, folders), strict=True):
        if path is None:
            missing.append(image.file_name)
            continue
        if path in entries:
            told = f"{place}: both {entries[path].listed} and {image.file_name} would be {path}"
            raise DatasetError(told, remedy="keep the folders that the file names")
        entries[path] = Entry(path, listed=image.file_name, annotations=annotations)
    if missing and not entries:
        raise DatasetError(
            f"{place}: its image {missing[0]!r} is not found", remedy=f"put the images into {root / 'images'}"
        )
    return list(entries.values()), missing
