"""Sources: the images of whatever a user calls one, one after the other.

Files come in order and none is left out; of a camera the newest frame comes, and what passed meanwhile is gone.
"""

from __future__ import annotations

import glob
import logging
import queue
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vajra_edge.capture.camera import CameraChanged, Grabber, Mailboxes
from vajra_edge.capture.children import Children
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.capture.sources import clip, registry
from vajra_edge.capture.url import is_live, kind_of, shown
from vajra_edge.config.settings import CameraSettings
from vajra_edge.datasets import dataset
from vajra_edge.datasets.places import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_companion
from vajra_edge.errors import SourceError
from vajra_edge.media import image_file
from vajra_edge.media.bgr import in_own_bgr
from vajra_edge.media.image_file import UnusableImage
from vajra_edge.media.opencv import load_cv2
from vajra_edge.media.pixels import check_pixels
from vajra_edge.tasks import addresses, inline_image
from vajra_edge.tasks.addresses import Content
from vajra_edge.types import Frame

Source: TypeAlias = "str | Path | int | NDArray[np.uint8] | Sequence[Any]"
"""An image, folder, video, list file, pattern, address of one, or camera; a number is one; an array is BGR."""

CAMERA = "predict"
_LISTS = frozenset({".txt", ".yaml", ".yml"})
_WAIT_S, _STOP_S = 0.5, 5.0
_PLAIN = re.compile(r"^(?:[a-z]+://[\w.:\[\]-]+)?/[\w./-]*$")
"""A device, or an address without user and query, which the caller finds again in what is told of its images."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceImage:
    """One image and where it is from.

    Attributes:
        frame: the image.
        path: file, address (where it may hold a password, scheme and host alone), or ``image0`` and so on.
        number: of the frame in its video or camera; None for single images.
        at_s: its place on the source's time line.
        live: from a camera.
        is_cut: the end of its file is missing, so that part of it is grey.
    """

    frame: Frame
    path: str
    number: int | None = None
    at_s: float = 0.0
    live: bool = False
    is_cut: bool = False


@dataclass(frozen=True)
class Feed:
    """A part of a source that knows its length.

    Attributes:
        total: images in it; None where nobody knows.
        read: gives them.
        endless: a camera, which gives images until nobody wants any more.
    """

    total: int | None
    read: Callable[[], Iterator[SourceImage]]
    endless: bool = False


def feeds(source: Source) -> list[Feed]:
    """Find out what a source is; nothing but folders and lists is read yet.

    Raises:
        SourceError: it names nothing that can be a source, or a folder without images.
        DatasetError: a list names what is not there.
    """
    load_cv2()  # before FFmpeg is touched, which reads once how much it may say
    if isinstance(source, np.ndarray):
        return [_array(source, 0)]
    if isinstance(source, (list, tuple)):
        if not source:
            raise SourceError("the source is an empty list", remedy="name images, folders, videos or cameras")
        parts = [[_array(one, at)] if isinstance(one, np.ndarray) else _feeds(one) for at, one in enumerate(source)]
        return [feed for part in parts for feed in part]
    return _feeds(source, alone=True)


def _feeds(source: Source, *, alone: bool = False) -> list[Feed]:
    """One entry of a list of sources, or all there is."""
    if isinstance(source, (list, tuple)):
        return feeds(source)
    if isinstance(source, bool) or not isinstance(source, (str, Path, int, np.integer)):
        raise SourceError(f"a {type(source).__name__} is not a source", remedy="give a path, camera or BGR array")
    if (image := inline_image.of(source)) is not None:
        return [_array(image, 0)]
    text = f"/dev/video{source}" if str(source).isdigit() and not Path(str(source)).exists() else str(source)
    if is_live(text):
        kind_of(text)
        return [_address(text, alone=alone)]
    try:
        paths = _paths(Path(text).expanduser())
    except OSError as error:
        raise SourceError(
            f"source {text[:200]}: {error.strerror or error}", remedy="check the path and its rights"
        ) from error
    return [_file(path, alone=alone and len(paths) == 1) for path in paths]


def total_of(parts: Sequence[Feed]) -> int | None:
    """Images in all parts; None where one does not know."""
    totals = [part.total for part in parts if part.total is not None]
    return sum(totals) if len(totals) == len(parts) else None


def groups(parts: Sequence[Feed], most: int) -> Iterator[list[SourceImage]]:
    """Up to ``most`` images at a time; those of a camera one by one, so that none waits."""
    gathered: list[SourceImage] = []
    for part in parts:
        for shot in part.read():
            gathered.append(shot)
            if len(gathered) == most or shot.live:
                yield gathered
                gathered = []
    if gathered:
        yield gathered


def _paths(path: Path) -> list[Path]:
    """The images and videos that a path stands for."""
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in known and file.is_file())
        found = [file for file in found if not is_companion(file.relative_to(path))]
        remedy = f"put files there that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
    elif not path.exists() and glob.has_magic(str(path)):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207  may be absolute
        found = [file for file in found if file.suffix.lower() in known and not is_companion(file)]
        remedy = "quote the pattern, and check it"
    elif not path.is_file():
        kind_of(str(path))  # an address without its scheme, or with a slip of the hand in it
        raise SourceError(f"source {path} does not exist", remedy="check the path", path=path)
    elif path.suffix.lower() in _LISTS:
        entries = dataset.open_dataset(path).entries
        found, remedy = list(dict.fromkeys(entry.path for entry in entries)), ""
    else:
        return [path]
    if not found:
        raise SourceError(f"source {path} holds no image or video", remedy=remedy, path=path)
    return found


def _file(path: Path, *, alone: bool) -> Feed:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Feed(1, lambda: _image(path, str(path), alone=alone))
    if suffix in VIDEO_SUFFIXES:
        return Feed(_frames_told(path), lambda: _clip(path, str(path), alone=alone))
    raise SourceError(f"source {path} is neither an image nor a video that is known by {suffix!r}", remedy="convert it")


def _address(text: str, *, alone: bool) -> Feed:
    """A picture, a clip or a camera; of many addresses those that say what they are by their name are not asked."""
    camera, name = Feed(None, lambda: _camera(text), endless=True), addresses.shown_name(text)
    if not addresses.is_web(text):
        return camera
    content = (None if alone else addresses.named(text)) or addresses.asked(text)
    if content is Content.CAMERA:
        return camera
    read, total = (_image, 1) if content is Content.PICTURE else (_clip, None)
    return Feed(total, lambda: _fetched(text, content, lambda path: read(path, name, alone=True), alone=alone))


def _fetched(
    url: str, content: Content, read: Callable[[Path], Iterator[SourceImage]], *, alone: bool
) -> Iterator[SourceImage]:
    """What is at an address; among others, one that cannot be had is left out with a warning."""
    try:
        with addresses.fetched(url, content) as path:
            yield from read(path)
    except SourceError as error:
        if alone:
            raise
        _LOGGER.warning("%s; left out", error)


def _array(image: NDArray[np.uint8], number: int) -> Feed:
    name = f"image{number}"
    checked = check_pixels(image, name)
    if not checked.size:
        raise SourceError(f"{name} is empty: {checked.shape}", remedy="give an image with pixels")
    image_file.check_size(Path(name), checked.shape[1], checked.shape[0])
    return Feed(1, lambda: iter((SourceImage(_frame(checked, name), name),)))


def _image(path: Path, name: str, *, alone: bool) -> Iterator[SourceImage]:
    """The image; among others, one that cannot be read is left out with a warning.

    Of one whose end is missing there is a result, for what is there, and a warning.
    """
    try:
        read = image_file.read(path)
    except (OSError, UnusableImage) as error:
        if alone:
            raise _unreadable(name, error) from error
        _LOGGER.warning("%s; left out", _unreadable(name, error))
        return
    if read.is_cut:
        told = str(image_file.cut_short(path).message).replace(str(path), name)
        _LOGGER.warning("%s: only what is above it is predicted", told)
    yield SourceImage(_frame(read.image, name), name, is_cut=read.is_cut)


def _unreadable(name: str, error: OSError | UnusableImage) -> SourceError:
    if isinstance(error, UnusableImage):
        return SourceError(f"image {name} cannot be decoded: {error.what}", remedy=error.remedy)
    return SourceError(f"image {name} cannot be read: {error.strerror or error}", remedy="check its rights")


def _frames_told(path: Path) -> int | None:
    """How many frames a clip says it has; None where it says nothing. What is wrong with it is told as it is read."""
    try:
        return clip.frames_of(path)
    except SourceError:
        return None


def _clip(path: Path, name: str, *, alone: bool) -> Iterator[SourceImage]:
    """Every frame; among others, a video that cannot be read is left out, or ends where it is damaged."""
    count = 0
    try:
        for shot in _video(path, name):
            count += 1
            yield shot
    except SourceError as error:
        told = SourceError(str(error.message).replace(str(path), name), remedy=error.remedy)
        if alone and not count:
            raise told from error
        _LOGGER.warning("%s; %s", told, f"{count} frames of it were read" if count else "left out")


def _video(path: Path, name: str) -> Iterator[SourceImage]:
    """Every frame, however long inference takes."""
    opened = registry.make(CameraSettings(id=CAMERA, source=str(path.absolute()), realtime=False))
    try:
        opened.open()
        number = 0
        while (picture := opened.read()) is not None:
            yield SourceImage(_frame(picture.image, name, number), name, number, picture.position_s or 0.0)
            number += 1
    finally:
        opened.close()


def _camera(source: str) -> Iterator[SourceImage]:
    """The newest frames of a camera, over losses of it, until the caller stops.

    Raises:
        SourceError: it cannot be opened at all.
    """
    changes: queue.SimpleQueue[CameraChanged] = queue.SimpleQueue()
    mailboxes, name, number = Mailboxes(), shown(source), 0
    path = source if _PLAIN.match(source) else name
    children = Children()
    grabber = Grabber(CameraSettings(id=CAMERA, source=source), mailboxes, changes.put, lambda: None, children)
    grabber.start()
    try:
        while True:
            for frame in mailboxes.take(1, _WAIT_S):
                own = in_own_bgr(frame)  # the caller may keep it, and draw into it
                yield SourceImage(own, path, number, frame.captured_ns / 1e9, live=True)
                number += 1
            _heed(changes, name, opened=number > 0)
    finally:
        mailboxes.close()
        grabber.stop(_STOP_S)
        children.close()


def _heed(changes: queue.SimpleQueue[CameraChanged], name: str, *, opened: bool) -> None:
    while not changes.empty():
        change = changes.get()
        if change.phase is CameraPhase.BACKOFF and not opened:
            raise SourceError(f"{name}: {change.reason}", remedy="check the address")
        if change.phase is CameraPhase.BACKOFF:
            _LOGGER.warning("%s was lost: %s; trying again in %.0f s", name, change.reason, change.retry_in_s or 0.0)


def _frame(image: NDArray[np.uint8], name: str, number: int = 0) -> Frame:
    return Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), number, name)
