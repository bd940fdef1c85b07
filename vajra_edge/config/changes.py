"""Changes: which fields differ between two settings, and one table from each field to the action it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from pydantic import BaseModel, ConfigDict

from vajra_edge.config.settings import CalibrationSettings, CameraSettings, EngineSettings, MqttSettings, Settings


class Action(str, Enum):
    """What a changed field asks of the running daemon.

    APPLY_OR_REBUILD is for what some plans have baked in and others leave to their host: it is applied in place, and
    what is wanted is worked out again, which is another plan only where it is baked in.
    """

    REBUILD = "rebuild"
    REOPEN = "reopen"
    RECONNECT = "reconnect"
    APPLY = "apply"
    APPLY_OR_REBUILD = "apply or rebuild"
    RESTART = "restart"


ACTIONS: Mapping[str, Action] = {
    "device_id": Action.RESTART,
    "weights.path": Action.REBUILD,
    "weights.sha256": Action.REBUILD,
    "weights.class_names": Action.REBUILD,
    "weights.stride": Action.REBUILD,
    "weights.keys": Action.REBUILD,
    "weights.python": Action.REBUILD,
    **{f"engine.{name}": Action.REBUILD for name in EngineSettings.model_fields},
    **{f"engine.{name}": Action.APPLY_OR_REBUILD for name in ("nms_iou", "max_det", "nms_top_k")},
    **{f"calibration.{name}": Action.REBUILD for name in CalibrationSettings.model_fields},
    "detect.confidence": Action.APPLY,
    "detect.classes": Action.APPLY,
    **{f"cameras.{name}": Action.REOPEN for name in CameraSettings.model_fields},
    "cameras.confidence": Action.APPLY,
    "cameras.classes": Action.APPLY,
    "cameras.snapshot_every_s": Action.APPLY,
    "cameras.track": Action.APPLY,
    "cameras.zones": Action.APPLY,
    "cameras.lines": Action.APPLY,
    **{f"mqtt.{name}": Action.RECONNECT for name in MqttSettings.model_fields},
    **{f"mqtt.{name}": Action.APPLY for name in ("signed_commands", "outputs", "frigate_prefix")},
    **{f"mqtt.{name}": Action.RESTART for name in ("qos", "delivery", "outbox", "commit_every_s")},
    "store.state_dir": Action.RESTART,
    "store.max_bytes": Action.APPLY,
    "service.control_socket": Action.RESTART,
    "service.settle_s": Action.APPLY,
    "service.poll_s": Action.APPLY,
    "service.drain_s": Action.APPLY,
    "service.threads": Action.RESTART,
    "service.batch_wait_ms": Action.APPLY,
    "service.log_level": Action.APPLY,
}


class Changes(BaseModel):
    """What differs between two settings, by action; the supervisor performs it."""

    model_config = ConfigDict(frozen=True)

    fields: tuple[str, ...] = ()
    actions: frozenset[Action] = frozenset()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reopened: tuple[str, ...] = ()


def changes(old: Settings, new: Settings) -> Changes:
    """Which fields differ, and what each asks for; cameras are compared by id."""
    fields = [name for name in ACTIONS if not name.startswith("cameras.") and _value(old, name) != _value(new, name)]
    before = {camera.id: camera for camera in old.cameras}
    after = {camera.id: camera for camera in new.cameras}
    reopened = []
    for name in before.keys() & after.keys():
        moved = [f for f in CameraSettings.model_fields if getattr(before[name], f) != getattr(after[name], f)]
        fields += [f"cameras.{name}.{field}" for field in moved]
        if any(ACTIONS[f"cameras.{field}"] is Action.REOPEN for field in moved):
            reopened.append(name)
    return Changes(
        fields=tuple(sorted(fields)),
        actions=frozenset(action_of(field) for field in fields),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        reopened=tuple(sorted(reopened)),
    )


def action_of(field: str) -> Action:
    """The action of a dotted field; a camera's field may carry the camera's id (``cameras.gate.source``)."""
    parts = field.split(".")
    return ACTIONS[f"cameras.{parts[-1]}" if parts[0] == "cameras" else field]


def _value(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
