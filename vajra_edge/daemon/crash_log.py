"""CrashLog: what the process was at when it died of itself, so that the next start can tell who is guilty.

One small file: a marker, and below it what Python's fault handler writes on SIGSEGV, SIGABRT, SIGBUS, SIGFPE and SIGILL
from the signal handler itself. The marker is written when a plan begins to load and when one begins to serve, and when
a loop falls silent: a few hundred bytes into the page cache, which outlives the process. Nothing waits for the disk:
after a power cut, whatever the file says is of another boot and charged to nobody.

While a plan loads, a library of it can keep Python's lock for good: then nobody can note anything. So the fault handler
has a thread of its own, which needs no lock, write a traceback every few seconds in which nothing of Python moved. It
writes to a file beside the other: a process that stood still as a whole is often aborted as it goes on, and two
tracebacks that are written at once into one file cannot be read.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vajra_edge import clock, state_file
from vajra_edge.clock import Moment
from vajra_edge.daemon import build_process

log = logging.getLogger(__name__)

MARKER_BYTES = 2048
"""Room of the marker, so that it is replaced by one write; what the fault handler writes begins behind it."""

HELD_S = 5.0
"""Of no sign of life while a plan loads, until the fault handler's thread writes: two times before the watchdog ends
the process, which is 15 s after the last sign of life at the earliest.
"""

HELD = ".held"
"""Ends the name of the file that this thread writes to."""

_ALARM = re.compile(rb"^Timeout \(", re.MULTILINE)
_REARM_S = 1.0
_READ_BYTES = 256 * 1024
_NAMES_CHARS = 200


@dataclass(frozen=True)
class Marker:
    """What the process is at.

    Attributes:
        at: since when.
        pid: of the process.
        serving: fingerprint of the plan that takes the frames, or is about to.
        loading: fingerprint of the plan that is being loaded or warmed up.
        late: names of the loops that are silent for too long.
        killed: processes that the kernel killed for want of memory since the boot; None where it does not say.
        ended: the process ended in order.
    """

    at: Moment
    pid: int
    serving: str | None = None
    loading: str | None = None
    late: tuple[str, ...] = ()
    killed: int | None = None
    ended: bool = False

    def to_bytes(self) -> bytes:
        """``MARKER_BYTES``, the last of them a newline."""
        names = ",".join(self.late)[:_NAMES_CHARS].split(",") if self.late else []
        plain = {**asdict(self), "at": self.at.to_json(), "late": names}
        return json.dumps(plain).encode()[: MARKER_BYTES - 1].ljust(MARKER_BYTES - 1) + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Marker | None:
        """The inverse; None for anything else."""
        try:
            return cls._of(state_file.parse(content))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def _of(cls, plain: Mapping[str, Any]) -> Marker:
        killed = plain["killed"]
        return cls(
            at=Moment.from_json(plain["at"]),
            pid=int(plain["pid"]),
            serving=_name(plain["serving"]),
            loading=_name(plain["loading"]),
            late=tuple(str(name) for name in plain["late"]),
            killed=None if killed is None else int(killed),
            ended=plain["ended"] is True,
        )


def _own(path: Path, more_flags: int = 0) -> int:
    """Open one of the files; what is none is put aside: no plan could be charged with a crash while it lies there."""
    try:
        return state_file.to_write(path, more_flags)
    except state_file.NotAFile as error:
        log.warning("%s is put aside, and begun anew: %s", path, error.strerror)
        path.replace(f"{path}.damaged")
        return state_file.to_write(path, more_flags)


def _name(plain: object) -> str | None:
    return None if plain is None else str(plain)


@dataclass(frozen=True)
class Left:
    """What the process before this one left.

    Attributes:
        marker: what it was at.
        dump: what the fault handler wrote; empty where no signal of its own ended the process.
        now: this start.
        killed: as of the marker, now.
        alarms: how often nothing of Python moved for ``HELD_S`` while the last plan was loaded.
    """

    marker: Marker
    dump: str
    now: Moment
    killed: int | None
    alarms: int = 0


class CrashLog:
    """The files, from both ends. Callable from any thread.

    Args:
        path: the file, and ``HELD`` beside it; a folder that cannot be written only costs what would have been known.
        now: this moment.
    """

    def __init__(self, path: Path, now: Callable[[], Moment] = clock.now) -> None:
        self._path, self._now = path, now
        self._lock = threading.Lock()
        self._dump: io.FileIO | None = None
        self._held: io.FileIO | None = None
        self._file: int | None = None
        self._marker: Marker | None = None
        self._arming = threading.Lock()  # never held while the disk is waited for
        self._armed_s: float | None = None  # None: no plan loads

    def open(self) -> Left | None:
        """Read what the last process left, then arm the fault handler; None where it left nothing."""
        try:
            left = self._open()
        except OSError as error:
            log.warning("how this process ends will not be known, %s cannot be used: %s", self._path, error.strerror)
            with contextlib.suppress(ValueError, AttributeError, OSError):  # stderr may be anything by now
                faulthandler.enable(sys.stderr)
            return None
        return left

    def loading(self, fingerprint: str) -> None:
        """A plan begins to load."""
        self._change(loading=fingerprint)
        with self._arming:
            self._arm()

    def loaded(self) -> None:
        """It is loaded and warm, or is not to be had."""
        self._disarm()
        self._change(loading=None)
        with self._lock, contextlib.suppress(OSError):
            if self._held is not None:
                self._held.truncate(0)

    def serving(self, fingerprint: str) -> None:
        """This plan is about to take the frames. Too early it has one charge too many; too late the old one has it."""
        self._change(serving=fingerprint)

    def late(self, names: tuple[str, ...]) -> None:
        """These loops are silent for too long, and no others."""
        self._change(late=names)

    def moves(self) -> None:
        """Some loop gives a sign of life, so that no library holds all of Python. Cheap, and never waits."""
        if self._armed_s is None or time.monotonic() - self._armed_s < _REARM_S or not self._arming.acquire(False):
            return
        try:
            if self._armed_s is not None:
                self._arm()
        finally:
            self._arming.release()

    def close(self) -> None:
        """An end in order; a second call does nothing."""
        self._disarm()
        with self._lock:
            file, dump, held = self._file, self._dump, self._held
            self._file = self._dump = self._held = None
            if file is None or dump is None or held is None or self._marker is None:
                return
            faulthandler.disable()
            with contextlib.suppress(OSError):  # the disk may be read-only by now, and nothing was dumped
                os.pwrite(file, replace(self._marker, ended=True).to_bytes(), 0)
            dump.close()
            held.close()
            os.close(file)

    def _open(self) -> Left | None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = _own(self._path)
        try:
            content = os.pread(file, _READ_BYTES, 0)
            held = io.FileIO(_own(Path(f"{self._path}{HELD}"), os.O_APPEND), "a+")
        except OSError:
            os.close(file)
            raise
        try:
            alarms = len(_ALARM.findall(os.pread(held.fileno(), _READ_BYTES, 0)))
            held.truncate(0)
            killed = build_process.killed_for_memory()
            self._marker = Marker(self._now(), os.getpid(), killed=killed)
            os.pwrite(file, self._marker.to_bytes(), 0)
            os.ftruncate(file, MARKER_BYTES)
            dump = io.FileIO(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), "a")
        except OSError:
            held.close()
            os.close(file)
            raise
        self._file, self._dump, self._held = file, dump, held
        faulthandler.enable(dump)
        marker = Marker.from_bytes(content[:MARKER_BYTES])
        if marker is None:
            return None
        dumped = content[MARKER_BYTES:].decode(errors="replace").strip()
        return Left(marker, dumped, self._marker.at, killed, alarms)

    def _arm(self) -> None:
        if (held := self._held) is not None:
            self._armed_s = time.monotonic()
            faulthandler.dump_traceback_later(HELD_S, repeat=True, file=held)

    def _disarm(self) -> None:
        with self._arming:
            if self._armed_s is not None:
                self._armed_s = None
                faulthandler.cancel_dump_traceback_later()

    def _change(self, **fields: Any) -> None:
        with self._lock:
            if self._file is None or self._marker is None:
                return
            changed = replace(self._marker, at=self._now(), **fields)
            if replace(changed, at=self._marker.at) == self._marker:
                return
            self._marker = changed
            try:
                os.pwrite(self._file, changed.to_bytes(), 0)
            except OSError as error:
                log.warning("what the daemon is at is not noted, %s: %s", self._path, error.strerror)
