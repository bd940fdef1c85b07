"""The control socket's file: where clients find the daemon, who holds it, and that it is made again.

A stale socket file is replaced, a live daemon's never. Who serves is decided by a lock beside the socket, which the
kernel gives back when its holder dies, however it dies. A socket file that somebody removed is made again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from vajra_edge.errors import ControlError
from vajra_edge.wording import Setting, say

MODE = 0o660
"""The service's user and group may ask; everybody else may not."""

_MAX_PATH_BYTES = 103  # sun_path of unix(7) has 108, less the closing zero and ``.new``
_BACKLOG = 512
"""Who comes faster than he is taken waits with the kernel, for half a second at the most; the next is turned away."""


class ControlSocket:
    """A listening socket with its file and its lock.

    Args:
        path: of the socket; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listening: socket.socket | None = None
        self._file: os.stat_result | None = None  # while we listen its inode is ours, removed or not
        self._lock: int | None = None

    def open(self) -> socket.socket:
        """Listen without blocking; the file appears complete with its mode, by one rename.

        Raises:
            ControlError: another daemon serves there, something else lies there, or the folder is not writable.
        """
        if len(os.fsencode(self.path)) > _MAX_PATH_BYTES:
            raise ControlError(
                f"control socket path {self.path} is too long for the system",
                remedy=say(Setting.CONTROL_SOCKET.given(), f" to at most {_MAX_PATH_BYTES} bytes"),
                path=self.path,
            )
        try:
            return self._make()
        except BaseException:
            self.close()
            raise

    def is_there(self) -> bool:
        """Whether the file at the path is the one that was made."""
        return self._file is not None and _same_file(self.path, self._file)

    def renew(self) -> socket.socket:
        """Listen on a new file in place of one that is not there any more; who is connected stays so.

        Raises:
            ControlError: as of ``open``; what was open before stays open.
        """
        before = self.listening
        made = self._make()
        if before is not None:
            before.close()
        return made

    def close(self) -> None:
        """Remove the file if it is still ours, then let the next daemon in; a second call does nothing."""
        if self.listening is not None:
            with suppress(OSError):
                if self.is_there():
                    self.path.unlink(missing_ok=True)
            self.listening.close()
            self.listening = self._file = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make(self) -> socket.socket:
        try:
            self._take_lock()
            self._require_free()
            self.listening, self._file = self._bind()
        except OSError as error:
            raise ControlError(
                f"control socket {self.path} cannot be made: {error.strerror}",
                remedy=say(Setting.CONTROL_SOCKET.given(), " to a folder that exists and is writable for this user"),
                path=self.path,
            ) from error
        return self.listening

    def _take_lock(self) -> None:
        """Hold the lock that lies beside the socket now: one that was removed keeps nobody out."""
        beside = self.path.with_name(f"{self.path.name}.lock")
        if self._lock is not None and _same_file(beside, os.fstat(self._lock)):
            return
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise self._taken() from error
        if self._lock is not None:
            os.close(self._lock)
        self._lock = descriptor

    def _require_free(self) -> None:
        """Whatever lies at the path must be a socket that nobody answers."""
        try:
            mode = self.path.stat(follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ControlError(
                f"{self.path} exists and is no socket", remedy=say("move it, or ", Setting.CONTROL_SOCKET.given())
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except BlockingIOError as error:  # so many ask it that we would have to wait
                raise self._taken() from error
        raise self._taken()

    def _bind(self) -> tuple[socket.socket, os.stat_result]:
        aside = self.path.with_name(f"{self.path.name}.new")
        aside.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(aside))
            aside.chmod(MODE)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
            file = aside.stat(follow_symlinks=False)
            aside.replace(self.path)
        except BaseException:
            sock.close()
            raise
        return sock, file

    def _taken(self) -> ControlError:
        return ControlError(
            f"another daemon serves {self.path}",
            remedy=say("stop it, or ", Setting.CONTROL_SOCKET.given(), " to another path"),
            path=self.path,
        )


def _same_file(path: Path, known: os.stat_result) -> bool:
    """Whether a file of which something is still open lies at the path; False where that cannot be seen."""
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), known)
    except OSError:
        return False
