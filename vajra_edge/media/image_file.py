"""Image file: one picture of the desk from disk, upright, with what is wrong with it said.

val, predict and calibration read pictures here, so that they agree on what is a picture, and on how large one may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.media import jpeg
from vajra_edge.media.faults import ImageFault, UnusableFile
from vajra_edge.media.image_header import TURNED, ImageKind, header_of, kind_of, orientation_of
from vajra_edge.media.jpeg_markers import END
from vajra_edge.media.limits import MAX_FILE_BYTES, MAX_PICTURE_PX, MAX_SCANS

TILES = "cut it into tiles of a few thousand pixels, or shrink it"
_BLANK_BYTES = 64
_HEAD_BYTES = 1 << 16
"""Almost every header is shorter; of others the decoded image tells the size."""


class UnusableImage(UnusableFile):
    """A picture that cannot be used."""


@dataclass(frozen=True)
class ImageFile:
    """A decoded picture.

    Attributes:
        path: of the file.
        image: (height, width, 3) uint8, BGR, turned upright by its EXIF orientation.
        is_cut: the end of the file is missing; that part of the image is grey.
    """

    path: Path
    image: NDArray[np.uint8]
    is_cut: bool

    def whole(self) -> NDArray[np.uint8]:
        """The image.

        Raises:
            UnusableImage: its end is missing.
        """
        if self.is_cut:
            raise cut_short(self.path)
        return self.image


def cut_short(path: Path) -> UnusableImage:
    """What is said of a picture whose end is missing."""
    what = "the end of the file is missing, part of the picture is grey"
    return UnusableImage(path, ImageFault.PICTURE_CUT_SHORT, what, "copy or download it again")


def read(path: Path) -> ImageFile:
    """Read and decode one picture.

    Raises:
        UnusableImage: it is no picture that OpenCV can decode, or too large.
        OSError: the system refuses the file.
    """
    return decode(content_of(path), path)


def content_of(path: Path) -> bytes:
    """A picture file, still encoded.

    Raises:
        UnusableImage: it is too large.
        OSError: the system refuses the file.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UnusableImage(path, ImageFault.PICTURE_TOO_LARGE, f"more than {MAX_FILE_BYTES} bytes", TILES)
    return path.read_bytes()


def decode(content: bytes, path: Path) -> ImageFile:
    """``read`` for what is in memory; ``path`` is for messages. Of a kind that is not known the decoder decides."""
    if (header := header_of(content)) is not None:
        check_size(path, header.width_px, header.height_px)
    found = _structure(content)
    if found is not None and found.scans > MAX_SCANS:
        raise _undecodable(path, f"a JPEG of more than {MAX_SCANS} scans")
    is_cut = found is not None and bool(found.scans) and jpeg.is_cut(content, found)
    # OpenCV 5 refuses a JPEG in memory that has no end marker, earlier ones read it.
    image = jpeg.decoded(jpeg.mended(content) + END if found is not None and found.end is None else content)
    if image is None:
        raise _undecodable(path, "not an image that OpenCV can read" if content else "an empty file")
    check_size(path, image.shape[1], image.shape[0])
    is_cut = is_cut or (found is not None and jpeg.is_short(content, found, image)) or _is_blank_webp(content)
    return ImageFile(path, image, is_cut)


def is_cut(path: Path) -> bool:
    """Whether the end of a file is missing, as far as that shows without decoding it. False where it cannot be read."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
    except OSError:
        return False
    found = _structure(content)
    if found is None:
        return _is_blank_webp(content)
    return bool(found.scans) and jpeg.is_cut(content, found)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels as the decoded image has them, by the header; None where that does not tell.

    Raises:
        OSError: the system refuses the file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    header = header_of(head)
    if header is None or 0 in {header.width_px, header.height_px}:
        return None
    size = header.width_px, header.height_px
    return size[::-1] if orientation_of(head) in TURNED else size


def _structure(content: bytes) -> jpeg.Structure | None:
    """Of a JPEG; None of any other kind."""
    return jpeg.structure(content) if kind_of(content) is ImageKind.JPEG else None


def _undecodable(path: Path, what: str) -> UnusableImage:
    return UnusableImage(path, ImageFault.PICTURE_UNREADABLE, what, "remove or replace it")


def check_size(path: Path, width_px: int, height_px: int) -> None:
    """Refuse what no memory should be asked for.

    Raises:
        UnusableImage: more than ``MAX_PICTURE_PX`` pixels.
    """
    if width_px * height_px > MAX_PICTURE_PX:
        what = f"{width_px} x {height_px} pixels, the limit is {MAX_PICTURE_PX} (768 MiB decoded)"
        raise UnusableImage(path, ImageFault.PICTURE_TOO_LARGE, what, TILES)


def _is_blank_webp(content: bytes) -> bool:
    """Whether a WebP without further chunks ends in zeros, as after a power cut; other formats notice that."""
    plain = content[:4] == b"RIFF" and content[12:16] in {b"VP8 ", b"VP8L"}
    return plain and len(content) > _BLANK_BYTES and not content[-_BLANK_BYTES:].strip(b"\0")
