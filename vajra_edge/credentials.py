"""Credentials: read from files, and kept out of everything that a person or a subscriber sees."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vajra_edge.errors import SettingsError


def redact(text: str) -> str:
    """``text`` with the password of every URL in it replaced by ``***``."""
    return re.sub(r"(?<=://)([^/@\s:]*):[^/\s]*@", r"\1:***@", text)


def read_secret(name: str, file: Path | None) -> str | None:
    """The first line of ``file``, else of ``$CREDENTIALS_DIRECTORY/<name>``, else None.

    Raises:
        SettingsError: the file is set and cannot be read, or is empty.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = file or (Path(directory) / name if directory and (Path(directory) / name).is_file() else None)
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"secret file {path} cannot be read: {error}", remedy="check its path, owner and mode", path=path
        ) from error
    if not lines or not lines[0].strip():
        raise SettingsError(f"secret file {path} is empty", remedy="write the secret on its first line", path=path)
    return lines[0].strip()
