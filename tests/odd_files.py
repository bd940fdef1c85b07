"""What may lie under the name of a file instead of it: by a slip of an operator, a restored backup, or malice."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "something").write_text("x")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            bound.bind(f"/proc/self/fd/{here}/{path.name}")  # the path of a socket is 107 bytes at the most
        finally:
            os.close(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD_FILES: Mapping[str, Callable[[Path], None]] = {
    "a folder": _folder,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a device without end": lambda path: path.symlink_to("/dev/zero"),
    "a TiB of nothing": _sparse,
}


def put(form: str, path: Path) -> None:
    """Put this in the place of the file."""
    path.unlink(missing_ok=True)
    ODD_FILES[form](path)
