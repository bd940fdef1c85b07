"""StateLock: one daemon a state directory. The kernel gives the lock back when its holder dies, however it dies.

It is the daemon's alone: ``rebuild``, ``status``, ``doctor`` and ``calibration`` go on beside it; builds have a lock of
their own, see ``plans.store``.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

from typing_extensions import Self

from vajra_edge.errors import SettingsError, StoreError, VajraError
from vajra_edge.wording import Setting, say

log = logging.getLogger(__name__)

_NAME = "daemon.lock"
_SIGKILL_BIT = 1 << 8


class StateLock:
    """The lock of one state directory, held from ``open`` to ``close``, or for a ``with``.

    Args:
        state_dir: made where it is absent.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _NAME
        self._held: int | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Take it. A disk that offers no locks, or takes no file, is logged: the daemon has to serve from it.

        Raises:
            SettingsError: another daemon holds it; the line names its process.
            StoreError: the same, and that one is being killed: the next try may succeed.
        """
        try:
            self._held = self._open()
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = None if self._held is None else _holder(self._held)
            self.close()
            raise self._taken(holder) from None
        except OSError as error:
            log.warning("whether another daemon uses %s is not known: %s", self._path.parent, error.strerror)
            self.close()
            return
        self._sign(self._held)

    def close(self) -> None:
        """Let the next one in; a second call does nothing. The file stays: who waits for it has it open."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _open(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(self._path, flags | os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOSPC):
                raise
            return os.open(self._path, flags | os.O_RDONLY)  # a lock needs no right to write

    def _sign(self, descriptor: int) -> None:
        """Say who holds it; a disk that does not take that only costs the name."""
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            log.debug("%s: %s", self._path, error.strerror)

    def _taken(self, holder: int | None) -> VajraError:
        who = "another daemon" if holder is None else f"another daemon (pid {holder})"
        what = f"{who} uses the state directory {self._path.parent}"
        if holder is not None and is_dying(holder):
            return StoreError(f"{what} and is being killed", remedy="it is tried again")
        remedy = say("stop that one, or ", Setting.STATE_DIR.given(), " to a folder of its own")
        return SettingsError(what, remedy=remedy, pid=holder)


def is_held(state_dir: Path) -> bool:
    """Whether a daemon uses it that nobody is killing; False where that cannot be seen."""
    try:
        descriptor = os.open(state_dir / _NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once by the close below
    except BlockingIOError:
        holder = _holder(descriptor)
        return holder is None or not is_dying(holder)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _holder(descriptor: int) -> int | None:
    """The process that signed the lock."""
    try:
        return int(os.pread(descriptor, 32, 0))
    except (OSError, ValueError):
        return None


def is_dying(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether SIGKILL waits for it, as for a process that a disk or a driver keeps (state D)."""
    try:
        lines = (proc / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return True  # it is gone, and what it had open is being closed
    pending = (int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:")))
    return any(signals & _SIGKILL_BIT for signals in pending)
