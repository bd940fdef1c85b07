"""CrashLog: which plan served when the process died of itself, so that the next start can count it as a strike.

Python's fault handler writes a traceback into this file on SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL, from the signal
handler itself: that tells a crash of the library below from a SIGKILL, a power cut or a reboot, which leave the file
as it was. systemd's watchdog ends a hung daemon with SIGABRT, so a plan that hangs counts too.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Crash:
    """The fingerprint that served, and the first line of what the fault handler wrote."""

    fingerprint: str
    reason: str


class CrashLog:
    """One file: the fingerprint that serves on the first line, and a crash's traceback below it.

    Args:
        path: the file; a folder that cannot be written only costs the count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.FileIO | None = None

    def open(self) -> Crash | None:
        """Read what the last process left, then arm the fault handler.

        Returns:
            Its crash, if it crashed while a plan served.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._file = io.FileIO(descriptor, "r+")
            left = os.pread(descriptor, _READ_BYTES, 0).decode(errors="replace")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"\n")  # nothing serves yet: a crash from now on is charged to nobody
        except OSError as error:
            log.warning("crashes are not counted, %s cannot be used: %s", self._path, error.strerror)
            return None
        faulthandler.enable(self._file)
        fingerprint, _, traceback = left.partition("\n")
        if not fingerprint or not traceback.strip():
            return None
        log.error("the last process crashed while %s served:\n%s", fingerprint[:12], traceback.strip())
        return Crash(fingerprint, traceback.strip().splitlines()[0])

    def serving(self, fingerprint: str) -> None:
        """Remember which plan a crash from now on is charged to."""
        if self._file is not None:
            try:
                os.ftruncate(self._file.fileno(), 0)
                os.write(self._file.fileno(), f"{fingerprint}\n".encode())
            except OSError as error:
                log.warning("a crash would not be counted, %s: %s", self._path, error.strerror)

    def close(self) -> None:
        """A clean end: nothing is left to count; a second call does nothing."""
        if self._file is not None:
            faulthandler.disable()
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)
