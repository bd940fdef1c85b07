"""systemd: what it is told, through systemd-python, a socket of our own, or nobody (see sd_notify(3)); journal lines.

READY=1 is sent as soon as the supervisor runs, long before a first build ends, so that a start never times out and the
watchdog is armed from the beginning. ``Type=notify-reload`` needs systemd 253 and JetPack 6 has 249, so a reload says
RELOADING=1 and READY=1 itself.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TextIO

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7

LINES_KEPT = 1000
"""Lines that wait for a journal that stands still; some hundred kilobytes."""

FLUSH_S = 1.0
"""Longest wait of the process's end for them."""


class PriorityFormatter(logging.Formatter):
    """Every line of a record gets its priority, a traceback's lines too."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one or more prefixed lines; journald adds the time itself."""
        priority = next((value for level, value in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def to_journal(environ: Mapping[str, str] = os.environ, descriptor: int = 2) -> bool:
    """Whether ``descriptor`` (stderr) still is the stream that systemd connected to the journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def set_up(level: str) -> None:
    """Log to stderr at ``level`` (debug, info, warning, error); a second call changes the level alone."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Stderr) for handler in root.handlers):
        handler = _Stderr(sys.stderr)
        plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        handler.setFormatter(PriorityFormatter("%(name)s: %(message)s") if to_journal() else plain)
        root.addHandler(handler)
    root.setLevel(level.upper())


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # generic in typeshed alone, not at run time in 3.10
    """Ours, so that it can be told apart from others' handlers; a thread of its own writes.

    A journal whose disk hangs, or a terminal that was stopped, takes no more lines: whoever logs must not wait for it,
    least of all the thread that feeds the watchdog. What does not fit is counted, and said once lines are taken again.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: queue.Queue[str] = queue.Queue(LINES_KEPT)
        self._lost = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format at once, for what it names may change, and leave the line."""
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._lost += 1
        except Exception:  # noqa: BLE001  as logging does: a line that cannot be formatted is its writer's bug
            self.handleError(record)

    def flush(self) -> None:
        """Wait until the lines are written, but not for long."""
        until_s = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < until_s:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with suppress(OSError, ValueError):  # it was closed: there is nowhere left to say so
                lost, self._lost = self._lost, 0
                told = f"{line}\n" if not lost else f"{line}\n{lost} lines were lost: nobody took them\n"
                self.stream.write(told)
                self.stream.flush()
            self._lines.task_done()


log = logging.getLogger(__name__)

_STATUS_CHARS = 500


class Notify:
    """The words of the protocol over any transport.

    Args:
        send: delivers one datagram; must not raise.
        watchdog_s: systemd expects a ping within this time; None: it does not watch.
    """

    def __init__(self, send: Callable[[str], None], watchdog_s: float | None = None) -> None:
        self._send = send
        self._status = ""
        self.watchdog_s = watchdog_s

    def ready(self, status: str) -> None:
        """The daemon runs; also ends a reload."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; the same line twice is sent once."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """Every loop is alive."""
        self._send("WATCHDOG=1")

    def patience(self, seconds: float) -> None:
        """Expect a ping within this time from now on, whatever the unit says; kept until the process ends."""
        self._send(f"WATCHDOG_USEC={int(seconds * 1e6)}")

    def reloading(self, now_s: float | None = None) -> None:
        """Settings are being read again; ``ready`` must follow."""
        now_us = int((time.monotonic() if now_s is None else now_s) * 1e6)
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def extend(self, seconds: float) -> None:
        """Ask for this much more time, from now, for the start, reload or stop under way."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")


def connect(environ: Mapping[str, str] = os.environ) -> Notify:
    """Systemd where it started this process, else nobody."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return Notify(_nobody)
    watchdog_s = _watchdog_s(environ)
    try:
        from systemd import daemon  # not ``import systemd``: our top-level folder of that name would answer
    except ImportError:
        return Notify(_Socket(address), watchdog_s)
    return Notify(_Library(daemon.notify), watchdog_s)


class _Socket:
    """sd_notify in pure Python: one datagram to the socket that systemd named, ``@`` for an abstract one."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def __call__(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", text.partition("\n")[0], error)


class _Library:
    """sd_notify of systemd-python."""

    def __init__(self, notify: Callable[[str], object]) -> None:
        self._notify = notify

    def __call__(self, text: str) -> None:
        try:
            self._notify(text)
        except OSError as error:
            log.warning("systemd was not told %s: %s", text.partition("\n")[0], error)


def _nobody(_: str) -> None:
    """No systemd."""


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, if it is meant for this process and not for a parent's (sd_watchdog_enabled(3))."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


def _line(text: str) -> str:
    return " ".join(text.split())[:_STATUS_CHARS]
