"""History: which plans failed on this device, why, when, and what follows; nothing else remembers that.

What decides after a restart is kept in two small files below the state directory: ``strikes.json`` holds the times of
crashes by plan, ``rejected.json`` why plans are not tried again. Damaged plans lie in the store's quarantine, which is
told here. Builds, loads and images that failed are remembered until the process ends: the next one tries them anew.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from vajra_edge import durable

STRIKES = 3
STRIKES_WITHIN_S = 600.0
"""A plan that took the process down this often within this time is rejected, and the one before serves again."""

TIMES_KEPT = 16
"""Of one plan and cause. Three crashes decide; more are kept for people."""

PLANS_KEPT = 32
"""Of one cause. Older plans have long been pruned; images that go on changing make another plan with each build."""

_DATE = " (%Y-%m-%d %H:%M:%S UTC)"
"""At the end of a rejection's reason, in its file too."""

_DATE_CHARS = len(datetime.fromtimestamp(0, timezone.utc).strftime(_DATE))
_LOGGER = logging.getLogger(__name__)


class Cause(str, Enum):
    """What failed: the process while the plan served, its service, its files, its build, its loading, its images."""

    CRASH = "crash"
    SERVICE = "service"
    DAMAGE = "damage"
    BUILD = "build"
    LOAD = "load"
    IMAGES = "images"


class Follows(str, Enum):
    """What comes of a failure: BLOCKED ends with other settings, weights or images, or when somebody insists."""

    RETRY = "tried again"
    REBUILD = "built anew"
    BLOCKED = "blocked until a change"
    MENDED = "serves since"
    DROPPED = "not wanted any more"


@dataclass(frozen=True)
class Failure:
    """What one plan failed with, once or several times.

    Attributes:
        fingerprint: of the plan.
        cause: what failed.
        reason: the newest one, in one line.
        follows: what comes of it.
        times_s: Unix times, the newest last; empty where an earlier release did not note them.
        retry_at_s: Unix time of the next try, where that has a time.
    """

    fingerprint: str
    cause: Cause
    reason: str
    follows: Follows
    times_s: tuple[float, ...] = ()
    retry_at_s: float | None = None


