"""What Home Assistant's pages say of MQTT entities: the keys of each platform, and those that it must have.

https://www.home-assistant.io/integrations/mqtt/ and its page of each platform, 2026.11. An unknown key of an entity is
dropped without a word, and an unknown key of ``device`` costs the whole payload.
"""

from __future__ import annotations

from dataclasses import dataclass

COMMON = {
    *("unique_id", "name", "availability", "availability_mode", "entity_category", "icon", "enabled_by_default"),
    *("json_attributes_topic", "json_attributes_template", "default_entity_id", "qos", "encoding"),
}
DEVICE = {
    *("identifiers", "connections", "name", "manufacturer", "model", "model_id", "serial_number"),
    *("hw_version", "sw_version", "suggested_area", "configuration_url", "via_device"),
}
ORIGIN = {"name", "sw_version", "support_url"}
CATEGORIES = {"config", "diagnostic"}


@dataclass(frozen=True)
class Platform:
    """``must``: without these the entity is refused; ``may``: beside those that all platforms have."""

    must: frozenset[str]
    may: frozenset[str]


def _platform(must: str, may: str) -> Platform:
    return Platform(frozenset(must.split()), frozenset(may.split()))


PLATFORMS = {
    "binary_sensor": _platform(
        "state_topic", "device_class payload_on payload_off value_template off_delay expire_after"
    ),
    "sensor": _platform(
        "state_topic",
        "device_class options state_class unit_of_measurement suggested_display_precision value_template expire_after",
    ),
    "image": _platform("image_topic", "content_type image_encoding"),
    "camera": _platform("topic", "image_encoding"),
    "event": _platform("state_topic event_types", "device_class value_template"),
    "update": _platform(
        "state_topic",
        "command_topic payload_install latest_version_topic latest_version_template value_template title device_class",
    ),
    "button": _platform("command_topic", "command_template payload_press device_class retain"),
    "switch": _platform(
        "command_topic",
        "command_template payload_on payload_off state_on state_off state_topic value_template device_class retain",
    ),
    "number": _platform(
        "command_topic",
        "command_template min max step mode state_topic value_template unit_of_measurement device_class retain",
    ),
    "text": _platform("command_topic", "command_template min max mode pattern state_topic value_template retain"),
}
DEVICE_CLASSES = {"binary_sensor": {"connectivity", "occupancy", "problem"}, "sensor": {"enum", "duration"}}
STATE_CLASSES = {"measurement", "total", "total_increasing"}
