"""EngineStore: all plans of this device. Written so that a power cut or a kill at any moment leaves a usable store.

One build at a time, whoever starts it: the kernel drops the lock with its holder.

``<root>/engines/<fingerprint>/{plan, manifest.json}`` appears by one rename; ``current`` and ``previous`` are symlinks
replaced by one rename; what fails its check moves to ``quarantine/``. There is no ``exists``: ``get`` answers that too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from vajra_edge import clock, durable, state_file
from vajra_edge.clock import Moment
from vajra_edge.errors import PlanError, StoreError
from vajra_edge.plans import caches
from vajra_edge.plans.fingerprint import SHORT
from vajra_edge.plans.history import Cause, Failure, Follows
from vajra_edge.plans.manifest import Manifest, Plan
from vajra_edge.plans.signing import check_plan, make_key, open_signed, read_key, sign
from vajra_edge.wording import Setting, say

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
        descriptor = state_file.to_write(path)
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
        told = state_file.parse(os.pread(descriptor, 4096, 0))
        return f"{told['purpose']} (pid {told['pid']})"
    except (ValueError, KeyError, TypeError):
        return "its holder has not said who it is"


STALE_S = 3600.0
"""A commit takes seconds, on a worn SD card minutes; what lies in staging for longer was abandoned by a kill."""

OUTBOX, BUNDLES = "outbox", "bundles"
"""Folders of the messages that the broker does not have yet, and of signed weights; what they take, plans cannot."""

BESIDE = (OUTBOX, BUNDLES, "history.jsonl")
"""What counts against the room for plans, and bounds itself."""

QUARANTINED_KEPT = 3
"""Damaged plans kept for somebody to look at."""

_UNSURE = "-unsure"
"""Behind the time in a name: the clock was not known to be right."""

_SUCCEEDED = "succeeded"
"""File beside a damaged plan whose successor was built: what befell it is history then."""

_ALL_NEEDED = "%s has %.0f MB more than [store] max_bytes, and all of that is needed; raise it"

_FINGERPRINT = re.compile("[0-9a-f]{64}")
_LOGGER = logging.getLogger(__name__)


def _ignore(_: str) -> None:
    """Nobody wants to know that a lock is waited for."""


class EngineStore:
    """All plans of this device. Making one touches no file.

    Args:
        root: the state directory.
        max_bytes: what ``prune`` keeps plans and ``BESIDE`` under, by deleting plans.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._engines = root / "engines"
        self._staging = root / "staging"
        self._quarantine = root / "quarantine"
        self._key = root / "store.key"

    def get(self, fingerprint: str) -> Plan | None:
        """The plan if it is there, whole, and built here; one that is not whole goes to quarantine.

        Raises:
            StoreError: the store cannot be read.
        """
        folder = self._folder(fingerprint)
        with durable.reported(self.root, "read"):
            if not folder.is_dir():
                return None
            try:
                return self._checked(fingerprint)
            except PlanError as first:
                # A forced rebuild may have swapped the folder between the two reads; only a second failure counts.
                _LOGGER.debug("plan %s: %s; reading again", fingerprint, first)
            try:
                return self._checked(fingerprint)
            except PlanError as error:
                self._set_aside(fingerprint, str(error))
                return None

    def commit(self, plan: bytes, manifest: Manifest) -> Plan:
        """Store a plan in one step, in the place of one with the same fingerprint if there is any.

        Raises:
            StoreError: the store cannot be written; nothing of the plan is left in it.
        """
        full = replace(manifest, sha256=sha256(plan).hexdigest(), size_bytes=len(plan))
        folder = self._folder(manifest.fingerprint.digest)
        with durable.reported(self.root, "written"):
            self._open()
            staged = self._staging / uuid.uuid4().hex
            try:
                staged.mkdir(mode=0o700)
                durable.write(staged / "plan", plan)
                durable.write(staged / "manifest.json", sign(full, make_key(self._key, self._staging)))
                durable.make_newest(staged, self._engines)
                durable.sync_folder(staged)
                durable.rename_over(staged, folder)
                with contextlib.suppress(OSError):  # the plan is stored, whatever becomes of the note
                    for aside in self._quarantine.glob(f"{folder.name}.*"):
                        (aside / _SUCCEEDED).touch()
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        return Plan(folder.name, folder / "plan", full)

    def mark_good(self, fingerprint: str) -> None:
        """Make a plan that served well the current one; the one before becomes ``previous``.

        Raises:
            StoreError: the store cannot be written.
        """
        self._folder(fingerprint)
        current = self._linked("current")
        if current == fingerprint:
            return
        with durable.reported(self.root, "written"):
            self._open()
            if current is not None:
                durable.relink(self.root / "previous", f"engines/{current}", self._staging)
            durable.relink(self.root / "current", f"engines/{fingerprint}", self._staging)

    def current(self) -> Plan | None:
        """The plan that served last and well."""
        return self._follow("current")

    def previous(self) -> Plan | None:
        """The plan that served well before the current one."""
        return self._follow("previous")

    def served_well(self) -> tuple[str, ...]:
        """Fingerprints of the current plan and of the one before it, unchecked; those that there are."""
        return tuple(name for name in (self._linked("current"), self._linked("previous")) if name is not None)

    def plans(self) -> tuple[str, ...]:
        """Fingerprints of all plans, the newest first; unchecked."""
        with durable.reported(self.root, "read"):
            found = [path for path in _entries(self._engines) if _FINGERPRINT.fullmatch(path.name)]
            return tuple(path.name for path in sorted(found, key=_age_key))

    def prune(self, keep: Collection[str] = ()) -> tuple[str, ...]:
        """Delete the oldest plans beyond ``max_bytes``, abandoned staging, old quarantine, and old files of builds.

        Args:
            keep: fingerprints that stay: what serves or may be gone back to; current and previous always do.

        Returns:
            What was deleted.

        Raises:
            StoreError: the store cannot be written.
        """
        kept = {*keep, self._linked("current"), self._linked("previous")}
        self.sweep(clock.now())
        with durable.reported(self.root, "written"):
            sizes = {name: _size_bytes(self._engines / name) for name in self.plans()}
            over_bytes = sum(_size_bytes(self.root / name) for name in BESIDE) + sum(sizes.values()) - self.max_bytes
            over_bytes, gone = self._thin_quarantine(over_bytes), []
            for name in reversed(sizes):
                if over_bytes > 0 and name not in kept:
                    self._delete(name)
                    over_bytes -= sizes[name]
                    gone.append(name)
            if over_bytes > 0:
                _LOGGER.warning(_ALL_NEEDED, self.root, over_bytes / 1e6)
            caches.prune(self.root, self._manifests(kept))
        return tuple(gone)

    def _thin_quarantine(self, over_bytes: int) -> int:
        """Keep a few damaged plans, fewer where room is short: they are there to be looked at, and serve nobody.

        Returns:
            What is left of the bytes too many.
        """
        aside = sorted(_entries(self._quarantine), key=_age_key)
        for path in aside[QUARANTINED_KEPT:]:
            shutil.rmtree(path)
        few = [(path, _size_bytes(path)) for path in aside[:QUARANTINED_KEPT]]
        over_bytes += sum(size_bytes for _, size_bytes in few)
        while few and over_bytes > 0:
            path, size_bytes = few.pop()
            shutil.rmtree(path)
            over_bytes -= size_bytes
        return over_bytes

    def sweep(self, now: Moment) -> None:
        """Delete what a killed build left in staging more than ``STALE_S`` ago."""
        with durable.reported(self.root, "written"):
            for path in _entries(self._staging):
                if clock.is_older(path.lstat().st_mtime, STALE_S, now):
                    _remove(path)

    def quarantine(self, fingerprint: str, reason: str) -> None:
        """Set a plan aside, so that it is not loaded again.

        Raises:
            StoreError: the store cannot be written.
        """
        folder = self._folder(fingerprint)
        with durable.reported(self.root, "written"):
            self._open()
            if folder.is_dir():
                unsure = "" if clock.is_synchronised() else _UNSURE
                aside = self._quarantine / f"{fingerprint}.{time.time_ns()}{unsure}"
                folder.rename(aside)
                durable.sync_folder(self._engines)
                (aside / "reason.txt").write_text(f"{reason}\n", encoding="utf-8")

    def damage(self, wanted: str | None = None) -> str:
        """What befell a stored plan: the wanted one, or the one that served last and well.

        Returns:
            A line for each that was put aside and was not built anew since; empty if neither was.

        Raises:
            StoreError: the store cannot be read.
        """
        with durable.reported(self.root, "read"):
            names = dict.fromkeys(filter(None, (wanted, self._linked("current"))))
            gone = [name for name in names if not self._folder(name).is_dir()]
        aside = {one.fingerprint: one for one in self.put_aside() if one.follows is not Follows.MENDED}
        told = (f"the stored plan {name[:SHORT]} was damaged: {aside[name].reason}" for name in gone if name in aside)
        return "; ".join(told)

    def put_aside(self) -> tuple[Failure, ...]:
        """The damaged plans that are kept for somebody to look at, each with the newest reason for it.

        Raises:
            StoreError: the store cannot be read.
        """
        with durable.reported(self.root, "read"):
            found = sorted(_entries(self._quarantine), key=lambda path: path.name)
            newest = {path.name.partition(".")[0]: path for path in found}
            return tuple(_damage_of(name, path) for name, path in newest.items() if _FINGERPRINT.fullmatch(name))

    def require_space(self, estimate_bytes: int) -> None:
        """See that a plan of about this size can be stored beside the old ones.

        Raises:
            StoreError: less than twice that is free; figures are in the message.
        """
        with durable.reported(self.root, "written"):
            self._open()
            free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < 2 * estimate_bytes:
            raise StoreError(
                f"{self.root} has {free_bytes / 1e6:.0f} MB free, a build needs {2 * estimate_bytes / 1e6:.0f} MB",
                remedy=say("free space on that disk, or lower ", Setting.MAX_BYTES),
                free_bytes=free_bytes,
            )

    def lock(
        self, purpose: str, *, wait_s: float = 0.0, waiting: Callable[[str], None] = _ignore
    ) -> AbstractContextManager[None]:
        """Hold the build lock, see ``store.build_lock``.

        Raises:
            StoreError: another build holds it, or the store cannot be written.
        """
        with durable.reported(self.root, "written"):
            self._open()
        return build_lock(self.root / "build.lock", purpose, wait_s=wait_s, waiting=waiting)

    def _folder(self, fingerprint: str) -> Path:
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise StoreError(f"{fingerprint!r} is not a fingerprint", remedy="give its 64 hex digits")
        return self._engines / fingerprint

    def _checked(self, fingerprint: str) -> Plan:
        folder = self._engines / fingerprint
        key = read_key(self._key)
        if key is None:
            raise PlanError("the device's key is gone", remedy="plans are built anew")
        manifest = open_signed(folder / "manifest.json", key)
        if manifest.fingerprint.digest != fingerprint:
            raise PlanError(f"its manifest is that of {manifest.fingerprint.short}")
        check_plan(folder / "plan", manifest)
        return Plan(fingerprint, folder / "plan", manifest)

    def _manifests(self, names: Collection[str | None]) -> tuple[Manifest, ...]:
        """Of those plans that have one; their content is not read."""
        key, found = read_key(self._key), []
        for name in names if key else ():
            with contextlib.suppress(PlanError, FileNotFoundError):
                found.append(open_signed(self._engines / str(name) / "manifest.json", key or b""))
        return tuple(found)

    def _set_aside(self, fingerprint: str, reason: str) -> None:
        """Quarantine as part of reading, which must answer even where the disk is read-only."""
        _LOGGER.error("plan %s is not used: %s", fingerprint, reason)
        try:
            self.quarantine(fingerprint, reason)
        except StoreError as error:
            _LOGGER.warning("plan %s stays where it is: %s", fingerprint, error)

    def _delete(self, fingerprint: str) -> None:
        """Take the name away first, so that a half deleted plan is never found."""
        aside = self._staging / uuid.uuid4().hex
        (self._engines / fingerprint).rename(aside)
        shutil.rmtree(aside)

    def _follow(self, link: str) -> Plan | None:
        fingerprint = self._linked(link)
        return None if fingerprint is None else self.get(fingerprint)

    def _linked(self, link: str) -> str | None:
        """Fingerprint that a symlink names; None if there is none or it names something else."""
        try:
            name = (self.root / link).readlink().name
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOGGER.warning("%s is not a symlink to a plan: %s", self.root / link, error)
            return None
        return name if _FINGERPRINT.fullmatch(name) else None

    def _open(self) -> None:
        durable.make_folder(self.root)
        for folder in (self._engines, self._staging, self._quarantine):
            durable.make_folder(folder)


def _damage_of(fingerprint: str, aside: Path) -> Failure:
    """What a folder of the quarantine tells; its name ends in when it came there, in nanoseconds of Unix time."""
    reason = "why was not noted"
    with contextlib.suppress(FileNotFoundError, state_file.NotAFile):  # a kill came between the plan and its reason
        reason = state_file.read(aside / "reason.txt").decode(errors="replace").strip()
    at_ns, unsure, _ = aside.name.partition(".")[2].partition(_UNSURE)
    times_s = (int(at_ns) / 1e9,) if at_ns.isdigit() else ()
    follows = Follows.MENDED if (aside / _SUCCEEDED).exists() else Follows.REBUILD
    return Failure(fingerprint, Cause.DAMAGE, reason, follows, times_s, unsure=bool(unsure))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _age_key(path: Path) -> int:
    """Sorts the newest first."""
    return -path.lstat().st_mtime_ns


def _size_bytes(path: Path) -> int:
    """Of a file, or of all in a folder; what goes meanwhile counts nothing."""
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(_size_bytes(one) for one in _entries(path))
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
