"""Image file: one picture of the desk from disk, upright, with what is wrong with it said.

val, predict and calibration read pictures here, so that they agree on what is a picture, and on how large one may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.datasets import image_header, jpeg
from vajra_edge.datasets.account import LeftOut
from vajra_edge.datasets.labels import TURNED
from vajra_edge.errors import DatasetError

MAX_PX = 1 << 28
"""268 million: the largest phone picture has 200. Decoded it takes 768 MiB, which a board of 4 GB can just give; the
network sees it shrunk to its input in any case, and what is small on a larger one is lost."""
MAX_BYTES = 1 << 30
"""More than ``MAX_PX`` take uncompressed."""
TILES = "cut it into tiles of a few thousand pixels, or shrink it"
_BLANK_BYTES = 64
_HEAD_BYTES = 1 << 16
"""Almost every header is shorter; of others the decoded image tells the size."""


class UnusableImage(DatasetError):
    """A picture that cannot be used.

    Attributes:
        path: of the file.
        reason: under which it is counted.
        what: is wrong with it.
    """

    def __init__(self, path: Path, reason: LeftOut, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}", remedy=remedy, path=path)
        self.path, self.reason, self.what = path, reason, what


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
    return UnusableImage(path, LeftOut.PICTURE_CUT_SHORT, what, "copy or download it again")


def read(path: Path) -> ImageFile:
    """Read and decode one picture.

    Raises:
        UnusableImage: it is no picture that OpenCV can decode, or too large.
        OSError: the system refuses the file.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UnusableImage(path, LeftOut.PICTURE_TOO_LARGE, f"more than {MAX_BYTES} bytes", TILES)
    return decode(path.read_bytes(), path)


def decode(content: bytes, path: Path) -> ImageFile:
    """``read`` for what is in memory; ``path`` is for messages."""
    found = jpeg.structure(content) if content.startswith(jpeg.START) else None
    stored_wh = image_header.size(content) if found is None else jpeg.size(content, found)
    if stored_wh is not None:
        check_size(path, *stored_wh)
    is_cut = found is not None and found.has_scan and jpeg.is_cut(content, found)
    # OpenCV 5 refuses a JPEG in memory that has no end marker, earlier ones read it.
    image = jpeg.decoded(jpeg.mended(content) + jpeg.END if found is not None and found.end is None else content)
    if image is None:
        what = "not an image that OpenCV can read" if content else "an empty file"
        raise UnusableImage(path, LeftOut.PICTURE_UNREADABLE, what, "remove or replace it")
    check_size(path, image.shape[1], image.shape[0])
    is_cut = is_cut or (found is not None and jpeg.is_short(content, found, image)) or _is_blank_webp(content)
    return ImageFile(path, image, is_cut)


def is_cut(path: Path) -> bool:
    """Whether the end of a file is missing, as far as that shows without decoding it. False where it cannot be read."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    except OSError:
        return False
    if not content.startswith(jpeg.START):
        return _is_blank_webp(content)
    found = jpeg.structure(content)
    return found.has_scan and jpeg.is_cut(content, found)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels as the decoded image has them, by the header; None where that does not tell.

    Raises:
        OSError: the system refuses the file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    found = jpeg.size(head, jpeg.structure(head)) if head.startswith(jpeg.START) else image_header.size(head)
    if found is None or 0 in found:
        return None
    return (found[1], found[0]) if image_header.orientation(head) in TURNED else found


def check_size(path: Path, width_px: int, height_px: int) -> None:
    """Refuse what no memory should be asked for.

    Raises:
        UnusableImage: more than ``MAX_PX`` pixels.
    """
    if width_px * height_px > MAX_PX:
        what = f"{width_px} x {height_px} pixels, the limit is {MAX_PX} (768 MiB decoded)"
        raise UnusableImage(path, LeftOut.PICTURE_TOO_LARGE, what, TILES)


def _is_blank_webp(content: bytes) -> bool:
    """Whether a WebP without further chunks ends in zeros, as after a power cut; other formats notice that."""
    plain = content[:4] == b"RIFF" and content[12:16] in {b"VP8 ", b"VP8L"}
    return plain and len(content) > _BLANK_BYTES and not content[-_BLANK_BYTES:].strip(b"\0")
