"""Text files that people write: settings and secrets, read whole, and told in words where they are no text.

What editors do to a file is borne (a byte order mark, CRLF); what cannot be meant is named: another encoding, NUL bytes
after a power cut, a folder, a pipe that would never end.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_UTF16 = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.ENFILE, errno.EMFILE})
"""A disk or network drive that stalls, and a machine that is short of memory or of open files."""

_UTF8 = "save it as UTF-8 text"


@dataclass(frozen=True)
class Unreadable:
    """Why a file gives no text, as the end of a sentence about it, without its content; and what to do.

    Attributes:
        passing: the system failed at it, and the next try may go well.
    """

    what: str
    remedy: str
    passing: bool = False


def read(path: Path, most_bytes: int) -> str | Unreadable:
    """The text of a file, without its byte order mark and with plain line ends.

    Args:
        path: the file, followed through links.
        most_bytes: of a larger one nothing is read: it is another file than was meant.
    """
    content = read_bytes(path, most_bytes)
    return content if isinstance(content, Unreadable) else decode(content)


def read_bytes(path: Path, most_bytes: int) -> bytes | Unreadable:
    """The content of a file; see ``read``."""
    try:
        # a pipe that nobody writes to would hold the open, and /dev/zero has no end
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return _refused(error)
    except ValueError:  # a NUL byte in the path
        return Unreadable("cannot be read: its path holds a NUL byte", "correct the path")
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            return Unreadable(
                "is a folder" if stat.S_ISDIR(mode) else "is not a file but a pipe or device", "name a file"
            )
        content = os.read(descriptor, most_bytes + 1)
    except OSError as error:
        return _refused(error)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        what = f"is larger than {most_bytes // 1024} KiB"
        return Unreadable(what, "it is another file than was meant; correct the path")
    return content


def decode(content: bytes) -> str | Unreadable:
    """The text of these bytes; see ``read``."""
    if (name := _UTF16.get(content[:2])) is not None:
        return Unreadable(f"is {name} text", _UTF8)
    if content and not content.strip(b"\0"):
        return Unreadable(f"holds {len(content)} NUL bytes and nothing else", "write it again: a power cut left it so")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        return Unreadable(f"holds a NUL byte in line {line}", f"take it out, or {_UTF8}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Unreadable(f"is not UTF-8 text: line {line} holds a letter in another encoding", _UTF8)
    return text.replace("\r\n", "\n")


def _refused(error: OSError) -> Unreadable:
    remedies = {
        errno.ENOENT: "correct the path, or write the file",
        errno.EACCES: f"let uid {os.geteuid()} read it (chown, chmod), and pass through its folders",
        errno.EPERM: f"let uid {os.geteuid()} read it",
        errno.EIO: "check the disk it is on",
        errno.ESTALE: "check the network drive it is on",
        errno.ETIMEDOUT: "check the network drive it is on",
        errno.ENOMEM: "end what takes the memory",
        errno.ENFILE: "end what holds so many files open",
        errno.EMFILE: "raise LimitNOFILE of the unit",
        errno.ELOOP: "mend its symbolic links",
        errno.ENOTDIR: "correct the path",
    }
    number = error.errno or 0
    remedy = remedies.get(number, "check path, owner and mode")
    return Unreadable(f"cannot be read: {error.strerror}", remedy, passing=number in _PASSING)
