"""Named files: those of the broker are tried before a running daemon takes settings that name others.

A daemon that took a password file that is not there would leave its broker, and whoever listens there would not hear
why. A start takes them all the same: frames are served without a broker.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError, SettingsError
from vajra_edge.mqtt import events, identity

LIMIT_S = 2.0
"""A disk that hangs for longer says nothing against the settings."""


def require_usable(running: MqttSettings, new: MqttSettings) -> None:
    """Try the files of ``new`` where it names others than ``running``.

    Raises:
        SettingsError: one cannot be read, or is not what it should be.
    """
    if all(getattr(running, field) == getattr(new, field) for field in identity.FIELDS):
        return
    told: SimpleQueue[PublishError | None] = SimpleQueue()
    threading.Thread(target=lambda: told.put(_refusal(new)), name="named-files", daemon=True).start()
    try:
        refusal = told.get(timeout=LIMIT_S)
    except Empty:
        return
    if refusal is not None:
        raise SettingsError(f"the new settings are not taken: {refusal.message}", remedy=refusal.remedy)


def _refusal(mqtt: MqttSettings) -> PublishError | None:
    try:
        identity.read(mqtt)
    except (OSError, ValueError, PublishError) as error:
        return events.unreachable(mqtt, error)
    return None
