"""History: which plans failed on this device, why, when, and what follows; nothing else remembers that.

What decides after a restart is kept in one small file below the state directory, ``charges.json``: what each plan did
to the process, see ``charges``. Damaged plans lie in the store's quarantine, which is told here. Builds, loads and
images that failed are remembered until the process ends: the next one tries them anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from vajra_edge import clock, durable, state_file
from vajra_edge.clock import Moment
from vajra_edge.errors import StoreError
from vajra_edge.plans import charges
from vajra_edge.plans.charges import Charge, Charged, Hold
from vajra_edge.plans.signing import make_key, read_key, seal, unseal

TIMES_KEPT = 16
"""Of one plan and cause; for people."""

PLANS_KEPT = 32
"""Of one cause. Older plans have long been pruned; images that go on changing make another plan with each build."""

_KIND = "charges"

_DATE = " (%Y-%m-%d %H:%M:%S UTC)"
"""At the end of a rejection's reason in 0.1.0's file."""

_DATE_CHARS = len(datetime.fromtimestamp(0, timezone.utc).strftime(_DATE))
_CRASHED_0_1_0 = "it crashed "
_LOGGER = logging.getLogger(__name__)


class Cause(str, Enum):
    """What failed: the process, its trial by itself, its service, its files, its build, its loading, its images."""

    CRASH = "crash"
    TRIAL = "trial"
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
        unsure: a time of these is by a clock that was not known to be right.
    """

    fingerprint: str
    cause: Cause
    reason: str
    follows: Follows
    times_s: tuple[float, ...] = ()
    retry_at_s: float | None = None
    unsure: bool = False


_CAUSES = {
    Charged.LOAD: Cause.CRASH,
    Charged.CRASH: Cause.CRASH,
    Charged.BROKEN: Cause.TRIAL,
    Charged.UNFIT: Cause.SERVICE,
}


class History:
    """All failures. Callable from any thread; whoever changes a file waits for the disk, and nobody for them.

    The daemon is the one that writes: one history of it serves all its parts.

    Args:
        root: the state directory; making a history touches no file.
        now: this moment, to be compared over restarts and boots.
    """

    def __init__(self, root: Path, now: Callable[[], Moment] = clock.now) -> None:
        self._path, self._before = root / "charges.json", _Before(root)
        self._now = now
        self._lock = threading.RLock()
        self._known: dict[tuple[str, Cause], Failure] = {}
        self._charged: dict[str, tuple[Charge, ...]] | None = None

    def failures(self) -> tuple[Failure, ...]:
        """Everything that is remembered, the newest last."""
        with self._lock:
            charged = [one for name, told in self._charges().items() for one in _failures_of(name, told)]
            return tuple(sorted((*self._known.values(), *charged), key=lambda one: one.times_s[-1:]))

    def note(
        self, fingerprint: str, cause: Cause, reason: str, follows: Follows, retry_in_s: float | None = None
    ) -> None:
        """A build, a load or its images failed; remembered until the process ends."""
        now = self._now()
        retry_at_s = None if retry_in_s is None else now.unix_s + retry_in_s
        with self._lock:
            times_s, unsure = (now.unix_s,), not now.synchronised
            self._put(Failure(fingerprint, cause, reason, follows, times_s, retry_at_s, unsure))

    def served(self, fingerprint: str) -> None:
        """The plan was built, loaded, and serves. What it is charged with stays."""
        with self._lock:
            for key, one in self._known.items():
                if one.fingerprint == fingerprint and one.cause in {Cause.BUILD, Cause.LOAD, Cause.IMAGES}:
                    self._known[key] = replace(one, follows=Follows.MENDED, retry_at_s=None)

    def wanted(self, fingerprint: str) -> None:
        """Another plan is pursued from now on: the others are not tried again."""
        with self._lock:
            for key, one in self._known.items():
                awaited = one.cause in {Cause.BUILD, Cause.LOAD} and one.follows in {Follows.RETRY, Follows.REBUILD}
                if one.fingerprint != fingerprint and awaited:
                    self._known[key] = replace(one, follows=Follows.DROPPED, retry_at_s=None)

    def put_aside(self, damaged: Iterable[Failure]) -> None:
        """What lies in the store's quarantine now."""
        with self._lock:
            others = {key: one for key, one in self._known.items() if one.cause is not Cause.DAMAGE}
            self._known = {**others, **{(one.fingerprint, one.cause): one for one in damaged}}

    def doubt(self, fingerprint: str) -> str:
        """Why the images of this plan are not tried again by themselves; empty where they may be."""
        with self._lock:
            known = self._known.get((fingerprint, Cause.IMAGES))
            return known.reason if known and known.follows is Follows.BLOCKED else ""

    def trust(self) -> None:
        """Somebody insists, or the images are others: those that failed are tried again."""
        with self._lock:
            self._known = {key: one for key, one in self._known.items() if one.cause is not Cause.IMAGES}

    def charge(self, fingerprint: str, charged: Charged, reason: str, at: Moment | None = None) -> None:
        """The plan failed in a way that outlives the process; remembered durably.

        Args:
            fingerprint: of the plan.
            charged: with what.
            reason: in one line.
            at: when; None: now.

        Raises:
            StoreError: the file cannot be written; it counts until the process ends.
        """
        with self._lock:
            known = self._charges()
            before = known.pop(fingerprint, ())
            known[fingerprint] = (*before, Charge(charged, reason, at or self._now()))[-charges.KEPT :]
            for old in tuple(known)[:-PLANS_KEPT]:
                del known[old]
        self._write()

    def hold(self, fingerprint: str) -> Hold | None:
        """Why the plan is in doubt; None where it is not."""
        with self._lock:
            return charges.hold_of(self._charges().get(fingerprint, ()))

    def left_s(self, fingerprint: str, *, alone: bool = False) -> float:
        """Until the plan may be tried again; 0 where nothing keeps it. ``alone``: nothing else can serve."""
        hold = self.hold(fingerprint)
        return 0.0 if hold is None else hold.left_s(self._now(), alone=alone)

    def is_broken(self, fingerprint: str) -> bool:
        """Whether it was proved broken before."""
        with self._lock:
            return any(one.charged is Charged.BROKEN for one in self._charges().get(fingerprint, ()))

    def loads(self, fingerprint: str) -> None:
        """The plan was loaded and serves well: what it did in its loading is not held against it any more.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            told = self._charges().get(fingerprint, ())
            kept = tuple(one for one in told if one.charged not in (Charged.LOAD, Charged.BROKEN))
            if kept == told:
                return
            self._charges().update({fingerprint: kept} if kept else {})
            if not kept:
                del self._charges()[fingerprint]
        self._write()

    def acquit(self, fingerprint: str) -> None:
        """The plan served long and well, or somebody insists: nothing is held against it any more.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            gone = self._charges().pop(fingerprint, None)
        if gone is not None:
            self._write()

    def _put(self, failure: Failure) -> None:
        """Remember it as the newest of its cause, with the times of what the same plan failed with before."""
        key = (failure.fingerprint, failure.cause)
        before = self._known.pop(key, None)
        times_s = (*(before.times_s if before else ()), *failure.times_s)[-TIMES_KEPT:]
        unsure = failure.unsure or (before is not None and before.unsure)
        self._known[key] = replace(failure, times_s=times_s, unsure=unsure)
        same = [one for one in self._known.values() if one.cause is failure.cause]
        for old in same[:-PLANS_KEPT]:
            del self._known[old.fingerprint, old.cause]

    def _charges(self) -> dict[str, tuple[Charge, ...]]:
        if self._charged is None:
            own = self._path.exists()
            self._charged = _read(self._path, _charges_of, self._opened) if own else self._before.charges()
        return self._charged

    def _opened(self, content: bytes) -> Any:
        return unseal(_KIND, content, read_key(self._path.parent / "store.key"))

    def _write(self) -> None:
        with self._lock:
            plain = {name: [one.to_json() for one in told] for name, told in self._charges().items()}
        root = self._path.parent
        with durable.reported(root, "written"):
            durable.make_folder(root)
            durable.replace(self._path, seal(_KIND, plain, make_key(root / "store.key", root)), root)
            self._before.delete()


