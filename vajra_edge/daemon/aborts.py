"""Aborts: tells a SIGABRT that somebody sent to the process from one that a library gave itself.

systemd's watchdog ends a daemon that hangs with SIGABRT. The kernel hands a signal that is meant for the whole process
to any thread that does not block it: after the process stood still, be it the one that was in the engine's library. A
library's own ``abort()`` goes to the thread that called it, blocked or not. So all threads block SIGABRT but one, which
does nothing: a traceback that names it was asked for from outside.
"""

from __future__ import annotations

import signal
import threading

THREAD = "aborts"


def block() -> None:
    """Keep what is meant for the process from this thread and all that it starts; before libraries start theirs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})


def unblock() -> None:
    """For the main thread of a child, which inherits what its parent blocks."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGABRT})


def start() -> None:
    """Begin to take them, in a thread that lasts as long as the process."""
    threading.Thread(target=_take_aborts, name=THREAD, daemon=True).start()


def _take_aborts() -> None:
    """Named in the fault handler's traceback, see ``death``."""
    unblock()
    threading.Event().wait()