class History:
    """All failures. Callable from any thread; whoever changes a file waits for the disk, and nobody for them.

    The daemon is the one that writes: one history of it serves all its parts.

    Args:
        root: the state directory; making a history touches no file.
        clock: Unix time, since it must outlive the process and the boot.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._strikes, self._rejected = root / "strikes.json", root / "rejected.json"
        self._clock = clock
        self._lock = threading.RLock()
        self._known: dict[tuple[str, Cause], Failure] | None = None

    def failures(self) -> tuple[Failure, ...]:
        """Everything that is remembered, the newest last."""
        with self._lock:
            return tuple(sorted(self._all().values(), key=lambda one: one.times_s[-1:]))

    def note(
        self, fingerprint: str, cause: Cause, reason: str, follows: Follows, retry_in_s: float | None = None
    ) -> None:
        """A build, a load or its images failed; remembered until the process ends."""
        now_s = self._clock()
        retry_at_s = None if retry_in_s is None else now_s + retry_in_s
        with self._lock:
            self._put(Failure(fingerprint, cause, reason, follows, (now_s,), retry_at_s))

    def served(self, fingerprint: str) -> None:
        """The plan was built, loaded, and serves. Crashes are counted on, and a rejection stays."""
        with self._lock:
            for key, one in self._all().items():
                if one.fingerprint == fingerprint and one.cause in {Cause.BUILD, Cause.LOAD, Cause.IMAGES}:
                    self._all()[key] = replace(one, follows=Follows.MENDED, retry_at_s=None)

    def wanted(self, fingerprint: str) -> None:
        """Another plan is pursued from now on: the others are not tried again."""
        with self._lock:
            for key, one in self._all().items():
                awaited = one.cause in {Cause.BUILD, Cause.LOAD} and one.follows in {Follows.RETRY, Follows.REBUILD}
                if one.fingerprint != fingerprint and awaited:
                    self._all()[key] = replace(one, follows=Follows.DROPPED, retry_at_s=None)

    def put_aside(self, damaged: Iterable[Failure]) -> None:
        """What lies in the store's quarantine now."""
        with self._lock:
            others = {key: one for key, one in self._all().items() if one.cause is not Cause.DAMAGE}
            self._known = {**others, **{(one.fingerprint, one.cause): one for one in damaged}}

    def doubt(self, fingerprint: str) -> str:
        """Why the images of this plan are not tried again by themselves; empty where they may be."""
        with self._lock:
            known = self._all().get((fingerprint, Cause.IMAGES))
            return known.reason if known and known.follows is Follows.BLOCKED else ""

    def trust(self) -> None:
        """Somebody insists, or the images are others: those that failed are tried again."""
        with self._lock:
            self._known = {key: one for key, one in self._all().items() if one.cause is not Cause.IMAGES}

    def crashed(self, fingerprint: str, reason: str = "it took the process down") -> None:
        """The plan took the process down; remembered durably.

        Raises:
            StoreError: the file cannot be written; it counts until the process ends.
        """
        with self._lock:
            self._put(Failure(fingerprint, Cause.CRASH, reason, Follows.RETRY, (self._clock(),)))
            plain = {one.fingerprint: list(one.times_s) for one in self._of(Cause.CRASH)}
        _write(self._strikes, plain)

    def crashes(self, fingerprint: str, within_s: float = STRIKES_WITHIN_S) -> int:
        """How often in the last ``within_s`` seconds; those that a clock set back left in the future do not count."""
        now_s = self._clock()
        with self._lock:
            known = self._all().get((fingerprint, Cause.CRASH))
            return sum(now_s - within_s <= at_s <= now_s for at_s in known.times_s) if known else 0

    def rejection(self, fingerprint: str) -> str:
        """Why a plan is not tried again by itself; empty where it may be. Too many crashes reject it.

        Raises:
            StoreError: crashes reject it now, and the file cannot be written.
        """
        with self._lock:
            known, struck = self._all().get((fingerprint, Cause.SERVICE)), self.crashes(fingerprint)
        if known is not None or struck < STRIKES:
            return known.reason if known else ""
        reason = f"it crashed {struck} times in {STRIKES_WITHIN_S / 60:.0f} minutes"
        self._reject(fingerprint, reason)
        return reason

    def reject(self, fingerprint: str, reason: str) -> None:
        """The plan failed in service: it is not tried again by itself, durably.

        Raises:
            StoreError: the file cannot be written; it is rejected until the process ends.
        """
        at = datetime.fromtimestamp(self._clock(), timezone.utc)
        self._reject(fingerprint, f"{reason}{at.strftime(_DATE)}")

    def forgive(self, fingerprint: str) -> None:
        """Somebody insists: a rejected plan may be tried again. Its crashes still count.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            forgiven = self._all().pop((fingerprint, Cause.SERVICE), None)
        if forgiven is not None:
            self._write_rejected()

    def _reject(self, fingerprint: str, reason: str) -> None:
        with self._lock:
            self._put(Failure(fingerprint, Cause.SERVICE, reason, Follows.BLOCKED, (self._clock(),)))
        self._write_rejected()

    def _put(self, failure: Failure) -> None:
        """Remember it as the newest of its cause, with the times of what the same plan failed with before."""
        key = (failure.fingerprint, failure.cause)
        before = self._all().pop(key, None)
        times_s = (*(before.times_s if before else ()), *failure.times_s)[-TIMES_KEPT:]
        self._all()[key] = replace(failure, times_s=times_s)
        for old in self._of(failure.cause)[:-PLANS_KEPT]:
            del self._all()[old.fingerprint, old.cause]

    def _of(self, cause: Cause) -> list[Failure]:
        return [one for one in self._all().values() if one.cause is cause]

    def _all(self) -> dict[tuple[str, Cause], Failure]:
        if self._known is None:
            found = (*_crashes(self._strikes), *_rejections(self._rejected))
            self._known = {(one.fingerprint, one.cause): one for one in found}
        return self._known

    def _write_rejected(self) -> None:
        with self._lock:
            plain = {one.fingerprint: one.reason for one in self._of(Cause.SERVICE)}
        _write(self._rejected, plain)


def _write(path: Path, plain: object) -> None:
    with durable.reported(path.parent, "written"):
        durable.make_folder(path.parent)
        durable.replace(path, json.dumps(plain).encode(), path.parent)


def _crashes(path: Path) -> list[Failure]:
    def of(name: str, times_s: Any) -> Failure:
        crashed = tuple(float(at_s) for at_s in times_s)
        return Failure(name, Cause.CRASH, "it took the process down", Follows.RETRY, crashed)

    return _read(path, of)


def _rejections(path: Path) -> list[Failure]:
    return _read(path, lambda name, reason: Failure(name, Cause.SERVICE, str(reason), Follows.BLOCKED, _dated(reason)))


def _read(path: Path, of: Callable[[str, Any], Failure]) -> list[Failure]:
    """What a file says; a damaged one is forgotten, for it must never keep the service from starting."""
    try:
        return [of(str(name), value) for name, value in json.loads(path.read_bytes()).items()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _LOGGER.warning("%s cannot be read and is forgotten: %s", path, error)
        return []


def _dated(reason: object) -> tuple[float, ...]:
    """When a rejection was written, where its reason says so."""
    try:
        at = datetime.strptime(str(reason)[-_DATE_CHARS:], _DATE).replace(tzinfo=timezone.utc)
    except ValueError:
        return ()
    return (at.timestamp(),)
