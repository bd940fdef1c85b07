"""Image header: size and EXIF orientation of a picture file, before anything is decoded.

A forged or honest header can ask for gigabytes, so sizes are known first. What is not understood here is None, and the
decoder decides.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from vajra_edge.datasets import jpeg

ORIENTATION = 0x0112
"""EXIF and TIFF tag: 1 upright, 2 to 4 mirrored or upside down, 5 to 8 with the sides exchanged."""
_WIDTH, _HEIGHT = 0x0100, 0x0101
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*")
_JP2 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_TYPES = {1: "B", 3: "H", 4: "I"}
"""Of TIFF: byte, short, long."""
_MOST_TAGS = 4096


def size(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as stored, of all kinds but JPEG; None where the header is not understood."""
    try:
        for is_kind, read in _SIZES:
            if is_kind(content):
                return read(content)
    except (struct.error, IndexError, ValueError):
        pass
    return None


def orientation(content: bytes) -> int:
    """EXIF orientation of a JPEG, PNG, WebP or TIFF, 1 to 8; 1 where none is told."""
    try:
        value = _tags(_exif(content)).get(ORIENTATION, 1)
    except (struct.error, IndexError, ValueError):
        return 1
    return value if value in range(1, 9) else 1


def _png(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _bmp(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<ii", content, 18)
    return width, abs(height)


def _webp(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff(content: bytes) -> tuple[int, int]:
    tags = _tags(content)
    return tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)


def _jp2(content: bytes) -> tuple[int, int] | None:
    box = content.find(b"ihdr", 0, 4096)
    if box >= 0:
        height, width = struct.unpack_from(">II", content, box + 4)
        return width, height
    right, bottom, left, top = struct.unpack_from(">IIII", content, 8)
    return right - left, bottom - top


_SIZES: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], tuple[int, int] | None]], ...] = (
    (lambda content: content.startswith(_PNG), _png),
    (lambda content: content.startswith(b"BM"), _bmp),
    (lambda content: content.startswith(b"RIFF") and content[8:12] == b"WEBP", _webp),
    (lambda content: content.startswith(_TIFF), _tiff),
    (lambda content: content.startswith(_JP2), _jp2),
)


def _exif(content: bytes) -> bytes:
    """The TIFF block that holds the tags; empty where there is none."""
    if content.startswith(_TIFF):
        return content
    if content.startswith(jpeg.START):
        at = content.find(b"Exif\0\0", 0, 1 << 18)
        return content[at + 6 : at + 6 + (1 << 16)] if at >= 0 else b""
    if content.startswith(_PNG):
        return _chunk(content, len(_PNG), ">I4s", b"eXIf", 4)
    if content.startswith(b"RIFF"):
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
    """First value of each whole-number tag in the first directory of a TIFF block."""
    if not block.startswith(_TIFF):
        return {}
    order = "<" if block.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, start)
    tags: dict[int, int] = {}
    for number in range(min(count, _MOST_TAGS)):
        at = start + 2 + 12 * number
        tag, kind = struct.unpack_from(f"{order}HH", block, at)
        if kind in _TYPES:
            (tags[tag],) = struct.unpack_from(order + _TYPES[kind], block, at + 8)
    return tags
