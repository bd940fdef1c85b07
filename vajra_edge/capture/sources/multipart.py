"""Multipart: the parts of an endless HTTP answer (multipart/x-mixed-replace), as cameras really send them.

Cameras leave the first boundary out, name another one than they send, write its dashes into its name, send no length,
or a wrong one. So a boundary is learnt from the stream, and what is between two parts is passed by.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vajra_edge.media.jpeg_markers import START, end_of
from vajra_edge.media.limits import MAX_SENT_BYTES

_LONGEST_LINE_BYTES = 8192
_LONGEST_BOUNDARY_BYTES = 200
_HEADER = re.compile(rb"^([A-Za-z][\w-]{0,63})\s*:\s*(.*)$")
_FIRST_HEADER = re.compile(rb"^content-(type|length)\s*:", re.IGNORECASE)
_PRINTABLE = re.compile(rb"^[\x20-\x7e]+$")


class DamagedPart(Exception):
    """A part that cannot be used; the next one may be good."""


class EndOfParts(Exception):
    """The camera ended the stream."""


@dataclass(frozen=True)
class BodyPart:
    """One part.

    Attributes:
        content_type: in lower case and without parameters; empty where it has none.
        body: what it holds, at least one byte.
    """

    content_type: str
    body: bytes


class BodyParts:
    """Reads parts.

    Args:
        more: gives the next bytes of the answer, empty ones at its end.
        boundary: as the answer's head names it; may be empty or wrong.
    """

    def __init__(self, more: Callable[[], bytes], boundary: str) -> None:
        self._more = more
        self._buffer = bytearray()
        self._core = boundary.encode("latin-1", "replace").strip(b"-")
        self._seen = False

    def next(self) -> BodyPart:
        """The next part.

        Raises:
            DamagedPart: it is empty, too long, or has no end.
            EndOfParts: there is none.
        """
        headers = self._headers()
        length = headers.get(b"content-length", b"")
        body = self._sized(int(length)) if length.isdigit() else self._unsized()
        if not body:
            raise DamagedPart("an empty part")
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return BodyPart(content_type.decode("latin-1"), body)

    def _headers(self) -> dict[bytes, bytes]:
        """The head of the next part, by names in lower case. What is between two parts is passed by."""
        headers: dict[bytes, bytes] = {}
        begun = False
        while True:
            line = self._line()
            found = _HEADER.match(line)
            if self._is_boundary(line):
                headers, begun = {}, True
            elif found and (begun or _FIRST_HEADER.match(line)):
                begun = True
                headers[found[1].lower()] = found[2].strip()
            elif begun and not line:
                return headers
            elif line:
                headers, begun = {}, False

    def _is_boundary(self, line: bytes) -> bool:
        """Whether a line parts two parts; until the boundary that was named is seen, the first that looks so is it."""
        if self._core and (b"--" + self._core in line or line == self._core):
            self._seen = True
        elif not self._seen and line.startswith(b"--") and _PRINTABLE.match(line) and line.strip(b"-"):
            self._core, self._seen = line.strip(b"-")[:_LONGEST_BOUNDARY_BYTES], True
        else:
            return False
        return True

    def _sized(self, size: int) -> bytes:
        if size > MAX_SENT_BYTES:
            raise DamagedPart(f"a part claims {size} bytes, allowed are {MAX_SENT_BYTES}")
        while len(self._buffer) < size:
            self._fill()
        return self._cut(size)

    def _unsized(self) -> bytes:
        """Up to the end of the JPEG, which comes before the next boundary does; else up to that boundary."""
        scanned = 0
        while len(self._buffer) <= MAX_SENT_BYTES:
            ends = (end_of(self._buffer, scanned), self._boundary_at(scanned))
            if found := [end for end in ends if end is not None]:
                return self._cut(min(found)).rstrip(b"\r\n-")
            if not self._core and len(self._buffer) >= len(START) and not self._buffer.startswith(START):
                break
            scanned = max(0, len(self._buffer) - _LONGEST_BOUNDARY_BYTES)
            self._fill()
        self._buffer.clear()
        raise DamagedPart("a part without an end")

    def _boundary_at(self, scanned: int) -> int | None:
        at = self._buffer.find(b"--" + self._core, scanned) if self._core else -1
        return at if at >= 0 else None

    def _line(self) -> bytes:
        """The next line without its end; of a longer one, which is none of a head, as much as is sure."""
        while (end := self._buffer.find(b"\n", 0, _LONGEST_LINE_BYTES)) < 0:
            if len(self._buffer) >= _LONGEST_LINE_BYTES:
                return self._cut(_LONGEST_LINE_BYTES - _LONGEST_BOUNDARY_BYTES)
            self._fill()
        return self._cut(end + 1).rstrip(b"\r\n")

    def _cut(self, size: int) -> bytes:
        head = bytes(self._buffer[:size])
        del self._buffer[:size]
        return head

    def _fill(self) -> None:
        more = self._more()
        if not more:
            raise EndOfParts
        self._buffer += more
