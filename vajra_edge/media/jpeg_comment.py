"""JPEG comment: text in a picture's own file, in a COM segment (ITU T.81, B.2.4.5), which every decoder passes over."""

from __future__ import annotations

from vajra_edge.media.jpeg_markers import START

MOST_BYTES = 65_533
"""The segment's length is a word that counts itself."""

_COMMENT, _JFIF = b"\xff\xfe", b"\xff\xe0"


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """The same picture with a comment: behind the JFIF header, which has to be the first segment where there is one.

    Raises:
        ValueError: the comment is too long for a segment.
    """
    if len(comment) > MOST_BYTES:
        raise ValueError(f"a comment of {len(comment)} bytes; a segment holds {MOST_BYTES}")
    at = len(START)
    if jpeg[at : at + 2] == _JFIF:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    segment = _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment
    return b"".join((jpeg[:at], segment, jpeg[at:]))
