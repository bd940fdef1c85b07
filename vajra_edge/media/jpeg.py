"""JPEG: whether all of a picture is in its file; libjpeg paints what is missing grey and tells nobody but stderr.

The end marker alone is no sign. A thumbnail in the header has one of its own, cameras write more data after it, and a
file may lack it although every pixel is there. So the segments are looked at, and where the end is in doubt, the
decoder is asked: what is appended to the coded data changes no pixel of a picture that is whole, and the next block of
one that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.media.jpeg_markers import END, segments
from vajra_edge.media.opencv import load_cv2

_SOF_PROGRESSIVE = 0xC2
_COEFFICIENTS = 64
_BLANK = 16
"""So many zeros at the end are no coded data: what a disk gives back after a power cut."""
_NOISE = bytes.fromhex("5aa53cc3") * 16
_FILLING = _NOISE + b"".join(b"\xff" + bytes([0xD0 + number]) + _NOISE for number in range(8))
"""Decodes to some block or other with every table, and goes on after each restart that the decoder may wait for."""
_CORNER_PX = 4
"""Beside missing blocks, chroma is interpolated; a quarter of a block is free of that."""
_MISSING = range(60, 130)
"""Middle grey is 128; of the four inks of a print it is half of that."""


@dataclass(frozen=True)
class Structure:
    """What the markers tell.

    Attributes:
        frame_at: offset of the start of frame (its marker); None: there is none.
        end: offset of the end marker after the last scan; None: there is none.
        scans: how often coded data begins.
        complete: of a progressive picture, every bit of every coefficient has its scan; else that one scan began.
    """

    frame_at: int | None
    end: int | None
    scans: int
    complete: bool


def structure(content: bytes) -> Structure:
    """Walk the markers of a JPEG up to the end of its first picture."""
    frame_at, end, scans = None, None, list[bytes]()
    for segment in segments(content):
        if segment.is_end:
            end = segment.at
        elif segment.is_frame and frame_at is None:
            frame_at = segment.at
        elif segment.is_scan:
            scans.append(content[segment.at + 4 : segment.next])
    return Structure(frame_at, end, len(scans), _complete(content, frame_at, scans))


def _complete(content: bytes, frame_at: int | None, scans: list[bytes]) -> bool:
    if frame_at is None or not scans:
        return False
    if content[frame_at + 1] != _SOF_PROGRESSIVE:
        return True
    components = content[frame_at + 10 : frame_at + 10 + 3 * content[frame_at + 9] : 3]
    return all(_sent(component, scans) for component in components)


def _sent(component: int, scans: list[bytes]) -> bool:
    """Whether the lowest bit of every coefficient of a component is in some scan."""
    lowest: dict[int, int] = {}
    for scan in scans:
        count = scan[0] if scan else 0
        if len(scan) < 2 * count + 4 or component not in scan[1 : 1 + 2 * count : 2]:
            continue
        first, last, bits = scan[2 * count + 1 : 2 * count + 4]
        lowest |= dict.fromkeys(range(first, last + 1), bits & 0xF)
    return _is_complete(lowest)


def _is_complete(lowest: Mapping[int, int]) -> bool:
    return len(lowest) == _COEFFICIENTS and not any(lowest.values())


def is_cut(content: bytes, found: Structure) -> bool:
    """Whether the end of the picture is missing, as far as that shows without decoding all of it."""
    if not found.scans or not found.complete:
        return True
    return found.end is None and not _is_whole(mended(content))


def is_short(content: bytes, found: Structure, image: NDArray[np.uint8]) -> bool:
    """Whether the coded data of a file with an end marker ends too early.

    Args:
        content: of the file.
        found: its structure.
        image: decoded. Only one that has a corner as missing blocks are painted is looked at twice.
    """
    return found.end is not None and _grey_corner(image) and not _is_whole(content[: found.end])


def mended(content: bytes) -> bytes:
    """The file without zeros at its end and without an end marker; add the end marker and every decoder reads it."""
    kept = content.rstrip(b"\0")
    return kept if len(content) - len(kept) >= _BLANK else content


def _is_whole(content: bytes) -> bool:
    """Whether the coded data, without an end marker, fills the picture."""
    data = content.rstrip(b"\xff")  # half of a marker, which would swallow what is appended
    as_is, filled = (decoded(data + more + END, turn=False) for more in (b"", _FILLING))
    return as_is is not None and filled is not None and np.array_equal(as_is, filled)


def decoded(content: bytes, *, turn: bool = True) -> NDArray[np.uint8] | None:
    """(height, width, 3) uint8, BGR, as OpenCV decodes any kind of picture; None where it cannot.

    Args:
        content: of the file.
        turn: upright, by its EXIF orientation.
    """
    cv2 = load_cv2()
    flags = cv2.IMREAD_COLOR | (0 if turn else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # an empty file, or more pixels than OpenCV allows
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _grey_corner(image: NDArray[np.uint8]) -> bool:
    """Whether one of the corners is of the colour that missing blocks get; EXIF may have turned the last to any."""
    ends = (slice(None, _CORNER_PX), slice(-_CORNER_PX, None))
    corners = (image[rows, columns].reshape(-1, image.shape[2]) for rows in ends for columns in ends)
    return any((corner == corner[0]).all() and int(corner[0].max()) in _MISSING for corner in corners)
