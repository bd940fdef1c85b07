"""Files that survive a power cut: written aside, fsynced, renamed, and the folder fsynced too."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vajra_edge import state_file
from vajra_edge.errors import StoreError
from vajra_edge.wording import Setting, Text, say

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EXDEV)

_DATE_STEP_NS = 10**9
"""What every file system tells apart; ext4 on some SD cards keeps no fractions of a second."""

_REMEDIES: Mapping[int, Text] = {
    errno.ENOSPC: say("free space on that disk, or lower ", Setting.MAX_BYTES),
    errno.EDQUOT: "raise the quota of the service's user",
    errno.EROFS: "mount that disk writable",
    errno.EACCES: "give the folder to the service's user",
    errno.EPERM: "give the folder to the service's user",
}


@contextmanager
def reported(root: Path, verb: str) -> Iterator[None]:
    """Turn an OSError of the body into one line with folder, reason and remedy.

    Raises:
        StoreError: in the place of the OSError.
    """
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(
            f"{root} cannot be {verb}: {error.strerror or error}{where}",
            remedy="remove it"
            if isinstance(error, state_file.NotAFile)
            else _REMEDIES.get(error.errno or 0, "check that disk"),
            path=root,
            errno=error.errno,
            verb=verb,
        ) from error


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that does not exist yet, and fsync it; its name is durable once the folder is fsynced.

    Raises:
        OSError: no space, read-only, or the name is taken.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: POSIX promises a new or renamed name only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes, staging: Path, mode: int = 0o600) -> None:
    """Put ``content`` in the place of ``path`` in one step; ``staging`` is a folder on the same disk."""
    aside = staging / uuid.uuid4().hex
    try:
        write(aside, content, mode)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_newest(path: Path, folder: Path) -> None:
    """Date ``path`` after everything in ``folder``: what goes by age goes by order, though a clock was set back.

    Raises:
        OSError: it is not there, or not ours.
    """
    dates_ns = (
        entry.stat(follow_symlinks=False).st_mtime_ns for entry in os.scandir(folder) if entry.path != str(path)
    )
    newest_ns = max(dates_ns, default=0)
    if path.stat().st_mtime_ns <= newest_ns:
        later_ns = newest_ns + _DATE_STEP_NS
        os.utime(path, ns=(later_ns, later_ns))


def relink(path: Path, target: str, staging: Path) -> None:
    """Point the symlink ``path`` to ``target`` in one step."""
    aside = staging / uuid.uuid4().hex
    try:
        aside.symlink_to(target)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file between processes; waits for whoever holds it. The file and its folder are made.

    Raises:
        OSError: the disk refuses.
    """
    make_folder(path.parent)
    descriptor = state_file.to_write(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Create a folder and its parents, durably; one that exists is left as it is."""
    if path.is_dir():
        return
    make_folder(path.parent, 0o755)
    path.mkdir(mode=mode, exist_ok=True)
    sync_folder(path.parent)


def rename_over(source: Path, target: Path) -> None:
    """Give the folder ``source`` the name ``target``; what had it lies at ``source`` afterwards.

    Linux swaps both names in one step (renameat2); on a file system without that there is a moment in which
    ``target`` does not exist. A folder from below an overlay cannot be renamed at all (EXDEV), and is copied aside.
    """
    if not target.exists():
        source.rename(target)
    elif not _exchange(source, target):
        aside = source.with_name(f"{source.name}.old")
        shutil.move(target, aside)
        source.rename(target)
        aside.rename(source)
    sync_folder(target.parent)
    sync_folder(source.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names; False where kernel, library or file system do not offer it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(second))
