"""Controls: what can be pressed, switched and set in Home Assistant, each a request of ours, as its template writes it.

They are there only while requests are taken that nobody signs. A request is taken once, and for some minutes: so each
says when it was made, by Home Assistant's clock, or by openHAB's, whose templates have no ``utcnow`` and get a number
as text, with its unit behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from vajra_edge.home_assistant.entities import SET_NOW_AT, Availability, Button, Entity, Number, Switch, Text
from vajra_edge.mqtt.topics import Topics

LONGEST_SNAPSHOT_S = 86_400.0
"""What the setting takes: of a value beyond the bounds Home Assistant logs an error, and shows the one before."""

_WHEN = (  # openHAB's clock has milliseconds, in which a group of cameras may be switched
    '"transaction": "home-assistant-{{ now_at.timestamp() }}-{{ range(100000) | random }}", '
    '"at": "{{ now_at.isoformat() }}"'
)
_SECONDS = (  # at 0 none is sent
    "{% set seconds = (value | string).split(' ')[0] | float %}{{ seconds if seconds else 'null' }}"
)
MOST_SHOWN = 255
"""Characters that a state of Home Assistant may have; of a longer one it warns in its log at each message."""

_SHOWN_NAMES = (  # who sends the other words back is refused: there is no such class
    "{% set names = (value_json.settings.classes or []) | join(', ') %}"
    f"{{{{ names if names | length <= {MOST_SHOWN} else"
    " '(' ~ (value_json.settings.classes | length) ~ ' classes: too many to be shown here)' }}"
)
_NAMES = "{{ ((value.split(',') | map('trim') | select | list) or none) | tojson }}"


def of_the_device(topics: Topics, there: tuple[Availability, ...]) -> Iterator[Entity]:
    """Of the engine."""
    for key, name, verb, fields in (
        ("rebuild", "Rebuild engine", "rebuild", {"force": True, "wait": False}),
        ("rollback", "Roll engine back", "rollback", {"wait": False}),
    ):
        yield Button(
            key=key,
            name=name,
            availability=there,
            entity_category="config",
            command_topic=topics.path(topics.request(verb)),
            command_template=_request(fields),
        )


def of_a_camera(
    topics: Topics, camera: str, there: tuple[Availability, ...], streams: tuple[Availability, ...]
) -> Iterator[Entity]:
    """Of one camera.

    Args:
        topics: the table of topics.
        camera: its id.
        there: while the daemon runs: a camera that is off can be turned on.
        streams: while it gives pictures.
    """
    yield Button(
        key="take-snapshot",
        name="Take snapshot",
        availability=streams,
        command_topic=topics.path(topics.request("snapshot")),
        command_template=_request({"camera": camera}),
    )
    yield Button(
        key="reset",
        name="Undo changes",
        availability=there,
        entity_category="config",
        command_topic=topics.path(topics.request("unset")),
        command_template=_request({"setting": f"cameras.{camera}"}),
    )
    state, request = topics.path(topics.camera_status(camera)), topics.path(topics.request("set"))
    yield Switch(
        key="enabled",
        name="Enabled",
        availability=there,
        state_topic=state,
        value_template="{{ value_json.settings.enabled | tojson }}",
        command_topic=request,
        command_template=_change(camera, "enabled", "{{ value }}"),
        payload_on="true",
        payload_off="false",
    )
    yield Number(
        key="confidence",
        name="Confidence",
        availability=there,
        entity_category="config",
        state_topic=state,
        value_template="{{ value_json.settings.confidence }}",
        command_topic=request,
        command_template=_change(camera, "confidence", "{{ value }}"),
        min=0.0,
        max=1.0,
        step=0.01,
        mode="slider",
    )
    yield Number(
        key="snapshot-interval",
        name="Snapshot interval",
        availability=there,
        entity_category="config",
        state_topic=state,
        value_template="{{ value_json.settings.snapshot_every_s or 0 }}",
        command_topic=request,
        command_template=_change(camera, "snapshot_every_s", _SECONDS),
        min=0.0,
        max=LONGEST_SNAPSHOT_S,
        step=1.0,
        mode="box",
        unit_of_measurement="s",
    )
    yield Text(
        key="classes",
        name="Classes",
        availability=there,
        entity_category="config",
        state_topic=state,
        value_template=_SHOWN_NAMES,
        command_topic=request,
        command_template=_change(camera, "classes", _NAMES),
    )


def _request(fields: Mapping[str, object]) -> str:
    """A template; ids hold nothing that a template reads."""
    told = json.dumps(dict(fields)).removeprefix("{")
    return f"{SET_NOW_AT}{{{_WHEN}, {told}"


def _change(camera: str, field: str, value: str) -> str:
    return f'{SET_NOW_AT}{{{_WHEN}, "setting": "cameras.{camera}.{field}", "value": {value}}}'
