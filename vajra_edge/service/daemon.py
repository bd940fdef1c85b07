"""Daemon: the process around the supervisor: settings, log, signals, exit code. The same with and without systemd."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

from vajra_edge import __version__, settings
from vajra_edge.service import journal
from vajra_edge.service.events import Stop
from vajra_edge.service.supervisor import ReloadAsked, Supervisor
from vajra_edge.service.wiring import assemble

log = logging.getLogger(__name__)


def run(path: Path | None, max_frames: int | None = None, overrides: Mapping[str, Any] | None = None) -> int:
    """Run until SIGTERM, SIGINT, or the end of what was asked for. Called on the main thread.

    Args:
        path: the settings file; None: environment and ``overrides`` alone.
        max_frames: end after this many detection messages; None: never.
        overrides: values over the file's, as nested dicts.

    Returns:
        The exit code: 0 after a clean stop, 1 where the process had to go.

    Raises:
        SettingsError: the settings are invalid (exit code 78).
        ControlError: another daemon runs with these settings.
    """
    chosen = settings.load(path, overrides)
    journal.set_up(chosen.service.log_level)
    log.info("vajra-edge %s, settings %s", __version__, path or "from the environment")
    parts = assemble(chosen, max_frames)
    with _signals(parts.inbox):
        return Supervisor(parts, chosen, path, overrides).run()


@contextmanager
def _signals(inbox: SimpleQueue[object]) -> Iterator[None]:
    """SIGTERM and SIGINT stop, SIGHUP reloads; ``SimpleQueue.put`` may be called from a signal handler."""

    def stop(number: int, _: FrameType | None) -> None:
        del number
        inbox.put(Stop())

    def reload(number: int, _: FrameType | None) -> None:
        del number
        inbox.put(ReloadAsked(look=True))

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
