"""Evidence: the frames on which the gate compares a plan with its reference, and where they come from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge import dataset
from vajra_edge.dataset import Dataset, Entry
from vajra_edge.engine import sampler
from vajra_edge.errors import DatasetError

FRAMES = 8
"""On a street scene some ten objects each; eight inferences of the reference cost a Jetson's CPU about two seconds."""

DEMO_CLIP = "clip.mp4"

_LOGGER = logging.getLogger(__name__)


class Images(Protocol):
    """(height, width, 3) uint8 BGR each; iterated as often as is wished."""

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


def frames_of(folder: Path | None, state_dir: Path | None = None) -> Frames:
    """Frames of ``folder`` (images, a video, a data.yaml), else of the device's cameras, of the demo's clip, or noise.

    Args:
        folder: named by whoever asks for the build.
        state_dir: where camera samples are kept, if any are.

    Raises:
        DatasetError: ``folder`` is given and holds no image.
    """
    if folder is not None:
        return _sampled(folder, folder.name)
    if state_dir is not None and len(recent := _recent(state_dir / sampler.FOLDER)) == FRAMES:
        return of_dataset(Dataset(state_dir, recent, None, labelled=False), "the device's cameras")
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
    return of_dataset(dataset.open_dataset(folder).sample(most=FRAMES), source)


def _recent(folder: Path) -> tuple[Entry, ...]:
    """The newest camera samples; their names begin with their number."""
    return tuple(Entry(path) for path in sorted(folder.glob("*.jpg"))[-FRAMES:])


@dataclass(frozen=True)
class _Decoded:
    """The images of a data set."""

    pictures: Dataset

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (picture.image for picture in self.pictures)
