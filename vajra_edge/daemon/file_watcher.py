"""File watcher: weights, settings and trusted keys, settled before they count, hashed only when their status moved.

Polling, not inotify: it sees replaced symlinks (as Kubernetes mounts them), renames over a file, network disks and
files that do not exist yet, all in one way.

Settings are read again while the daemon runs; what needs a restart is named, and waits for it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.config import settings_file, text_file
from vajra_edge.config.changes import ACTIONS, Action, Changes, action_of, changes
from vajra_edge.config.overrides import Overrides, laid_over
from vajra_edge.config.settings import Settings, load
from vajra_edge.config.text_file import Unreadable
from vajra_edge.daemon.named_files import require_usable
from vajra_edge.errors import SettingsError, VajraError

log = logging.getLogger(__name__)

Beat = Callable[[], None]
Digest = Callable[[Path, Beat], str]
Look = tuple[int, ...]


@dataclass(frozen=True)
class FileChanged:
    """Event: a watched file has other content than at the last event, or was looked at for the first time.

    Attributes:
        name: what the file is to the daemon, ``weights``, ``settings`` or ``keys``, which is a folder.
        path: where it is.
        digest: of its content; None: it cannot be read.
        reason: why it cannot be read; empty where it can.
    """

    name: str
    path: Path
    digest: str | None
    reason: str = ""


def look_at(path: Path) -> Look | None:
    """What another content moves of a file, or of a folder of files; None: it is not there, or hidden."""
    try:
        look = _numbers(path)
        if path.is_dir():
            for entry in sorted(path.iterdir()):
                look += (zlib.crc32(os.fsencode(entry.name)), *(_numbers(entry) if entry.exists() else ()))
    except OSError:
        return None
    return look


def _numbers(path: Path) -> Look:
    """The change time too: ``cp -p`` and ``rsync -t`` keep the other one, and chmod mends an unreadable file."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class WatchedFile:
    """One file or folder of files, followed through symlinks.

    Args:
        name: given back in events.
        path: the file, which need not exist.
        digest: reads the file and beats meanwhile; raises VajraError with the reason where it cannot.
        beat: given to it.
    """

    def __init__(self, name: str, path: Path, digest: Digest, beat: Beat = lambda: None) -> None:
        self.name, self.path = name, path
        self._digest, self._beat = digest, beat
        self._told: tuple[str | None, str] | None = None
        self._seen: Look | None = None
        self._candidate: Look | None = None
        self._since_s = float("-inf")

    def poll(self, now_s: float, settle_s: float) -> FileChanged | None:
        """Look once.

        Args:
            now_s: monotonic.
            settle_s: a file that moved must stay as it is for this long; the first look does not wait.

        Returns:
            The event, if the content is another than last told.
        """
        look = look_at(self.path)
        if self._told is not None:
            if look == self._seen:
                self._candidate = look
                return None
            if look != self._candidate:
                self._candidate, self._since_s = look, now_s
            if now_s - self._since_s < settle_s:
                return None
        told = self._read()
        if self._told is not None and look_at(self.path) != look:  # it moved while it was read
            return None
        self._seen = self._candidate = look
        if told == self._told:
            return None
        self._told = told
        return FileChanged(self.name, self.path, *told)

    def _read(self) -> tuple[str | None, str]:
        try:
            return self._digest(self.path, self._beat), ""
        except VajraError as error:
            return None, str(error)


