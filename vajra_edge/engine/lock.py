"""The build lock: one build at a time on a device, whoever starts it; the kernel drops it with its holder."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vajra_edge import durable
from vajra_edge.errors import StoreError

_POLL_S = 0.1


@contextmanager
def build_lock(path: Path, purpose: str, *, wait_s: float, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock for the body.

    Args:
        path: the lock file; created if absent, never deleted.
        purpose: who holds it, for others to read: ``rebuild`` or ``daemon``.
        wait_s: longest wait; 0 tries once.
        waiting: told at every look while it waits who holds the lock; may raise to give up.

    Raises:
        StoreError: still held after ``wait_s``, naming the holder; or the file cannot be opened or written.
    """
    with durable.reported(path.parent, "written"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, path, wait_s, waiting)
        with durable.reported(path.parent, "written"):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "purpose": purpose}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait_s: float, waiting: Callable[[str], None]) -> None:
    until_s = time.monotonic() + wait_s
    while not _try(descriptor):
        if time.monotonic() >= until_s:
            raise StoreError(
                f"another build holds {path}: {_holder(descriptor)}", remedy="wait for it or cancel it", path=path
            )
        waiting(f"waiting for another build: {_holder(descriptor)}")
        time.sleep(_POLL_S)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Who wrote the lock file last, which is the holder unless it was taken this instant."""
    try:
        told = json.loads(os.pread(descriptor, 4096, 0))
        return f"{told['purpose']} (pid {told['pid']})"
    except (ValueError, KeyError, TypeError):
        return "its holder has not said who it is"
