"""Folder: the images of a folder, in the order of their names, as a finite source."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.capture.sources.base import RawFrame, check_image, check_size
from vajra_edge.capture.sources.opencv import load_cv2
from vajra_edge.capture.url import shown
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.image_header import header_of

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
DEFAULT_FPS = 10.0
MAX_FILE_BYTES = 512 * 1024 * 1024  # more than ``MAX_IMAGE_PX`` take without compression


def images_at(source: str) -> tuple[Path, ...] | None:
    """The images that a source text stands for: a folder's, or the one it names; None where it names something else.

    Raises:
        SourceError: a folder without images, or one that cannot be listed.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return (path,) if path.suffix.lower() in SUFFIXES and path.is_file() else None
    try:
        images = tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file()))
    except OSError as error:
        raise SourceError(
            f"folder {path} cannot be listed: {error.strerror}", remedy="check its owner and mode"
        ) from error
    if not images:
        raise SourceError(
            f"folder {path} holds no image", remedy=f"put files there that end in {', '.join(sorted(SUFFIXES))}"
        )
    return images


class ImageFolder:
    """Images at ``camera.fps`` frames a second, once or over and over.

    One that cannot be decoded is counted and left out; the first is named in a warning.
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
            except SourceError as error:
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

    def _skip(self, error: SourceError) -> None:
        self.decode_errors += 1
        if self.decode_errors == 1:
            log.warning("%s; skipped, further ones are only counted", error)


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image, turned upright by its EXIF orientation.

    Raises:
        SourceError: it cannot be read or decoded, or its header claims more than ``MAX_IMAGE_PX`` pixels.
    """
    cv2 = load_cv2()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SourceError(f"image {path} has more than {MAX_FILE_BYTES} bytes", remedy="replace it", path=path)
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"image {path} cannot be read: {error.strerror}", remedy="replace it", path=path) from error
    header = header_of(content)
    if header is None:
        raise SourceError(f"image {path} cannot be decoded", remedy="replace it", path=path)
    check_size(header.width_px, header.height_px, f"image {path}")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"image {path} cannot be decoded: {error.err}", remedy="replace it", path=path) from error
    if image is None:
        raise SourceError(f"image {path} cannot be decoded", remedy="replace it", path=path)
    return check_image(image, str(path))
