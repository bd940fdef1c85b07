"""``run``: the daemon in the foreground; systemd, or a shell, is in front of it."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from vajra_edge.config.settings import load
from vajra_edge.daemon import aborts, events, refused_start, systemd
from vajra_edge.daemon.app import assemble
from vajra_edge.daemon.control.callers import ReloadAsked
from vajra_edge.daemon.state_lock import StateLock
from vajra_edge.daemon.supervisor import Supervisor
from vajra_edge.errors import SettingsError
from vajra_edge.privileges import become_service_user


def run(config: Path, max_frames: int | None) -> int:
    """Serve until SIGTERM, SIGINT, or ``max_frames`` detection messages; returns the exit code.

    Raises:
        SettingsError: the settings are invalid; exit code 78. The broker was told, see ``refused_start``. Or another
            daemon uses their state directory.
        SettingsUnread: likewise told, but exit code 1: systemd tries again.
        StoreError: likewise, and that daemon is being killed.
        ControlError: another daemon runs on the same control socket.
    """
    path = config.absolute()
    try:
        settings = load(path)
    except SettingsError as error:
        refused_start.tell(path, error)
        raise
    become_service_user(settings.store.state_dir)
    systemd.set_up(settings.service.log_level)
    with StateLock(settings.store.state_dir.absolute()):
        parts = assemble(settings, max_frames)
        with signals(parts.inbox.put):
            return Supervisor(parts, settings, path).run()


def leave(code: int) -> NoReturn:
    """End the process here, before the interpreter and the libraries take themselves down.

    A thread that came back from a library into an interpreter that is going down would abort the process. And over a
    power-off in order an emulated board once counted a death by an abort in a library's own thread.
    """
    known = {threading.current_thread(), threading.main_thread()}
    if all(thread in known or thread.name == aborts.THREAD for thread in threading.enumerate()):
        atexit._run_exitfuncs()  # noqa: SLF001  temporary folders; not where a thread is left that could hold it up
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def signals(post: Callable[[events.Stop | ReloadAsked], None]) -> Iterator[None]:
    """SIGTERM and SIGINT ask to stop, SIGHUP to reload; the handlers only enqueue.

    Once the daemon has stopped they are ignored: a second SIGTERM while Python takes itself down must not turn a clean
    end into a death by signal.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        post(events.Stop())

    def reload(_number: int, _frame: FrameType | None) -> None:
        post(ReloadAsked())

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: reload}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    for number in handlers:
        signal.signal(number, signal.SIG_IGN)
