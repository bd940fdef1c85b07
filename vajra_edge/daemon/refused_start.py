"""Refused start: settings that cannot be taken end the daemon, and whoever watches the broker is told why.

What is needed for that is read out of the damaged file: ``[mqtt]`` and ``device_id``, else what the last good start
left. Where neither can be, the default broker is told: it is often on the device.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vajra_edge.config import environment, settings_file, text_file
from vajra_edge.config.settings import MqttSettings, Settings, StoreSettings, load, merged
from vajra_edge.config.text_file import Unreadable
from vajra_edge.daemon import last_broker, state_lock
from vajra_edge.daemon import systemd as daemon_systemd
from vajra_edge.errors import SettingsError
from vajra_edge.mqtt import notice
from vajra_edge.mqtt.messages import ServiceStatus
from vajra_edge.mqtt.topics import topics_of
from vajra_edge.version import VERSION

log = logging.getLogger(__name__)

PATIENCE_S = 15.0
"""At boot the network may be seconds away; systemd allows a start 90 s."""

_NEEDED = frozenset({"device_id", "mqtt", "service", "store"})
_OF_NO_MATTER = frozenset({"keepalive_s", "qos", "max_inflight", "delivery", "outbox", "commands", "commit_every_s"})
_OF_NO_MATTER |= {"outbox_bytes", "outbox_age_s"}
"""Fields of ``[mqtt]`` without which the broker is reached all the same."""

_OVER = ("MQTT", "DEVICE_ID", "SERVICE__CONTROL_SOCKET", "STORE__STATE_DIR")


def tell(path: Path, why: SettingsError, environ: Mapping[str, str] = os.environ) -> None:
    """Say why the daemon does not start: to systemd, and as the retained status; takes ``PATIENCE_S`` at the most.

    Args:
        path: the settings file.
        why: what is wrong with it.
        environ: of the process.
    """
    reason = f"settings: {why}"
    daemon_systemd.connect(environ).status(f"blocked: {reason}")
    known = readable(path, environ)
    if known is None or _somebody_serves(known):
        return
    topics = topics_of(known)
    status = ServiceStatus(topics.device, "blocked", reason, VERSION)
    by_systemd = "NOTIFY_SOCKET" in environ
    notice.leave(known.mqtt, topics, status, patience_s=PATIENCE_S, persistent=by_systemd)


def to_ask(path: Path) -> tuple[Settings, SettingsError | None]:
    """Settings to ask a running daemon with, which may have been started before the file was damaged.

    Returns:
        The file's, or what can be read of it and what is wrong with it.

    Raises:
        SettingsError: nothing can be read of it.
    """
    try:
        return load(path), None
    except SettingsError as refused:
        known = readable(path, os.environ)
        if known is None:
            raise
        return known, refused


def readable(path: Path, environ: Mapping[str, str]) -> Settings | None:
    """Settings of which the broker, the device's id and the folders are the operator's, and nothing else.

    Returns:
        None where the file names a broker or device, it cannot be made out which, and nothing was kept.
    """
    over = _from_environment(environ)
    tables = _from_file(path)
    named = {name: tables[name] for name in _NEEDED & tables.keys()}
    known = _settings(merged(named, over))
    if known is not None and "mqtt" in tables:
        return known
    if kept := _recalled(merged(named, over), environ):
        folders = {name: named[name] for name in {"service", "store"} & named.keys()}
        return _settings(merged({**folders, **kept}, over))
    return None if "mqtt" in tables else known


def _from_file(path: Path) -> dict[str, Any]:
    text = text_file.read(path, settings_file.MOST_BYTES)
    if isinstance(text, Unreadable):
        return {}
    if whole := settings_file.parsed(text):
        return whole
    parts = settings_file.tables(text)
    found = {name: settings_file.parsed(parts[name]) for name in parts.keys() & {"mqtt", "service", "store"}}
    return {**settings_file.parsed(parts[""]), **{name: values for name, values in found.items() if values}}


def _from_environment(environ: Mapping[str, str]) -> Mapping[str, Any]:
    over = tuple(environment.PREFIX + name for name in _OVER)
    needed = {name: text for name, text in environ.items() if name.upper().startswith(over)}
    try:
        return environment.read(needed, Settings).values
    except SettingsError:
        return {}


def _recalled(tables: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    for folder in _state_dirs(tables, environ):
        if kept := last_broker.recall(folder):
            return kept
    return {}


def _state_dirs(tables: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Path]:
    store = tables.get("store")
    named = store.get("state_dir") if isinstance(store, Mapping) else None
    if isinstance(named, str) and "\0" not in named:
        yield Path(named)
    if folder := environ.get("STATE_DIRECTORY"):
        yield Path(folder.partition(":")[0])
    yield StoreSettings().state_dir


def _settings(tables: Mapping[str, Any]) -> Settings | None:
    given = {**tables, "weights": {"path": "/unknown"}}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        places = [wrong["loc"] for wrong in error.errors()]
    if any(place[0] == "device_id" or (place[0] == "mqtt" and not _spared(place[1:])) for place in places):
        return None
    return _settings(_without(tables, places))


def _spared(place: tuple[int | str, ...]) -> bool:
    """Whether the broker is reached without this field of ``[mqtt]``."""
    return bool(place) and (place[0] in _OF_NO_MATTER or place[0] not in MqttSettings.model_fields)


def _without(tables: Mapping[str, Any], places: list[tuple[int | str, ...]]) -> dict[str, Any]:
    """Without the wrong fields of ``[mqtt]``, and without other sections that are wrong."""
    wrong = {place[1] for place in places if place[0] == "mqtt"}
    others = {place[0] for place in places} - {"mqtt"}
    left = {name: values for name, values in tables.items() if name not in others}
    if "mqtt" in left:
        left["mqtt"] = {name: value for name, value in left["mqtt"].items() if name not in wrong}
    return left


def _somebody_serves(known: Settings) -> bool:
    """A daemon runs, and this was a second one: what it says of itself stays.

    Its socket may be gone for a while, or too much asked; the lock of its state directory stays.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1.0)
            sock.connect(str(known.service.control_socket))
    except OSError:
        return state_lock.is_held(known.store.state_dir)
    return True
