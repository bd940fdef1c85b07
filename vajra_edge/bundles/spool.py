"""Spool: the folder where bundles lie that somebody elsewhere may have adopted, by file name alone.

Who puts a file there is root or the service's user; who names it may be anybody, so that a name is never a path.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from vajra_edge.errors import BundleError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Spool:
    """The folder; nothing here makes it.

    Args:
        state_dir: of the daemon.
    """

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "spool"

    def open(self, name: str) -> BinaryIO:
        """A bundle's file, for ``bundle.read``.

        Raises:
            BundleError: the name is none of a file that lies in the folder itself.
        """
        if not _NAME.fullmatch(name):
            remedy = f"give the plain name of a file in {self.folder}: letters, digits, '.', '_' and '-'"
            raise BundleError(f"{name[:40]!r} names no bundle", remedy=remedy)
        try:
            descriptor = self._open(name)
        except OSError as error:
            raise self._refused(name, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BundleError(f"bundle {name} is no file", remedy=f"put the file itself into {self.folder}")
        return os.fdopen(descriptor, "rb")

    def _open(self, name: str) -> int:
        """No link is followed, not even that of the folder."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)

    def _refused(self, name: str, error: OSError) -> BundleError:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return BundleError(f"bundle {name} is a link", remedy=f"put the file itself into {self.folder}")
        remedy = "let the service's user read it" if error.errno == errno.EACCES else "put it there first"
        return BundleError(f"bundle {name} in {self.folder} cannot be read: {error.strerror}", remedy=remedy)
