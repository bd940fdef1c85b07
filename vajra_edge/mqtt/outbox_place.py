"""Place of the outbox's file: whether a file can lie there, and whether the one that is open still does.

SQLite says "disk I/O error" of a FIFO and of a file that may not be written, and "disk is full" of a link to /dev/full.
Of a file that somebody removed while it is open it says nothing: it goes on writing to what no start will find.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from vajra_edge.errors import PublishError

BESIDE = ("-wal", "-journal")
"""What SQLite names its other files."""

_KINDS: Mapping[Callable[[int], bool], str] = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}

Identity: TypeAlias = tuple[int, int]
"""Of a file: its disk and its number there; a file that takes its name has another."""


def require_files(path: Path) -> None:
    """Refuse what is no file in the place of the outbox's, or one that may not be written.

    Raises:
        PublishError: it is no file.
        OSError: it may not be written.
    """
    for each in (path, *(path.with_name(path.name + end) for end in BESIDE)):
        try:
            mode = each.stat().st_mode
        except OSError as error:
            if each.is_symlink():
                raise PublishError(f"{each} is a link that leads to no file", remedy="remove it") from error
            continue  # it is not there yet, or the folder is none, which SQLite says
        if not stat.S_ISREG(mode):
            kind = next((name for is_one, name in _KINDS.items() if is_one(mode)), "of no known kind")
            raise PublishError(f"{each} is {kind}, and should be a file", remedy="remove it")
        os.close(os.open(each, os.O_RDWR | os.O_CLOEXEC))


def identity(path: Path) -> Identity | None:
    """Of the file that lies there; None where none does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def require_same(path: Path, opened: Identity | None) -> None:
    """Refuse to go on with a file that the next start will not find.

    Raises:
        PublishError: it was removed or replaced.
    """
    if identity(path) != opened:
        raise PublishError(
            f"{path} was removed or replaced while it was in use", remedy="leave that folder to the service"
        )
