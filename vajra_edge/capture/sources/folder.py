"""Folder: the images of a folder, in the order of their names, as a finite source."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.url import shown
from vajra_edge.config.settings import CameraSettings
from vajra_edge.datasets.places import IMAGE_SUFFIXES, is_companion
from vajra_edge.errors import SourceError
from vajra_edge.media import image_file
from vajra_edge.media.faults import ImageFault
from vajra_edge.media.image_file import UnusableImage
from vajra_edge.media.image_header import ImageKind, header_of
from vajra_edge.media.pixels import check_image, check_size

log = logging.getLogger(__name__)

DEFAULT_FPS = 10.0
_UNKNOWN = f"not an image that is known: {', '.join(kind.value for kind in ImageKind)}"


def images_at(source: str) -> tuple[Path, ...] | None:
    """The images that a source text stands for: a folder's, or the one it names; None where it names something else.

    Raises:
        SourceError: a folder without images, or one that cannot be listed.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return (path,) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() else None
    try:
        known = (file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        images = tuple(sorted(file for file in known if not is_companion(file.relative_to(path)) and file.is_file()))
    except OSError as error:
        raise SourceError(
            f"folder {path} cannot be listed: {error.strerror}", remedy="check its owner and mode"
        ) from error
    if not images:
        raise SourceError(
            f"folder {path} holds no image", remedy=f"put files there that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return images


class ImageFolder:
    """Images at ``camera.fps`` frames a second, once or over and over.

    One that cannot be decoded, or whose end is missing, is counted and left out; the first of each kind is named in a
    warning. What desktops put beside pictures is passed over.
    """

    live = False

    def __init__(self, camera: CameraSettings, images: Sequence[Path]) -> None:
        self.decode_errors = 0
        self._name = shown(camera.source)
        self._images = images
        self._loop = camera.loop
        self._interval_s = 1.0 / (camera.fps or DEFAULT_FPS)
        self._next = 0
        self._given = 0
        self._given_before_loop = 0
        self._named: set[ImageFault | None] = set()

    def open(self) -> None:
        """Nothing is held open between two images."""

    def read(self) -> RawFrame | None:
        """The next image that can be decoded.

        Raises:
            SourceError: not one image of the folder can be decoded.
        """
        while True:
            if self._next == len(self._images) and not self._start_again():
                return None
            path = self._images[self._next]
            self._next += 1
            try:
                image = read_image(path)
            except (SourceError, UnusableImage) as error:
                self._skip(error)
                continue
            self._given += 1
            return RawFrame(image, (self._given - 1) * self._interval_s)

    def close(self) -> None:
        """Nothing is held open between two images."""

    def _start_again(self) -> bool:
        if self._given == self._given_before_loop:
            raise SourceError(
                f"not one of the {len(self._images)} images in {self._name} can be decoded", remedy="replace them"
            )
        if self._loop:
            self._next, self._given_before_loop = 0, self._given
        return self._loop

    def _skip(self, error: SourceError | UnusableImage) -> None:
        """Count it; the first of each kind is named."""
        self.decode_errors += 1
        kind = error.fault if isinstance(error, UnusableImage) else None
        if kind not in self._named:
            self._named.add(kind)
            log.warning("%s; skipped, further ones of the kind are only counted", error)


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image, whole, and turned upright by its EXIF orientation.

    Raises:
        UnusableImage: it cannot be decoded, or its end is missing.
        SourceError: it cannot be read, or its header claims more than ``MAX_IMAGE_PX`` pixels.
    """
    try:
        content = image_file.content_of(path)
    except OSError as error:
        raise SourceError(f"image {path} cannot be read: {error.strerror}", remedy="replace it", path=path) from error
    header = header_of(content)
    if header is None:  # of a kind whose size nobody knows before it is decoded
        raise UnusableImage(
            path, ImageFault.PICTURE_UNREADABLE, "an empty file" if not content else _UNKNOWN, "replace it"
        )
    check_size(header.width_px, header.height_px, f"image {path}")
    return check_image(image_file.decode(content, path).whole(), str(path))
