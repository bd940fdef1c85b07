"""Audit log: every build, refusal, swap, rollback, strike, crash, adoption and jump of the clock, why, and who asked.

One JSON line an entry in ``history.jsonl``, appended and synced. Each carries an HMAC under the store's key over itself
and the line before, so that no line can be changed, put in or taken from between without being noticed. A line that a
power cut tore is cut off by the next writer; at ``MOST_BYTES`` the older half goes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any

from vajra_edge import clock, durable, state_file
from vajra_edge.clock import Moment
from vajra_edge.plans.plain import Fields
from vajra_edge.plans.signing import make_key, read_key
from vajra_edge.wording import shown

NAME = "history.jsonl"

MOST_BYTES = 1024 * 1024
"""Some three thousand entries: years of a device that is well, days of one that is not."""

MOST_REASON_CHARS = 1000
"""A library's words may be pages."""

_LOGGER = logging.getLogger(__name__)


class Happened(str, Enum):
    """Kinds of entries. REFUSED: what was asked for cannot be; FAILED: it did not work this time."""

    BUILT = "built"
    FAILED = "failed"
    REFUSED = "refused"
    SWAPPED = "swapped"
    KEPT = "kept"
    ROLLED_BACK = "rolled back"
    STRUCK = "strike"
    CRASHED = "crash"
    ADOPTED = "adopted"
    CLOCK_JUMPED = "clock jumped"
    CLOCK_SYNCHRONISED = "clock synchronised"
    CLOCK_UNSYNCHRONISED = "clock unsynchronised"


@dataclass(frozen=True)
class AuditEntry:
    """One thing that happened.

    Attributes:
        happened: what.
        fingerprint: of the plan that it happened to; empty where it is about none.
        reason: why, in one line.
        asked_by: who caused it.
        duration_s: how long it took; None where it takes no time.
        figures: measured values by name, with their units.
        at: when; the log fills in what is None.
        number: counts this device's entries from 1 on; filled in by the log.
    """

    happened: Happened
    fingerprint: str = ""
    reason: str = ""
    asked_by: str = ""
    duration_s: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    at: Moment | None = None
    number: int = 0

    @property
    def at_utc(self) -> datetime | None:
        """By the wall clock of then, which ``at`` says whether to trust."""
        return None if self.at is None else datetime.fromtimestamp(self.at.unix_s, timezone.utc)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "number": self.number,
            "at": None if self.at is None else self.at.to_json(),
            "happened": self.happened.value,
            "fingerprint": self.fingerprint,
            "reason": self.reason,
            "asked_by": self.asked_by,
            "duration_s": self.duration_s,
            "figures": dict(self.figures),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> AuditEntry:
        """The inverse.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, or of another type or version.
        """
        told = Fields(plain)
        at = plain["at"]
        return cls(
            happened=Happened(plain["happened"]),
            fingerprint=told.text("fingerprint"),
            reason=told.text("reason"),
            asked_by=told.text("asked_by"),
            duration_s=told.number_or_none("duration_s"),
            figures={str(name): float(value) for name, value in plain["figures"].items()},
            at=None if at is None else Moment.from_json(at),
            number=int(plain["number"]),
        )


@dataclass(frozen=True)
class Read:
    """What the file says.

    Attributes:
        entries: the oldest first.
        doubts: what is wrong with it, one line each.
    """

    entries: tuple[AuditEntry, ...]
    doubts: tuple[str, ...] = ()


class AuditLog:
    """The file. Several processes may append: the daemon, and a rebuild where none runs.

    Args:
        root: the state directory; making a log touches no file.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, root / NAME

    def append(self, entry: AuditEntry) -> AuditEntry:
        """Write an entry, durably; returns it with its number and time.

        Raises:
            StoreError: it cannot be written.
        """
        with durable.reported(self._root, "written"), durable.locked(self._root / "history.lock"):
            key = make_key(self._root / "store.key", self._root)
            self._mend()
            lines = state_file.read(self._path).splitlines() if self._path.exists() else []
            number, mac = _end_of(lines)
            reason = shown(" ".join(entry.reason.split()))[:MOST_REASON_CHARS]
            entry = replace(entry, number=number + 1, reason=reason, at=entry.at or clock.now())
            self._write(lines, _line(entry, mac, key))
        return entry

    def read(self) -> Read:
        """Everything that is kept, checked.

        Raises:
            StoreError: it cannot be read.
        """
        with durable.reported(self._root, "read"):
            key = read_key(self._root / "store.key")
            if not self._path.exists():
                return Read(())
            try:
                content = state_file.read(self._path)
            except state_file.NotAFile as error:
                return Read((), (str(error.strerror),))
        whole, torn = content.rpartition(b"\n")[::2]
        if key is None:
            return Read((), ("the device's key is gone: nothing tells whether this device wrote it",))
        entries, doubts = _checked(whole.splitlines(), key)
        return Read(entries, (*doubts, "its last line was torn by a power cut") if torn else doubts)

    def _mend(self) -> None:
        """Cut off what a power cut, or a full disk, left of the last line; put aside what is no log at all."""
        try:
            content = state_file.read(self._path)
        except FileNotFoundError:
            return
        except state_file.NotAFile as error:
            _LOGGER.warning("%s is put aside, and begun anew: %s", self._path, error.strerror)
            self._path.replace(self._path.with_suffix(".damaged"))
            return
        with self._path.open("r+b") as file:
            end = content.rfind(b"\n") + 1
            if end < len(content):
                _LOGGER.warning("%s: %d bytes of a torn line are cut off", self._path, len(content) - end)
                file.truncate(end)
                os.fsync(file.fileno())

    def _write(self, lines: list[bytes], line: bytes) -> None:
        if sum(len(one) + 1 for one in lines) + len(line) > MOST_BYTES:
            kept = [*lines[len(lines) // 2 :], line.rstrip(b"\n")]
            durable.replace(self._path, b"".join(one + b"\n" for one in kept), self._root)
            return
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            durable.sync_folder(self._root)


def _line(entry: AuditEntry, after: str, key: bytes) -> bytes:
    plain = {"after": after, "entry": entry.to_json()}
    text = json.dumps({"hmac": _mac(plain, key), **plain}, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def _mac(plain: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(key, b"history\0" + text.encode(), hashlib.sha256).hexdigest()


def _end_of(lines: list[bytes]) -> tuple[int, str]:
    """Number and HMAC of the last line that can be read."""
    ends = (_end(line) for line in reversed(lines))
    return next((end for end in ends if end is not None), (0, ""))


def _end(line: bytes) -> tuple[int, str] | None:
    try:
        told = json.loads(line)
        return int(told["entry"]["number"]), str(told["hmac"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _checked(lines: list[bytes], key: bytes) -> tuple[tuple[AuditEntry, ...], tuple[str, ...]]:
    """Only what this device wrote; a line that does not follow the one before it is told."""
    entries: list[AuditEntry] = []
    doubts: list[str] = []
    before: str | None = None
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            plain = {"after": told["after"], "entry": told["entry"]}
            if not hmac.compare_digest(str(told["hmac"]), _mac(plain, key)):
                doubts.append(f"line {number} was not written by this device")
                continue
            entries.append(AuditEntry.from_json(told["entry"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            doubts.append(f"line {number} is damaged: {type(error).__name__}")
            continue
        if before is not None and told["after"] != before:
            doubts.append(f"what was before line {number} was changed or taken out")
        before = str(told["hmac"])
    return tuple(entries), tuple(doubts)
