"""Image header: kind, size and EXIF orientation of an encoded picture, before any memory is taken for its pixels.

A PNG of 3 MB may hold 45,000 x 45,000 pixels, which a decoder takes 6 GB for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from vajra_edge.media import jpeg_markers
from vajra_edge.media.limits import MAX_TAGS


class ImageKind(Enum):
    """Formats whose header is understood here."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    TIFF = "tiff"
    JPEG_2000 = "jpeg 2000"


@dataclass(frozen=True)
class ImageHeader:
    """What an encoded image says of itself.

    Attributes:
        kind: its format.
        width_px, height_px: as stored, before any turning; 0 where the header says so.
    """

    kind: ImageKind
    width_px: int
    height_px: int


TURNED = range(5, 9)
"""EXIF orientations that exchange width and height."""


def kind_of(content: bytes) -> ImageKind | None:
    """The format that the first bytes are the mark of; None: none that is known."""
    kind = next((kind for magic, kind in _MAGICS.items() if content.startswith(magic)), None)
    return None if kind is ImageKind.WEBP and content[8:12] != b"WEBP" else kind  # AVI and WAV are RIFF too


def header_of(content: bytes) -> ImageHeader | None:
    """The header of an encoded image; None: of no known format, or cut off within its header.

    Args:
        content: the image from its first byte on.
    """
    kind = kind_of(content)
    try:
        size = None if kind is None else _READERS[kind](content)
    except (struct.error, IndexError, OverflowError):
        return None
    return None if kind is None or size is None else ImageHeader(kind, *size)


def orientation_of(content: bytes) -> int:
    """EXIF orientation of a JPEG, PNG, WebP or TIFF: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 ``TURNED``.

    Returns:
        1 where none is told.
    """
    try:
        value = _tags(_exif(content)).get(_ORIENTATION, 1)
    except (struct.error, IndexError, OverflowError):
        return 1
    return value if value in range(1, 9) else 1


_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_MAGICS: Mapping[bytes, ImageKind] = {
    jpeg_markers.START: ImageKind.JPEG,
    _PNG_MAGIC: ImageKind.PNG,
    b"RIFF": ImageKind.WEBP,
    b"BM": ImageKind.BMP,
    b"II*\0": ImageKind.TIFF,
    b"MM\0*": ImageKind.TIFF,
    b"II+\0": ImageKind.TIFF,
    b"MM\0+": ImageKind.TIFF,
    b"\0\0\0\x0cjP  ": ImageKind.JPEG_2000,
    b"\xff\x4f\xff\x51": ImageKind.JPEG_2000,
}
_WIDTH, _HEIGHT, _ORIENTATION = 0x0100, 0x0101, 0x0112
"""Tags of TIFF and EXIF."""
_NUMBERS: Mapping[int, str] = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Of TIFF and BigTIFF: byte, short, long, long8."""
_OS2_HEADER_BYTES = 12
_BOXES_BYTES = 4096  # within which a JPEG 2000 file has its header
_EXIF_BYTES = 1 << 16  # a segment of a JPEG is no longer


def _png(content: bytes) -> tuple[int, int] | None:
    return struct.unpack_from(">II", content, 16) if content[12:16] == b"IHDR" else None


def _webp(content: bytes) -> tuple[int, int] | None:
    chunk = content[12:16]
    if chunk == b"VP8X":
        canvas = content[24:30]
        return (1 + int.from_bytes(canvas[:3], "little"), 1 + int.from_bytes(canvas[3:], "little")) if canvas else None
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width_px, height_px = struct.unpack_from("<HH", content, 26)
        return width_px & 0x3FFF, height_px & 0x3FFF
    return None


def _bmp(content: bytes) -> tuple[int, int] | None:
    if struct.unpack_from("<I", content, 14)[0] == _OS2_HEADER_BYTES:
        return struct.unpack_from("<HH", content, 18)
    width_px, height_px = struct.unpack_from("<ii", content, 18)
    return abs(width_px), abs(height_px)


def _tiff(content: bytes) -> tuple[int, int] | None:
    """Of the first image in it, which is the one that is read."""
    tags = _tags(content)
    return (tags[_WIDTH], tags[_HEIGHT]) if {_WIDTH, _HEIGHT} <= tags.keys() else None


def _jpeg_2000(content: bytes) -> tuple[int, int] | None:
    box = content.find(b"ihdr", 0, _BOXES_BYTES)
    if box >= 0:
        height_px, width_px = struct.unpack_from(">II", content, box + 4)
        return width_px, height_px
    right, bottom, left, top = struct.unpack_from(">IIII", content, 8)  # of a bare codestream
    return max(right - left, 0), max(bottom - top, 0)


_READERS: Mapping[ImageKind, Callable[[bytes], tuple[int, int] | None]] = {
    ImageKind.JPEG: jpeg_markers.size,
    ImageKind.PNG: _png,
    ImageKind.WEBP: _webp,
    ImageKind.BMP: _bmp,
    ImageKind.TIFF: _tiff,
    ImageKind.JPEG_2000: _jpeg_2000,
}


def _exif(content: bytes) -> bytes:
    """The TIFF block that holds the tags; empty where there is none."""
    kind = kind_of(content)
    if kind is ImageKind.TIFF:
        return content
    if kind is ImageKind.JPEG:
        at = content.find(b"Exif\0\0", 0, 1 << 18)
        return content[at + 6 : at + 6 + _EXIF_BYTES] if at >= 0 else b""
    if kind is ImageKind.PNG:
        return _chunk(content, len(_PNG_MAGIC), ">I4s", b"eXIf", 4)
    if kind is ImageKind.WEBP:
        return _chunk(content, 12, "<4sI", b"EXIF", 0).removeprefix(b"Exif\0\0")
    return b""


def _chunk(content: bytes, at: int, form: str, wanted: bytes, checksum: int) -> bytes:
    """Content of the first chunk of that name."""
    while at + 8 <= len(content):
        head = struct.unpack_from(form, content, at)
        name, length = head if isinstance(head[0], bytes) else (head[1], head[0])
        if name == wanted:
            return content[at + 8 : at + 8 + length]
        at += 8 + length + checksum + (0 if checksum else length & 1)
    return b""


def _tags(block: bytes) -> dict[int, int]:
    """First value of each whole-number tag in the first directory of a TIFF or BigTIFF block."""
    if kind_of(block) is not ImageKind.TIFF:
        return {}
    order = "<" if block.startswith(b"I") else ">"
    big = block[2:4] in {b"+\0", b"\0+"}
    start = struct.unpack_from(f"{order}{'Q' if big else 'I'}", block, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", block, start)[0]
    first, step, value_at = (start + 8, 20, 12) if big else (start + 2, 12, 8)
    return dict(_numbers(block, order, range(first, first + min(count, MAX_TAGS) * step, step), value_at))


def _numbers(block: bytes, order: str, places: range, value_at: int) -> Iterator[tuple[int, int]]:
    for at in places:
        tag, kind = struct.unpack_from(f"{order}HH", block, at)
        if kind in _NUMBERS:
            yield tag, struct.unpack_from(order + _NUMBERS[kind], block, at + value_at)[0]
