"""Reload: the settings file read again while the daemon runs. What needs a restart is named, and waits for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.changes import ACTIONS, Action, Changes, action_of, changes
from vajra_edge.errors import SettingsError
from vajra_edge.settings import Settings, load


@dataclass(frozen=True)
class Reloaded:
    """What a reload leads to.

    Attributes:
        settings: to run with from now on: the new ones, with the running values where a restart is needed.
        changes: from the running settings to these.
        restart: fields whose new value waits for a restart.
    """

    settings: Settings
    changes: Changes
    restart: tuple[str, ...]


def reload(running: Settings, path: Path | None, overrides: Mapping[str, Any] | None = None) -> Reloaded:
    """Read the settings again.

    Args:
        running: what the daemon runs with.
        path: the file; None: environment and overrides alone.
        overrides: as given at the start.

    Raises:
        SettingsError: the file is invalid; the daemon keeps what it runs with.
    """
    new = load(path, overrides)
    restart = tuple(field for field in changes(running, new).fields if action_of(field) is Action.RESTART)
    kept = _with_running(new, running)
    return Reloaded(kept, changes(running, kept), restart)


def digest(path: Path) -> str:
    """SHA-256 of the settings file, for the watch.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SettingsError(
            f"settings file {path} cannot be read: {error.strerror}", remedy="restore it; the running settings stay"
        ) from error


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
