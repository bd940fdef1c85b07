"""The socket file of the daemon: a stale one is replaced, a live daemon's never.

Who serves is decided by a lock beside the socket, which the kernel gives back when its holder dies, however it dies.
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
_BACKLOG = 128


class ControlSocket:
    """A listening socket with its file and its lock.

    Args:
        path: of the socket; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listening: socket.socket | None = None
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
            self._take_lock()
            self._require_free()
            self.listening = self._bind()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise ControlError(
                    f"control socket {self.path} cannot be made: {error.strerror}",
                    remedy=say(
                        Setting.CONTROL_SOCKET.given(), " to a folder that exists and is writable for this user"
                    ),
                    path=self.path,
                ) from error
            raise
        return self.listening

    def close(self) -> None:
        """Remove the file, then let the next daemon in; a second call does nothing."""
        if self.listening is not None:
            self.listening.close()
            self.listening = None
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        beside = self.path.with_name(f"{self.path.name}.lock")
        self._lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise self._taken() from error

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
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
        raise self._taken()

    def _bind(self) -> socket.socket:
        aside = self.path.with_name(f"{self.path.name}.new")
        aside.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(aside))
            aside.chmod(MODE)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
            aside.replace(self.path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _taken(self) -> ControlError:
        return ControlError(
            f"another daemon serves {self.path}",
            remedy=say("stop it, or ", Setting.CONTROL_SOCKET.given(), " to another path"),
            path=self.path,
        )
