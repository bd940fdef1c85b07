"""Credentials: read from files, and kept out of everything that a person or a subscriber sees."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vajra_edge.errors import SettingsError

_SECRETS = (
    re.compile(r"(?<=://)([^/@\s:\"']*:)()[^\s\"']*@"),  # up to the last @, since a raw password may hold / and @
    re.compile(r"([?&](?:pass|passwd|password|pwd|token|key|secret|auth)=)()[^&\s\"']*", re.IGNORECASE),
    re.compile(
        r"(\b(?:user-pw|proxy-pw|passphrase)\s*=\s*)([\"']?)(?:(?<=\")[^\"]*|(?<=')[^']*|[^\s\"']+)", re.IGNORECASE
    ),
)


def redact(text: str) -> str:
    """``text`` with ``***`` for passwords: those in URLs, in their queries, and in GStreamer's properties.

    Rather too much than too little: in ``rtsp://host:554/cam@2`` it takes the port and path for a password.
    """
    for pattern in _SECRETS:
        text = pattern.sub(_stars, text)
    return text


def _stars(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}***{'@' if found[0].endswith('@') else ''}"


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