class FileWatch:
    """The thread that polls every file.

    Args:
        post: takes ``FileChanged``; only enqueues.
        beat: called at each turn.
        settle_s: see ``WatchedFile.poll``.
        poll_s: time between two looks.
    """

    def __init__(
        self, post: Callable[[FileChanged], None], beat: Callable[[], None], *, settle_s: float, poll_s: float
    ) -> None:
        self._post, self._beat = post, beat
        self._settle_s, self._poll_s = settle_s, poll_s
        self._files: dict[str, WatchedFile] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def follow(self, name: str, path: Path, digest: Digest) -> None:
        """Watch a file, in the place of the last one of that name; its first event comes at once."""
        self._files = {**self._files, name: WatchedFile(name, path, digest, self._beat)}

    def pace(self, settle_s: float, poll_s: float) -> None:
        """Use other times from the next turn on."""
        self._settle_s, self._poll_s = settle_s, poll_s

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """End the thread; one that hangs on a dead network disk is left behind."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat()
            for file in tuple(self._files.values()):
                self._poll(file)
            self._stop.wait(self._poll_s)

    def _poll(self, file: WatchedFile) -> None:
        try:
            changed = file.poll(time.monotonic(), self._settle_s)
        except Exception as error:  # the top of a thread: a bug in one look is told once and must not end the others
            log.exception("%s is not watched any more", file.path)
            self._files = {name: other for name, other in self._files.items() if other is not file}
            changed = FileChanged(file.name, file.path, None, f"{file.path} cannot be watched: {error}")
        if changed is not None:
            self._post(changed)


@dataclass(frozen=True)
class Reloaded:
    """What a reload leads to.

    Attributes:
        settings: to run with from now on: the new ones, with the running values where a restart is needed.
        beneath: the same without what people changed.
        changes: from the running settings to these.
        restart: fields whose new value waits for a restart.
    """

    settings: Settings
    beneath: Settings
    changes: Changes
    restart: tuple[str, ...]


def reload(
    running: Settings, path: Path | None, given: Mapping[str, Any] | None = None, overrides: Overrides | None = None
) -> Reloaded:
    """Read the settings again.

    Args:
        running: what the daemon runs with.
        path: the file; None: environment and what is given alone.
        given: values over the file's, as at the start.
        overrides: what people changed; it lies over all others.

    Raises:
        SettingsError: the file is invalid, or is being written, or a file that it names for the broker cannot be used;
            the daemon keeps what it runs with.
    """
    before = text_file.read_bytes(path, settings_file.MOST_BYTES) if path is not None else b""
    new = load(path, given)
    if path is not None and text_file.read_bytes(path, settings_file.MOST_BYTES) != before:
        raise SettingsError(f"settings file {path} is being written", remedy="it is read again once it stays as it is")
    require_usable(running.mqtt, new.mqtt)
    return changed(running, new, overrides or {})


def changed(running: Settings, new: Settings, overrides: Overrides) -> Reloaded:
    """What new settings, or other overrides of the same ones, lead to."""
    restart = tuple(field for field in changes(running, new).fields if action_of(field) is Action.RESTART)
    beneath = _with_running(new, running)
    kept = laid_over(beneath, overrides)
    return Reloaded(kept, beneath, changes(running, kept), restart)


def digest(path: Path, _beat: Beat = lambda: None) -> str:
    """SHA-256 of the settings file, for the watch.

    Raises:
        SettingsError: it cannot be read.
    """
    content = text_file.read_bytes(path, settings_file.MOST_BYTES)
    if isinstance(content, Unreadable):
        raise SettingsError(f"settings file {path} {content.what}", remedy="restore it; the running settings stay")
    return hashlib.sha256(content).hexdigest()


def moved_on(changed: FileChanged) -> bool:
    """Whether the settings file is another by now than the one that was told of."""
    try:
        return digest(changed.path) != changed.digest
    except SettingsError:
        return True


def _with_running(new: Settings, running: Settings) -> Settings:
    """``new`` with the running values of every field that only a restart can change."""
    update: dict[str, Any] = {}
    for field, action in ACTIONS.items():
        if action is not Action.RESTART:
            continue
        section, _, name = field.partition(".")
        value = getattr(running, section)
        if name:
            base = update.get(section, getattr(new, section))
            value = base.model_copy(update={name: getattr(value, name)})
        update[section] = value
    return new.model_copy(update=update)
