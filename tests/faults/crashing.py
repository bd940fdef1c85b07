"""The daemon with a fault put into it: ``python crashing.py FAULT run --config FILE``.

FAULT is ``PLACE:WHAT:FOR``. PLACE: where it strikes, see ``PLACES``; WHAT: see there; FOR: a file whose content is the
beginning of the only fingerprint, or camera, that is meant, looked at each time. An absent file means: not now. One
beside it, ``.struck``, tells that it struck.

Cameras are read in processes of their own, so that a fault of theirs is put into their fork server:
``python crashing.py FAULT DESCRIPTOR``.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STANDS_S = 3600


def segv(*_: Any) -> None:
    ctypes.string_at(0)


def abort(*_: Any) -> None:
    ctypes.CDLL(None).abort()


def hang(*_: Any) -> None:
    time.sleep(STANDS_S)


def hold(*_: Any) -> None:
    """Hang, and keep the interpreter from every other thread."""
    ctypes.PyDLL(None).sleep(STANDS_S)


def native(*_: Any) -> None:
    """SIGSEGV in a thread that is none of Python's, as libraries have them."""
    nowhere, nothing = ctypes.c_void_p(None), ctypes.c_void_p(None)
    ctypes.CDLL(None).pthread_create(ctypes.byref(ctypes.c_ulong()), nothing, nowhere, nothing)
    hang()


WHAT: dict[str, Callable[..., None]] = {"segv": segv, "abort": abort, "hang": hang, "hold": hold, "native": native}


class Fault:
    """Strikes where it is meant to."""

    def __init__(self, what: str, only: str) -> None:
        self._what, self._only = WHAT[what], Path(only)

    def strike(self, whom: str) -> None:
        if self._only.exists() and whom.startswith(self._only.read_text()):
            self._only.with_suffix(".struck").touch()
            self._what()


def load(fault: Fault) -> None:
    """While a plan is loaded in this process."""
    from vajra_edge.daemon import deployment

    opened = deployment.open_detector

    def struck(loadable: Any, **more: Any) -> Any:
        fault.strike(loadable.manifest.fingerprint.digest)
        return opened(loadable, **more)

    deployment.open_detector = struck  # type: ignore[assignment]


def infer(fault: Fault, spared: int = 0) -> None:
    """On a frame of a plan that serves, once it was spared so many after each load."""
    from vajra_edge.daemon import deployment
    from vajra_edge.inference.detector import HostDetector

    opened = deployment.open_detector

    def struck(loadable: Any, **more: Any) -> HostDetector:
        detector = opened(loadable, **more)
        infers, name = detector.runner.infer, loadable.manifest.fingerprint.digest
        batches = itertools.count()

        def at_first(batch: Any) -> Any:
            if next(batches) >= spared:
                fault.strike(name)
            return infers(batch)

        detector.runner.infer = at_first  # type: ignore[method-assign]
        return detector

    deployment.open_detector = struck  # type: ignore[assignment]


def camera(fault: Fault) -> None:
    """In the process that a camera is read in: its fork server is this file."""
    from vajra_edge.capture.children import Children
    from vajra_edge.daemon import cameras

    command = (sys.executable, __file__, sys.argv[1])
    cameras.Children = functools.partial(Children, command)  # type: ignore[misc, assignment]


def serve_forks(fault: Fault) -> None:
    """Be the fork server of cameras that the fault strikes at a read."""
    from vajra_edge.capture import fork_server
    from vajra_edge.capture.sources import registry
    from vajra_edge.capture.sources.base import RawFrame, Source
    from vajra_edge.config.settings import CameraSettings

    def make(settings: CameraSettings) -> Source:
        source = registry.make(settings)
        reads = source.read

        def struck() -> RawFrame | None:
            fault.strike(settings.id)
            return reads()

        source.read = struck  # type: ignore[method-assign]
        return source

    del sys.argv[1]
    fork_server.main(make)


def broker(fault: Fault) -> None:
    """In the thread that speaks to the broker."""
    from vajra_edge.mqtt import publisher

    turns = publisher.Publisher._step

    def struck(self: Any, *more: Any) -> Any:
        fault.strike("")
        return turns(self, *more)

    publisher.Publisher._step = struck


PLACES: dict[str, Callable[[Fault], None]] = {
    "load": load,
    "infer": infer,
    "hundredth": functools.partial(infer, spared=99),
    "camera": camera,
    "broker": broker,
}


def main() -> int:
    place, what, only = sys.argv[1].split(":", 2)
    fault = Fault(what, only)
    if sys.argv[2].isdecimal():
        serve_forks(fault)
        return 0
    from vajra_edge.daemon import aborts

    aborts.block()
    PLACES[place](fault)
    from vajra_edge.__main__ import main as run

    return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
