"""Calibration set: the images that INT8 ranges come from, as a frozen list with a digest, in two parts.

A set that is shorter than promised or holds a file that cannot be read is an error: an INT8 engine from images that
nobody chose is worse than none.

Some are held out, so that the accuracy check judges a plan on images that it was not fitted to.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.datasets import dataset
from vajra_edge.datasets.dataset import Dataset, Entry
from vajra_edge.errors import CalibrationError, DatasetError
from vajra_edge.geometry.preparation import HOST, Preparation
from vajra_edge.wording import Setting, say

_log = logging.getLogger(__name__)

RECOMMENDED_IMAGES = 500
"""NVIDIA's guideline for INT8 calibration, quoted by upstream's documentation."""


class Inputs(Protocol):
    """The images of a calibration set, ready for a network; iterated once a pass."""

    @property
    def digest(self) -> str:
        """Digest of the images, their order, and what prepares them where that is not the host."""
        ...

    def __len__(self) -> int: ...

    def inputs(self, input_hw: tuple[int, int]) -> Iterable[NDArray[np.float32]]:
        """(1, 3, H, W) float32, RGB, 0..1, letterboxed, one after the other."""
        ...


@dataclass(frozen=True)
class CalibrationSet:
    """Images in a fixed order.

    Attributes:
        source: where they come from, for messages and the manifest.
        pictures: the images; read anew at each pass.
        listed: digest of the list that was frozen, of which ``pictures`` are what is left; None: they are no such set,
            or a part of one.
        preparation: what brings them to the network's input.
    """

    source: str
    pictures: Dataset
    listed: str | None = None
    preparation: Preparation = HOST

    @classmethod
    def collect(cls, source: Path, *, fraction: float = 1.0, most: int | None = None, batch: int = 1) -> CalibrationSet:
        """Take a share of a data.yaml's val split, of an image folder, or of a video.

        Args:
            source: what ``dataset.open_dataset`` takes.
            fraction: share of the images, above 0 up to 1, spread evenly.
            most: upper limit of the count.
            batch: of the engine to build; fewer images than that cannot fill one call.

        Images whose end is missing are left out with a warning; labels are not looked at.

        Raises:
            CalibrationError: the source cannot be used, or has fewer images than ``batch``.
        """
        try:
            pictures = dataset.open_dataset(source).sample(fraction, most).whole()
        except DatasetError as error:
            raise CalibrationError(say("calibration images: ", error.message), remedy=error.remedy) from error
        return checked(cls(str(source), pictures), batch)

    def __len__(self) -> int:
        return len(self.pictures)

    @cached_property
    def digest(self) -> str:
        """Names the set in a fingerprint; see ``digest_of``.

        Of a frozen list it is the list's own, whatever is left: a rotten picture is no reason to build anew for an
        hour. Parts of a set (``some``, a holdout) have that of their content, which ranges are kept under.

        What a kernel prepares is another set to whoever keeps what was measured on it: tables of the one are never
        taken for the other.

        Raises:
            CalibrationError: a file cannot be read.
        """
        content, way = self._content(), self.preparation.way
        return hashlib.sha256(f"{content} {way}".encode()).hexdigest() if way else content

    def _content(self) -> str:
        if self.listed is not None:
            return self.listed
        files: dict[Path, str] = {}
        for entry in self.pictures.entries:
            if entry.path not in files:
                files[entry.path] = _file_digest(entry.path)
        return digest_of((files[entry.path], entry.frame) for entry in self.pictures.entries)

    def inputs(self, input_hw: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
        """Each image as the network gets it in service: (1, 3, H, W) float32 RGB 0..1 by the same preparation.

        Raises:
            CalibrationError: an image cannot be read; says which.
            CudaRefused: the GPU that prepares them refuses, mostly for want of memory.
        """
        prepares, done = self.preparation.for_input(input_hw), 0
        try:
            for _, picture in self.pictures.images():
                image = np.empty((1, 3, *input_hw), np.float32)
                prepares.apply(picture, image[0])
                yield image
                done += 1
        except DatasetError as error:
            raise CalibrationError(
                say(f"calibration image {done + 1} of {len(self)}: ", error.message),
                remedy=error.remedy,
                done=done,
            ) from error

    def some(self, count: int) -> CalibrationSet:
        """A few of the images, spread evenly."""
        return replace(self, pictures=self.pictures.sample(most=count), listed=None)


def digest_of(contents: Iterable[tuple[str, int | None]]) -> str:
    """SHA-256 over the digest of every file and the number of every video frame, in order."""
    total = hashlib.sha256()
    for digest, frame in contents:
        total.update(f"{digest} {frame}\n".encode())
    return total.hexdigest()


def checked(images: CalibrationSet, batch: int) -> CalibrationSet:
    """The same set, if it is large enough; warns below ``RECOMMENDED_IMAGES``.

    Raises:
        CalibrationError: fewer than ``batch``.
    """
    count = len(images)
    if count < max(batch, 1):
        raise CalibrationError(
            f"{images.source} gives {count} calibration images, fewer than the batch of {batch}",
            remedy=say("add images, raise ", Setting.FRACTION, ", or lower ", Setting.BATCH),
            images=count,
            batch=batch,
        )
    if count < RECOMMENDED_IMAGES:
        _log.warning("%d calibration images from %s; %d are recommended", count, images.source, RECOMMENDED_IMAGES)
    return images


def of_files(source: str, paths: tuple[Path, ...], batch: int = 1, listed: str | None = None) -> CalibrationSet:
    """A set of image files in the given order; what the device's own cameras collected is one.

    Args:
        source: see ``CalibrationSet``.
        paths: of the images that are there.
        batch: of the engine to build.
        listed: see ``CalibrationSet``.

    Raises:
        CalibrationError: fewer than ``batch``.
    """
    entries = tuple(Entry(path) for path in paths)
    return checked(CalibrationSet(source, Dataset(Path(source), entries, None, labelled=False), listed), batch)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            total = hashlib.sha256()
            while block := file.read(1 << 20):
                total.update(block)
            return total.hexdigest()
    except OSError as error:
        raise CalibrationError(
            f"calibration image {path}: {error.strerror or error}", remedy="remove or restore it", path=path
        ) from error


LEAST_BOXES = 20
"""Fewer are no verdict but chance: one box more or less would be 5 % of recall."""

ONE_IN = 8
FEWEST = 4
MOST = 64
"""One image in eight is held out; of a small set a few more, for the accuracy check wants 20 boxes, and never more
than half of it. Sixty-four street scenes show some six hundred boxes: one of them is then 0.2 % of recall."""


@dataclass(frozen=True)
class Holdout:
    """Both parts, spread evenly over the set.

    Attributes:
        fitted: ranges and the choice of layers come from these.
        judged: the accuracy check looks at these; None of a set of one image.
    """

    fitted: CalibrationSet
    judged: CalibrationSet | None

    @classmethod
    def of(cls, images: CalibrationSet) -> Holdout:
        """Split a set."""
        held = held_out(len(images))
        fitted = _part(images, set(range(len(images))) - held)
        return cls(fitted, _part(images, held) if held else None)


def held_out(total: int) -> set[int]:
    """Which of ``total`` images the accuracy check looks at, by their place in the set."""
    count = min(max(total // ONE_IN, FEWEST), total // 2, MOST)
    return {int(index) for index in np.linspace(0, total - 1, count).round()} if count else set()


def _part(images: CalibrationSet, indices: set[int]) -> CalibrationSet:
    """Known by its content alone: ranges are kept under the digest of the images that they were measured on."""
    entries = tuple(entry for index, entry in enumerate(images.pictures.entries) if index in indices)
    return CalibrationSet(images.source, replace(images.pictures, entries=entries))
