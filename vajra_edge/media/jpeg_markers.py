"""JPEG markers: the one walk over the segments of a JPEG (ITU T.81, annex B), of which the rest is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vajra_edge.media.limits import MAX_STRAY_BYTES

START, END = b"\xff\xd8", b"\xff\xd9"
_EOI, _SOS = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start of frame, of any coding (table B.1)."""
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""In coded data FF 00 is a byte and FF D0 to D7 are restarts; anything else ends the scan."""


@dataclass(frozen=True)
class JpegSegment:
    """A marker and what belongs to it.

    Attributes:
        code: of the marker, its second byte.
        at: offset of the marker's last two bytes.
        next: offset behind the segment, which may be beyond what is there.
    """

    code: int
    at: int
    next: int

    @property
    def is_frame(self) -> bool:
        """Start of frame: tells the size."""
        return self.code in _FRAMES

    @property
    def is_scan(self) -> bool:
        """Start of scan: coded data follows."""
        return self.code == _SOS

    @property
    def is_end(self) -> bool:
        """End of image."""
        return self.code == _EOI


def segments(content: bytes | bytearray) -> Iterator[JpegSegment]:
    """Those of the first picture, its end mark the last; thumbnails inside a segment are passed by.

    Args:
        content: a JPEG, or the beginning of one.
    """
    at, limit = len(START), len(START) + MAX_STRAY_BYTES
    while (match := _MARKER.search(content, at, limit)) is not None:
        code, behind = match[1][0], match.end()
        match = None  # it holds a bytearray fast
        at = behind
        if code not in _BARE and code != _EOI:
            at += max(int.from_bytes(content[behind : behind + 2], "big"), 2)
        found = JpegSegment(code, behind - 2, at)
        yield found
        if found.is_end:
            return
        if found.is_scan:
            limit = len(content)  # from here on coded data is between two markers
        limit = max(limit, at + MAX_STRAY_BYTES)


def size(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as stored, before EXIF turns it; None: not told before the first scan."""
    for segment in segments(content):
        if segment.is_frame:
            return size_at(content, segment.at)
        if segment.is_scan:
            break
    return None


def size_at(content: bytes, frame_at: int) -> tuple[int, int] | None:
    """Width and height in pixels by the start of frame at that offset; None where it is cut off."""
    if len(content) < frame_at + 9:
        return None
    height_px, width_px = (int.from_bytes(content[frame_at + k : frame_at + k + 2], "big") for k in (5, 7))
    return width_px, height_px


def end_of(content: bytes | bytearray, scanned: int = 0) -> int | None:
    """Where a JPEG ends, behind its end mark; None: not among these bytes.

    Args:
        content: a JPEG, or the beginning of one.
        scanned: bytes in which no end mark was found before, so that a long one is not walked at each piece of it.
    """
    if not content.startswith(START):
        return None
    scan = next((segment for segment in segments(content) if segment.is_scan), None)
    if scan is None:
        return None
    at = content.find(END, max(scan.next, scanned))  # within a scan 0xFF is followed by 0 or a restart mark
    return at + 2 if at >= 0 else None
