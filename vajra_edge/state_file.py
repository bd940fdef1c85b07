"""Files of the state directory as they are read: anything may lie there by now, and none of it may end or hold a start.

A card that fails, a copy from another device, a tool that means well: a pipe in the place of a file would hold its
reader for good, a device without end takes all memory, and JSON can say what is no ValueError elsewhere.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 64 * 1024 * 1024
"""More than any file that is read whole; plans are read in pieces."""

_MOST_DIGITS = 20
"""Of a whole number, with its sign: more of them need more than 64 bits, and then nothing could write it down again."""

_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**64 - 1


class NotAFile(OSError):
    """Under the name of one of our files lies a folder, a pipe, a device, a knot of links, or far too much."""


def opened(path: Path) -> BinaryIO:
    """A file that a process of ours wrote, to be read. A pipe is not waited for, and no device is read without end.

    Raises:
        NotAFile: something else lies there.
        OSError: there is nothing, or it cannot be read.
    """
    return os.fdopen(_descriptor(path, os.O_RDONLY), "rb")


def to_write(path: Path, more_flags: int = 0) -> int:
    """Descriptor of a file that is read and written in place, and made where there is none; to be closed.

    Raises:
        NotAFile: something else lies there, or a link: none of ours is one.
        OSError: it cannot be opened or made.
    """
    return _descriptor(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | more_flags)


def _descriptor(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # links that lead nowhere; a socket; a folder
            raise NotAFile(error.errno, "it is no file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFile(errno.EINVAL, "it is no file", str(path))
    return descriptor


def read(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of such a file.

    Raises:
        NotAFile: something else lies there, or more than was ever written.
        OSError: there is nothing, or it cannot be read.
    """
    with opened(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > most_bytes:
            raise NotAFile(errno.EFBIG, f"it has {size_bytes} bytes, more than was ever written there", str(path))
        return file.read()


def parse(content: bytes) -> Any:
    """JSON that nobody signed.

    Raises:
        ValueError: it is none, is nested too deep, or holds a number or a letter that nothing else could take.
    """
    try:
        plain = json.loads(content, parse_float=_finite, parse_int=_whole, parse_constant=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if b"\\ud" in content.lower():  # half a letter passes, and ends whoever writes it down
        json.dumps(plain, ensure_ascii=False).encode()
    return plain


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS or not _LEAST_WHOLE <= (number := int(text)) <= _MOST_WHOLE:
        raise ValueError(f"a number has {len(text)} digits")
    return number
