"""Override views: what people changed while the daemon ran, for the status, for subscribers and for who changed it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vajra_edge.config import overrides as known
from vajra_edge.config.overrides import Override, Overrides
from vajra_edge.config.settings import Settings
from vajra_edge.mqtt.messages import CameraControls
from vajra_edge.telemetry.status import OverrideView


def views_of(
    overrides: Overrides, settings: Settings, environ: Mapping[str, str] = os.environ
) -> tuple[OverrideView, ...]:
    """Each change, with what it lies over.

    Args:
        overrides: all of them.
        settings: without any.
        environ: the environment that they were loaded with.
    """
    return tuple(_view(setting, override, settings, environ) for setting, override in overrides.items())


def controls_of(camera: str, settings: Settings, overrides: Overrides) -> CameraControls | None:
    """What may be changed of a camera, as it is now; None: there is no such camera."""
    one = next((each for each in settings.cameras if each.id == camera), None)
    if one is None:
        return None
    return CameraControls(
        enabled=one.enabled,
        confidence=settings.detect.confidence if one.confidence is None else one.confidence,
        classes=settings.detect.classes if one.classes is None else one.classes,
        snapshot_every_s=one.snapshot_every_s,
        zones=tuple(zone.name for zone in one.zones),
        lines=tuple(line.name for line in one.lines),
        changed=tuple(known.changed_fields(camera, overrides)),
    )


def answer_of(changed: tuple[str, ...], settings: Settings, views: tuple[OverrideView, ...]) -> dict[str, object]:
    """For who changed these: what each is now, and what still lies over the settings file."""
    return {
        "settings": {setting: known.value_of(setting, settings) for setting in changed},
        "overrides": {view.setting: view.value for view in views},
    }


def _view(setting: str, override: Override, settings: Settings, environ: Mapping[str, str]) -> OverrideView:
    told = setting, override.value, override.by, override.at, override.clock_synchronised
    if idle := known.why_idle(setting, override, settings):
        return OverrideView(*told, idle=idle)
    return OverrideView(*told, *known.beneath(setting, settings, environ))
