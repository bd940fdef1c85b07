"""Refusals: which ways to a plan were refused here before, so that the next build does not spend minutes on them again.

Beside them stands what a build missed for a cause that may pass, so that it is tried again, a few times. One small file
for each fingerprint. It is worth no more than the time it saves: one that is damaged, of another release of the library
or of this product, or cannot be written is as good as none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from vajra_edge import clock, durable, state_file
from vajra_edge.build.rung import Rung
from vajra_edge.clock import Moment
from vajra_edge.errors import StoreError
from vajra_edge.plans import caches
from vajra_edge.version import VERSION

KEPT = 16
"""Refusals of one fingerprint; a ladder has about half as many rungs."""

LONGEST = 500
"""Characters of a reason that are kept."""

MOST_BYTES = 262_144
"""A larger file is not ours."""

CRASHES = 2
"""Builds of one way that ended their process; it is not begun a third time."""

REBOOTS = 6
"""Times that the machine went down during one way's build, after which that is blamed: it may draw too much power, or
hang the GPU. Power cuts alone hardly fall into the same minutes so often."""

RETRY_AFTER_S = (3600.0, 6 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0)
"""Pauses before the tries of what was missed; when all are over only a person tries it again."""

UNSURE = "?"
"""Behind a time."""

CRASHED = "its build ended the process twice"

_LOGGER = logging.getLogger(__name__)


class RefusalCause(str, Enum):
    """What refused."""

    LIBRARY = "library"
    CHECK = "check"
    DRIFT = "drift"
    SPEED = "speed"
    TIME = "time"
    CRASH = "crash"


@dataclass(frozen=True)
class Refusal:
    """One way that was refused.

    Attributes:
        rung: the way.
        cause: what refused it.
        reason: in one line.
        seconds: it took to find out.
        at: UTC, ISO 8601; ``UNSURE`` at its end: by a clock that was not known to be right.
        layers: names or keys of the layers at fault, as the library gave them.
        timeout_s: the time for the build that did not suffice; None of any other cause.
    """

    rung: Rung
    cause: RefusalCause
    reason: str
    seconds: float
    at: str
    layers: tuple[str, ...] = ()
    timeout_s: float | None = None

    @property
    def line(self) -> str:
        """For people."""
        unsure = " (clock not set)" if self.at.endswith(UNSURE) else ""
        return f"refused on {self.at[:10]}{unsure}: {self.reason}"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Refusal:
        """The inverse of ``asdict``, with the rung's own form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        return cls(
            Rung.from_json(fields["rung"]),
            RefusalCause(fields["cause"]),
            str(fields["reason"]),
            float(fields["seconds"]),
            str(fields["at"]),
            tuple(str(name) for name in fields["layers"]),
            None if fields["timeout_s"] is None else float(fields["timeout_s"]),
        )


