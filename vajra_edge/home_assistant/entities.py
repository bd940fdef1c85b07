"""Entities: what Home Assistant shows of a device, one class a platform, each field named as Home Assistant names it.

https://www.home-assistant.io/integrations/mqtt/ says what each means. A field that is None is not sent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

_OURS = ("key", "availability")

SET_NOW_AT = "{% set now_at = utcnow() if utcnow is defined else as_datetime(0).now(as_datetime(0).tzinfo) %}"
"""Begins a template that has to know the time: openHAB's templates have no ``utcnow``, but datetimes, which know it."""


@dataclass(frozen=True)
class Availability:
    """When an entity is there: a topic, and a template that makes ``online`` or ``offline`` of its messages."""

    topic: str
    value_template: str


@dataclass(frozen=True, kw_only=True)
class Entity:
    """What all platforms have.

    Attributes:
        key: tells it from the others of its device, over restarts; of letters, digits, ``-`` and ``_``.
        name: shown behind the device's.
        availability: it is there while all of these say so.
    """

    platform: ClassVar[str]

    key: str
    name: str
    availability: tuple[Availability, ...]
    entity_category: str | None = None
    icon: str | None = None
    json_attributes_topic: str | None = None
    json_attributes_template: str | None = None

    def told(self) -> dict[str, Any]:
        """Its part of a payload, but for its identity."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _OURS}
        said = {name: value for name, value in own.items() if value is not None}
        there = [{"topic": one.topic, "value_template": one.value_template} for one in self.availability]
        return {**said, "availability": there, "availability_mode": "all"}


@dataclass(frozen=True, kw_only=True)
class BinarySensor(Entity):
    """``ON``, ``OFF``, or ``None`` for unknown."""

    platform = "binary_sensor"

    state_topic: str
    value_template: str
    device_class: str


@dataclass(frozen=True, kw_only=True)
class Sensor(Entity):
    """A value; ``None`` for unknown."""

    platform = "sensor"

    state_topic: str
    value_template: str
    device_class: str | None = None
    state_class: str | None = None
    unit_of_measurement: str | None = None
    suggested_display_precision: int | None = None
    options: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Image(Entity):
    """The newest picture."""

    platform = "image"

    image_topic: str
    content_type: str


@dataclass(frozen=True, kw_only=True)
class Camera(Entity):
    """The newest picture, for who knows no ``image``; Home Assistant, which does, leaves it disabled."""

    platform = "camera"

    topic: str
    enabled_by_default: bool = False


@dataclass(frozen=True, kw_only=True)
class Event(Entity):
    """Something happened; the template makes JSON with ``event_type``, or nothing."""

    platform = "event"

    state_topic: str
    value_template: str
    event_types: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Update(Entity):
    """What is installed and what is wanted, and how far the change is."""

    platform = "update"

    state_topic: str
    value_template: str
    title: str
    command_topic: str | None = None
    payload_install: str | None = None


@dataclass(frozen=True, kw_only=True)
class Button(Entity):
    """Something to press."""

    platform = "button"

    command_topic: str
    command_template: str


@dataclass(frozen=True, kw_only=True)
class Control(Entity):
    """What shows a value and changes it; ``value`` of the command's template is what somebody chose."""

    state_topic: str
    value_template: str
    command_topic: str
    command_template: str


@dataclass(frozen=True, kw_only=True)
class Switch(Control):
    """On or off, said by these two words in both directions."""

    platform = "switch"

    payload_on: str
    payload_off: str


@dataclass(frozen=True, kw_only=True)
class Number(Control):
    """A number between two."""

    platform = "number"

    min: float
    max: float
    step: float
    mode: str
    unit_of_measurement: str | None = None


@dataclass(frozen=True, kw_only=True)
class Text(Control):
    """A line of text."""

    platform = "text"
