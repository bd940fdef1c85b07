"""Privileges: a command that root types goes on as the service's user before it touches what that user may change.

The service's user owns the state folder. Links, pipes and plans that it put there would otherwise be followed, read and
run with root's rights, and what root wrote there the service could not replace.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SERVICE_USER = "vajra-edge"

_MOST_LINKS = 40  # the kernel's own bound, see path_resolution(7)


def become_service_user(state_dir: Path, user: str = SERVICE_USER) -> None:
    """As root, go on as the service's user for good; as anybody else, or where the state folder is root's, stay.

    Args:
        state_dir: root of the engine store; see ``user_of``.
        user: the service's user.

    Raises:
        OSError: the kernel refuses, or ``state_dir`` cannot be looked at.
    """
    if os.geteuid() != 0:
        return
    entry = user_of(state_dir, user)
    if entry is None or entry.pw_uid == 0:
        return
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = entry.pw_dir  # root's would be tried for caches, and refused


def user_of(state_dir: Path, user: str = SERVICE_USER) -> pwd.struct_passwd | None:
    """Who should touch ``state_dir``: the service's user where any part of the way there is its, else its owner.

    A part of the way that the service's user owns it can replace at any time, by a link to a folder of root's.

    Args:
        state_dir: root of the engine store; where it does not exist yet the service's user decides.
        user: the service's user.

    Returns:
        The entry of the user database; None where only a user without one, or nobody, would fit.
    """
    service = None
    with suppress(KeyError):
        service = pwd.getpwnam(user)
    if service is not None and service.pw_uid in _owners(state_dir):
        return service
    try:
        return pwd.getpwuid(state_dir.stat().st_uid)
    except FileNotFoundError:
        return service
    except KeyError:
        return None


def _owners(path: Path) -> Iterator[int]:
    """User ids of all folders and links on the way to ``path``, its own last; it ends where nothing is there yet."""
    left = list(reversed(path.absolute().parts[1:]))
    here, links = Path("/"), 0
    while left:
        here /= left.pop()
        try:
            found = here.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        yield found.st_uid
        if stat.S_ISLNK(found.st_mode) and links < _MOST_LINKS:
            links += 1
            target = here.readlink()
            here = Path("/") if target.is_absolute() else here.parent
            left += reversed(target.parts[target.is_absolute() :])