@dataclass(frozen=True)
class Begun:
    """A way that is being tried, or whose trial ended the process.

    Attributes:
        rung: the way.
        pids: processes of the latest boot that began it and came to no orderly end, the latest last.
        at: the latest of it, UTC, ISO 8601.
        boot: the kernel's name of that boot; empty where it does not say.
        reboots: how often the machine went down while it was tried.
    """

    rung: Rung
    pids: tuple[int, ...]
    at: str
    boot: str = ""
    reboots: int = 0

    @property
    def blame(self) -> str:
        """Why it is not begun again; empty while it may be."""
        if len(self.pids) >= CRASHES:
            return CRASHED
        return f"the machine went down {self.reboots} times during its build" if self.reboots >= REBOOTS else ""

    def again(self, pid: int, at: str, boot: str) -> Begun:
        """Begun once more. A power cut is no crash, and only many of them speak against a build."""
        if boot == self.boot:
            return replace(self, pids=(*self.pids, pid)[-CRASHES:], at=at)
        return Begun(self.rung, (pid,), at, boot, self.reboots + 1)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Begun:
        """The inverse of ``asdict``, with the rung's own form.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        pids = tuple(int(pid) for pid in fields["pids"])
        return cls(Rung.from_json(fields["rung"]), pids, str(fields["at"]), str(fields["boot"]), int(fields["reboots"]))


@dataclass(frozen=True)
class Missed:
    """What is above the plan that was built, and failed for want of memory or time, or with the device.

    Attributes:
        reason: the way and why, in one line.
        at: when it failed or was begun the last time.
        tries: how often it was tried again by itself.
    """

    reason: str
    at: Moment
    tries: int = 0

    @property
    def pause_s(self) -> float | None:
        """From ``at`` until it is tried again by itself; None: not any more."""
        return RETRY_AFTER_S[self.tries] if self.tries < len(RETRY_AFTER_S) else None

    def is_due(self, now: Moment) -> bool:
        """Whether that is over for certain, whatever the wall clock did since."""
        return self.pause_s is not None and now.at_least_since_s(self.at) >= self.pause_s

    @property
    def line(self) -> str:
        """For people."""
        if self.pause_s is None:
            again = f"tried {self.tries} times more in vain: vajra-edge rebuild --force tries it once again"
        else:
            again = f"it is tried again {self._when(self.pause_s)} (try {self.tries + 1} of {len(RETRY_AFTER_S)})"
        return f"{self.reason}; {again}"

    def _when(self, pause_s: float) -> str:
        if not self.at.synchronised:
            return f"after {pause_s / 3600:.0f} h"
        return f"after {datetime.fromtimestamp(self.at.unix_s + pause_s, timezone.utc):%Y-%m-%d %H:%M UTC}"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Missed:
        """The inverse of ``asdict``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        return cls(str(fields["reason"]), Moment.from_json(fields["at"]), int(fields["tries"]))


@dataclass(frozen=True)
class _Kept:
    """What a file holds."""

    refused: tuple[Refusal, ...] = ()
    begun: tuple[Begun, ...] = ()
    missed: Missed | None = None


