"""Journal: log lines with the priority that journald reads from ``<N>`` in front of them (sd-daemon(3))."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


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
    """Ours, so that it can be told apart from others' handlers."""
