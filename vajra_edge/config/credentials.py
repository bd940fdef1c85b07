"""Credentials: read from files, never from settings, and kept out of what people see."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vajra_edge.config import text_file
from vajra_edge.config.text_file import Unreadable
from vajra_edge.errors import SettingsError

_NO_SECRETS = (
    (
        r"[^:]*:\$(?:\d|2[aby]|apr1|y)\$[^:]*\$",
        "the hash of a password",
        "mosquitto_passwd and htpasswd write for servers",
    ),
    (r"-----BEGIN ", "a key or a certificate", "belongs into key_file, cert_file or ca_file"),
    (
        r"(?:export )?[A-Z0-9_]*(?:PASS|PASSWD|PASSWORD|PW|PWD|SECRET|USER|USERNAME)=",
        "a variable",
        "a shell reads",
    ),
    (r"[A-Za-z]{2,6}://", "an address", "belongs into source or host"),
    (r"\{\s*\"", "JSON", "a program reads"),
)
"""Beginnings of what is put into such a file by mistake: its form, its name, and what it is for."""

_MOST_BYTES = 64 * 1024


def read_secret(name: str, file: Path | None) -> str | None:
    """The first line of ``file``, else of ``$CREDENTIALS_DIRECTORY/<name>``, else None; without white space around it.

    It is taken as it stands: nothing in it is decoded or has a meaning of its own.

    Raises:
        SettingsError: the file is set and cannot be read, or holds no secret.
    """
    path = file or credential(name)
    if path is None:
        return None
    # a relative path may be the secret itself, written into the wrong setting
    place = f"secret file {path}" if path.is_absolute() else f"secret file of {name}"
    text = text_file.read(path, _MOST_BYTES)
    if isinstance(text, Unreadable):
        raise SettingsError(f"{place} {text.what}", remedy=text.remedy)
    secret = text.lstrip("\n").partition("\n")[0].strip()
    if not text.strip() or not secret:
        raise SettingsError(f"{place} is empty", remedy="write the secret on its first line")
    for form, name_of_it, use in _NO_SECRETS:
        if re.match(form, secret):
            remedy = f"write the secret itself on the first line; this is what {use}"
            raise SettingsError(f"{place} holds {name_of_it}", remedy=remedy)
    if not secret.isprintable():
        raise SettingsError(f"{place} holds an invisible character in its first line", remedy="write the secret again")
    return secret


def credential(name: str) -> Path | None:
    """The file of a systemd credential, where there is one."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory) / name if directory else None
    return path if path is not None and os.path.lexists(path) else None  # one that may not be read is said, not skipped