class _Before:
    """What 0.1.0 left: times of crashes by plan, and why plans were rejected.

    It charged whichever plan was served when anything in the process crashed, and compared wall clocks of different
    boots. So its crashes are told to people and count for nothing; only what it saw in service is a charge.
    """

    def __init__(self, root: Path) -> None:
        self._strikes, self._rejected = root / "strikes.json", root / "rejected.json"

    def charges(self) -> dict[str, tuple[Charge, ...]]:
        crashed, rejected = _read(self._strikes, _crashes_0_1_0), _read(self._rejected, _rejection_0_1_0)
        found = {name: (*crashed.get(name, ()), *rejected.get(name, ())) for name in (*crashed, *rejected)}
        return {name: told for name, told in found.items() if told}

    def delete(self) -> None:
        for path in (self._strikes, self._rejected):
            path.unlink(missing_ok=True)


def _failures_of(fingerprint: str, told: Iterable[Charge]) -> list[Failure]:
    """One a cause, with all its times."""
    by_cause: dict[Cause, Failure] = {}
    for charge in told:
        cause = _CAUSES[charge.charged]
        before = by_cause.get(cause)
        times_s = (*(before.times_s if before else ()), *((charge.at.unix_s,) if charge.at.unix_s else ()))
        unsure = not charge.at.synchronised or (before is not None and before.unsure)
        by_cause[cause] = Failure(fingerprint, cause, charge.reason, Follows.RETRY, times_s, unsure=unsure)
    return list(by_cause.values())


def _charges_of(told: Any) -> tuple[Charge, ...]:
    return tuple(Charge.from_json(one) for one in told)


def _crashes_0_1_0(times_s: Any) -> tuple[Charge, ...]:
    return tuple(Charge(Charged.CRASH, "it took the process down", _long_ago(float(at_s))) for at_s in times_s)


def _rejection_0_1_0(told: Any) -> tuple[Charge, ...]:
    reason = str(told)
    if reason.startswith(_CRASHED_0_1_0):
        return ()
    try:
        at = datetime.strptime(reason[-_DATE_CHARS:], _DATE).replace(tzinfo=timezone.utc)
    except ValueError:
        return (Charge(Charged.UNFIT, reason, _long_ago(0.0)),)
    return (Charge(Charged.UNFIT, reason[:-_DATE_CHARS], _long_ago(at.timestamp())),)


def _long_ago(unix_s: float) -> Moment:
    """Of a boot that nobody noted, by a clock that nobody checked: it is near no other moment."""
    return Moment("", 0.0, unix_s, synchronised=False)


def _read(
    path: Path, of: Callable[[Any], tuple[Charge, ...]], opened: Callable[[bytes], Any] = state_file.parse
) -> dict[str, tuple[Charge, ...]]:
    """What a file says; a damaged one is forgotten, for it must never keep the service from starting."""
    try:
        return {str(name): of(value) for name, value in opened(state_file.read(path)).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError, StoreError) as error:
        _LOGGER.warning("%s cannot be read and is forgotten: %s", path, error)
        return {}
