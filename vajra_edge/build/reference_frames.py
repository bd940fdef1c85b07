"""Reference frames: those on which the accuracy check compares a plan with FP32, and where they come from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge import durable, state_file
from vajra_edge.datasets import dataset
from vajra_edge.datasets.dataset import Dataset
from vajra_edge.errors import DatasetError, StoreError
from vajra_edge.media.jpeg import decoded
from vajra_edge.quantization import camera_samples

FRAMES = 8
"""On a street scene some ten objects each; eight inferences of the reference cost a Jetson's CPU about two seconds."""

DEMO_CLIP = "clip.mp4"

_LOGGER = logging.getLogger(__name__)


class Images(Protocol):
    """(height, width, 3) uint8 BGR each; iterated as often as is asked."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.uint8]]: ...


@dataclass(frozen=True)
class Frames:
    """What the comparison runs on.

    Attributes:
        images: decoded one at a time, so that those after an early end cost nothing.
        source: where they come from, for people.
        real: photographs; on noise only finiteness and latency mean something.
    """

    images: Images
    source: str
    real: bool


def frames_of(folder: Path | None, state_dir: Path | None = None, *, cameras: bool = True) -> Frames:
    """Frames of ``folder`` (images, a video, a data.yaml), else of the device's cameras, of the demo's clip, or noise.

    Args:
        folder: named by whoever asks for the build.
        state_dir: where camera samples are kept, if any are.
        cameras: their samples may be looked at; those of a set that is frozen always may.

    Raises:
        DatasetError: ``folder`` is given and holds no image.
    """
    if folder is not None:
        return _sampled(folder, folder.name)
    if state_dir is not None and len(recent := _recent(state_dir / camera_samples.FOLDER, cameras=cameras)) == FRAMES:
        return Frames(recent, "the device's cameras", real=True)
    for item in resources.files("vajra_edge.demo").iterdir():
        if item.name == DEMO_CLIP:
            try:
                return _sampled(Path(str(item)), item.name)
            except DatasetError as error:
                _LOGGER.warning("the demo's clip cannot be read, plans are not judged: %s", error)
    noise = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), np.uint8)
    return Frames(tuple(noise), "noise", real=False)


def of_dataset(pictures: Dataset, source: str) -> Frames:
    """All of a data set's pictures."""
    return Frames(_Decoded(pictures), source, real=True)


def _sampled(folder: Path, source: str) -> Frames:
    return of_dataset(dataset.open_dataset(folder).sample(most=FRAMES).whole(), source)


def _recent(folder: Path, *, cameras: bool) -> _Encoded:
    """The newest camera samples; a damaged one, or a folder that cannot be read, must not stop a build."""
    kept: list[bytes] = []
    try:
        paths = _paths(folder) if cameras or camera_samples.is_frozen(folder) else []
    except StoreError as error:
        _LOGGER.warning("plans are not compared on the cameras' pictures: %s", error)
        paths = []
    for path in paths:
        content = _content(path)
        if decoded(content) is None:
            _LOGGER.warning("%s is damaged and left out of the comparison; it may be deleted", path)
        else:
            kept.append(content)
        if len(kept) == FRAMES:
            break
    return _Encoded(tuple(reversed(kept)))


def _paths(folder: Path) -> list[Path]:
    """From the newest to the oldest: their names begin with their number."""
    with durable.reported(folder, "read"):
        return sorted(folder.glob("*.jpg"), reverse=True)


def _content(path: Path) -> bytes:
    try:
        return state_file.read(path)
    except OSError:  # such as one that the daemon replaced by a newer one meanwhile
        return b""


@dataclass(frozen=True)
class _Encoded:
    """Camera samples in memory, as JPEG: the daemon goes on replacing the files while a build runs."""

    contents: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.contents)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (image for content in self.contents if (image := decoded(content)) is not None)


@dataclass(frozen=True)
class _Decoded:
    """The images of a data set."""

    pictures: Dataset

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (image for _, image in self.pictures.images())