class Refusals:
    """What was refused of one fingerprint by one library release.

    Args:
        state_dir: the folder of refusals lies below it.
        fingerprint: hex digest of what is wanted.
        library: name and version, from ``Backend.identity``.
        now: this moment.
    """

    def __init__(
        self,
        state_dir: Path,
        fingerprint: str,
        library: str,
        now: Callable[[], Moment] = clock.now,
    ) -> None:
        self._state_dir, self._fingerprint, self._library, self._now = state_dir, fingerprint, library, now
        self._boot = now().boot

    @property
    def path(self) -> Path:
        """The file; absent until the first refusal."""
        return self._state_dir / caches.REFUSALS.path / f"{self._fingerprint}{caches.REFUSALS.suffix}"

    def all(self) -> dict[Rung, Refusal]:
        """What was refused, the oldest first; and what ended its process too often."""
        kept = self._read()
        crashed = [Refusal(one.rung, RefusalCause.CRASH, one.blame, 0.0, one.at) for one in kept.begun if one.blame]
        return {one.rung: one for one in (*kept.refused, *crashed)}

    def add(
        self,
        rung: Rung,
        cause: RefusalCause,
        reason: str,
        seconds: float,
        layers: tuple[str, ...] = (),
        timeout_s: float | None = None,
    ) -> None:
        """Remember one more; a disk that refuses is logged, for the build is worth more."""
        made = Refusal(rung, cause, reason[:LONGEST], round(seconds, 1), self._date(), layers, timeout_s)
        kept = self._read()
        self._write(replace(kept, refused=(*(one for one in kept.refused if one.rung != rung), made)[-KEPT:]))

    def remove(self, rung: Rung) -> None:
        """This one was tried again and is good."""
        kept = self._read()
        refused = tuple(one for one in kept.refused if one.rung != rung)
        if refused != kept.refused:
            self._write(replace(kept, refused=refused))

    @property
    def missed(self) -> Missed | None:
        """What the newest plan is lower than, for a cause that may pass; None: nothing."""
        return self._read().missed

    def miss(self, reason: str) -> None:
        """A plan was built below this, or the try that somebody began came to nothing."""
        kept = self._read()
        tries = kept.missed.tries if kept.missed else 0
        self._write(replace(kept, missed=Missed(reason[:LONGEST], self._now(), tries)))

    def missed_nothing(self) -> None:
        """What was missed came to be, or is refused for good."""
        kept = self._read()
        if kept.missed is not None:
            self._write(replace(kept, missed=None))

    def try_missed(self) -> bool:
        """Count a try if its time has come, before it begins, so that one which takes the machine down counts too.

        Returns:
            Whether it may begin. What a disk does not let count would never end.
        """
        kept = self._read()
        now = self._now()
        if kept.missed is None or not kept.missed.is_due(now):
            return False
        counted = replace(kept.missed, tries=kept.missed.tries + 1, at=now)
        self._write(replace(kept, missed=counted))
        stored = self._read().missed
        return stored is not None and stored.tries == counted.tries

    def clear(self) -> None:
        """Somebody insists: everything may be tried again."""
        _delete(self.path)

    @contextlib.contextmanager
    def attempt(self, rung: Rung) -> Iterator[None]:
        """While a way is tried it is noted as begun; that stays only where the process ends meanwhile."""
        kept = self._read()
        others = tuple(one for one in kept.begun if one.rung != rung)
        before = next((one for one in kept.begun if one.rung == rung), Begun(rung, (), "", self._boot))
        begun = before.again(os.getpid(), self._date(), self._boot)
        self._write(replace(kept, begun=(*others, begun)[-KEPT:]))
        try:
            yield
        finally:
            kept = self._read()
            self._write(replace(kept, begun=tuple(one for one in kept.begun if one.rung != rung)))

    def _date(self) -> str:
        now = self._now()
        date = datetime.fromtimestamp(now.unix_s, timezone.utc).isoformat(timespec="seconds")
        return date if now.synchronised else f"{date}{UNSURE}"

    def _read(self) -> _Kept:
        plain = _read(self.path)
        if (plain.get("library"), plain.get("version")) != (self._library, VERSION):
            return _Kept()
        try:
            return _Kept(
                tuple(Refusal.from_json(one) for one in plain["refused"]),
                tuple(Begun.from_json(one) for one in plain["begun"]),
                Missed.from_json(plain["missed"]) if plain.get("missed") else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _LOGGER.warning("%s cannot be read and is forgotten: %s", self.path, error)
            return _Kept()

    def _write(self, kept: _Kept) -> None:
        if kept == _Kept():
            return _delete(self.path)
        plain = {"library": self._library, "version": VERSION}
        rows = {
            name: [{**asdict(one), "rung": one.rung.to_json()} for one in ones]
            for name, ones in (("refused", kept.refused), ("begun", kept.begun))
        }
        missed = {"missed": {**asdict(kept.missed), "at": kept.missed.at.to_json()}} if kept.missed else {}
        return _write(self._state_dir, self.path, {**plain, **rows, **missed})


def excuse(state_dir: Path, pid: int) -> None:
    """A build child was killed because somebody cancelled it: what it had begun is not at fault.

    Args:
        state_dir: the child's.
        pid: the child's.
    """
    for path in (state_dir / caches.REFUSALS.path).glob(f"*{caches.REFUSALS.suffix}"):
        plain = _read(path)
        begun = plain.get("begun")
        left = [{**one, "pids": [known for known in one["pids"] if known != pid]} for one in _rows(begun)]
        if begun and left != begun:
            _write(state_dir, path, {**plain, "begun": [one for one in left if one["pids"]]})


def _rows(begun: object) -> list[dict[str, Any]]:
    rows = begun if isinstance(begun, list) else []
    return [one for one in rows if isinstance(one, dict) and isinstance(one.get("pids"), list)]


def _read(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it is absent or not ours."""
    try:
        plain = json.loads(state_file.read(path, MOST_BYTES))  # a time without end is told as Infinity
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _LOGGER.warning("%s cannot be read and is forgotten: %s", path, error)
        return {}
    return plain if isinstance(plain, dict) else {}


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOGGER.warning("what was refused is not forgotten: %s cannot be deleted: %s", path, error.strerror)


def _write(state_dir: Path, path: Path, plain: Mapping[str, Any]) -> None:
    try:
        with durable.reported(path.parent, "written"):
            durable.make_folder(path.parent)
            durable.replace(path, json.dumps(plain).encode(), path.parent)
            durable.make_newest(path, path.parent)
            caches.thin(state_dir, caches.REFUSALS)
    except StoreError as error:
        _LOGGER.warning("what was refused is not remembered: %s", error)
