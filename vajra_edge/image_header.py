"""Image header: kind and size of an encoded image from its first bytes, before any memory is taken for its pixels.

A PNG of 3 MB may hold 45,000 x 45,000 pixels, which a decoder takes 6 GB for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum


class ImageKind(Enum):
    """Formats whose header is understood here."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    TIFF = "tiff"


@dataclass(frozen=True)
class ImageHeader:
    """What an encoded image says of itself.

    Attributes:
        kind: its format.
        width_px, height_px: as decoded, before any turning; 0 where the header says so.
    """

    kind: ImageKind
    width_px: int
    height_px: int


def header_of(content: bytes) -> ImageHeader | None:
    """The header of an encoded image; None: of no known format, or cut off within its header.

    Args:
        content: the image from its first byte on.
    """
    for magic, kind in _MAGICS.items():
        if content.startswith(magic):
            try:
                size = _READERS[kind](content)
            except (struct.error, IndexError, OverflowError):
                return None
            return None if size is None else ImageHeader(kind, *size)
    return None


def jpeg_scans_at(content: bytes | bytearray) -> int | None:
    """Where the first scan of a JPEG begins; None: not among these bytes. The thumbnails in its segments are passed by.

    Args:
        content: a JPEG, or the beginning of one.
    """
    at = 2
    while at + 4 <= len(content):
        if content[at] != _MARK:
            return None
        if content[at + 1] == _MARK:  # marks may be filled up with 0xFF
            at += 1
            continue
        length = struct.unpack_from(">H", content, at + 2)[0]
        if content[at + 1] == _SCAN:
            return at + 2 + int(length)
        at += 2 + length
    return None


def jpeg_end(content: bytes | bytearray, scanned: int = 0) -> int | None:
    """Where a JPEG ends, behind its end mark; None: not among these bytes.

    Args:
        content: a JPEG, or the beginning of one.
        scanned: bytes in which no end mark was found before.
    """
    scans_at = jpeg_scans_at(content) if content.startswith(b"\xff\xd8") else None
    if scans_at is None:
        return None
    at = content.find(b"\xff\xd9", max(scans_at, scanned))  # within a scan 0xFF is followed by 0 or a restart mark
    return at + 2 if at >= 0 else None


_MARK, _SCAN = 0xFF, 0xDA
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frames, of whatever coding (ITU T.81, table B.1)."""

_MAGICS: Mapping[bytes, ImageKind] = {
    b"\xff\xd8": ImageKind.JPEG,
    b"\x89PNG\r\n\x1a\n": ImageKind.PNG,
    b"RIFF": ImageKind.WEBP,
    b"BM": ImageKind.BMP,
    b"II*\0": ImageKind.TIFF,
    b"MM\0*": ImageKind.TIFF,
    b"II+\0": ImageKind.TIFF,
    b"MM\0+": ImageKind.TIFF,
}


def _jpeg(content: bytes) -> tuple[int, int] | None:
    at = 2
    while True:
        if content[at] != _MARK:
            return None
        marker = content[at + 1]
        if marker == _MARK:
            at += 1
            continue
        length = struct.unpack_from(">H", content, at + 2)[0]
        if marker in _SIZES:
            height_px, width_px = struct.unpack_from(">HH", content, at + 5)
            return width_px, height_px
        if marker == _SCAN:
            return None
        at += 2 + length


def _png(content: bytes) -> tuple[int, int] | None:
    return struct.unpack_from(">II", content, 16) if content[12:16] == b"IHDR" else None


def _webp(content: bytes) -> tuple[int, int] | None:
    chunk = content[12:16]
    if content[8:12] != b"WEBP":
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width_px, height_px = struct.unpack_from("<HH", content, 26)
        return width_px & 0x3FFF, height_px & 0x3FFF
    return None


def _bmp(content: bytes) -> tuple[int, int] | None:
    if struct.unpack_from("<I", content, 14)[0] == 12:  # noqa: PLR2004  the header of OS/2
        return struct.unpack_from("<HH", content, 18)
    width_px, height_px = struct.unpack_from("<ii", content, 18)
    return abs(width_px), abs(height_px)


def _tiff(content: bytes) -> tuple[int, int] | None:
    """Of the first image in it, which is the one that is read."""
    order = "<" if content.startswith(b"I") else ">"
    big = content[2:4] in {b"+\0", b"\0+"}
    start = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, start)[0]
    step, value_at = (20, 12) if big else (12, 8)
    found: dict[int, int] = {}
    for at in range(start + (8 if big else 2), start + (8 if big else 2) + min(count, _MOST_TAGS) * step, step):
        tag, kind = struct.unpack_from(f"{order}HH", content, at)
        if tag in {256, 257} and kind in _TIFF_NUMBERS:
            found[tag] = struct.unpack_from(order + _TIFF_NUMBERS[kind], content, at + value_at)[0]
    return (found[256], found[257]) if found.keys() == {256, 257} else None


_MOST_TAGS = 512
_TIFF_NUMBERS: Mapping[int, str] = {3: "H", 4: "I", 16: "Q"}
_READERS: Mapping[ImageKind, Callable[[bytes], tuple[int, int] | None]] = {
    ImageKind.JPEG: _jpeg,
    ImageKind.PNG: _png,
    ImageKind.WEBP: _webp,
    ImageKind.BMP: _bmp,
    ImageKind.TIFF: _tiff,
}
