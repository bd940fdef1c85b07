"""What openHAB 5 takes of Home Assistant's discovery, in its binding ``org.openhab.binding.homeassistant``.

Read in github.com/openhab/openhab-addons, folder ``bundles/org.openhab.binding.homeassistant/src/main``; J is
``java/org/openhab/binding/homeassistant/internal``, P ``python/homeassistant``:

- ``P/components/mqtt/discovery.py`` at 9103b01, ``J/component/ComponentFactory.java`` at a3cce8e: the components. Any
  other is refused with a warning; ``image`` is openhab-addons issue 20618, open since 2026-04.
- ``J/HaID.java`` at e4757f4, ``J/component/AbstractComponent.java`` at 803e14b: topics, and how their last level
  becomes the id of a channel, for which ``-`` and ``_`` are the same.
- ``P/components/mqtt/schemas.py`` at 32d1b91: the device and who sent it.
- ``bundles/org.openhab.binding.mqtt.generic/…/AbstractMQTTThingHandler.java`` at bef175e: availability belongs to the
  device: of each topic the template that came first counts, and the mode that came last.
- ``P/helpers/template/__init__.py`` at 54f2291, ``P/helpers/template.py`` at 0a0672a: templates. What is not defined is
  an error, and ``utcnow``, ``now`` and ``this`` are not; where a template fails the message stays as it came, and a
  command is not sent.
- ``J/component``: ``Sensor.java`` and ``Event.java`` at 565fc32, ``Number.java`` at 1570e83, ``Switch.java`` at
  1652683, ``Update.java`` and ``BinarySensor.java`` at 54f2291, ``Camera.java`` at ab0215b; ``J/ComponentChannel.java``
  at e384173.

openHAB below 5 has another engine for templates, which knows less.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

COMPONENTS = {
    *("alarm_control_panel", "binary_sensor", "button", "camera", "climate", "cover", "device_automation"),
    *("device_tracker", "event", "fan", "humidifier", "light", "lock", "number", "scene", "select", "sensor", "switch"),
    *("tag", "text", "update", "vacuum", "valve", "water_heater"),
}
DEVICE = {
    *("identifiers", "connections", "manufacturer", "model", "model_id", "name", "hw_version", "serial_number"),
    *("sw_version", "via_device", "suggested_area", "configuration_url"),
}
ORIGIN = {"name", "sw_version", "support_url"}

UNKNOWN = "None"
"""A sensor's or number's value that becomes undefined."""


def as_datetime(value: str | float) -> datetime:
    """Of a time in ISO 8601 or of Unix seconds, with its zone."""
    if isinstance(value, str):
        return datetime.fromisoformat(value.replace("Z", "+00:00"))  # which Python 3.10 does not take
    return datetime.fromtimestamp(value, timezone.utc)


def environment() -> jinja2.Environment:
    """Templates of openHAB, with those functions of its own that ours use. Look there before another is added."""
    templates = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    templates.globals["as_datetime"] = as_datetime
    return templates


def rendered(template: str, **known: Any) -> str:
    """Raises: jinja2.TemplateError."""
    return environment().from_string(template).render(**known).strip()
