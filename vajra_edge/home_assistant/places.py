"""Places: what Home Assistant shows of a camera's zones and lines, and what happens there.

A zone is occupied, has so many objects now, and so many came into it; a line was crossed so often each way. What nobody
can see now is unknown, and never empty. Totals stay: they are what was counted, whoever sees now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from vajra_edge.config.settings import CameraSettings
from vajra_edge.home_assistant.entities import Availability, BinarySensor, Entity, Event, Sensor
from vajra_edge.home_assistant.payloads import in_topic
from vajra_edge.mqtt.topics import Topics

EVENT_TYPES = ("enter", "dwell", "leave", "cross")
_ATTRIBUTES = ("at", "place", "way", "track_id", "class", "dwell_s", "reason")

_HAPPENED = (  # one that was kept while the broker was away did not happen now; a gap record is no event
    "{% if value_json.event is defined and not value_json.replayed %}"
    f"{{{{ {{'event_type': value_json.event, {', '.join(f'{name!r}: value_json[{name!r}]' for name in _ATTRIBUTES)}}}"
    " | tojson }}{% endif %}"
)


def of_a_camera(
    topics: Topics, camera: CameraSettings, there: tuple[Availability, ...], streams: tuple[Availability, ...]
) -> Iterator[Entity]:
    """Of its zones and lines; nothing where it has neither.

    Args:
        topics: the table of topics.
        camera: with what is in force.
        there: while the daemon runs.
        streams: while the camera gives pictures.
    """
    places = topics.path(topics.places(camera.id))
    for zone in camera.zones:
        yield from _of_a_zone(places, zone.name, there, streams)
    for line in camera.lines:
        key, found = f"line-{in_topic(line.name)}", _place("lines", line.name)
        yield _total(f"{key}-in", f"{line.name} in", places, there, found, "crossed_in")
        yield _total(f"{key}-out", f"{line.name} out", places, there, found, "crossed_out")
    if camera.zones or camera.lines:
        yield Event(
            key="places",
            name="Zone and line event",
            availability=there,
            state_topic=topics.path(topics.events(camera.id)),
            value_template=_HAPPENED,
            event_types=EVENT_TYPES,
        )


def _of_a_zone(
    places: str, name: str, there: tuple[Availability, ...], streams: tuple[Availability, ...]
) -> Iterator[Entity]:
    key, found = f"zone-{in_topic(name)}", _place("zones", name)
    unknown = "not place or place.present is none"
    yield BinarySensor(
        key=f"{key}-occupied",
        name=f"{name} occupied",
        availability=streams,
        state_topic=places,
        value_template=f"{found}{{{{ none if {unknown} else 'ON' if place.present else 'OFF' }}}}",
        device_class="occupancy",
    )
    yield Sensor(
        key=f"{key}-objects",
        name=f"{name} objects",
        availability=streams,
        state_topic=places,
        value_template=f"{found}{{{{ none if {unknown} else place.count.values() | sum }}}}",
        state_class="measurement",
        unit_of_measurement="objects",
        json_attributes_topic=places,
        json_attributes_template=f"{found}{{{{ (place.count if place else {{}}) | tojson }}}}",
    )
    yield _total(f"{key}-entered", f"{name} entered", places, there, found, "entered")


def _total(key: str, name: str, places: str, there: tuple[Availability, ...], found: str, field: str) -> Sensor:
    """One that only grows, by class in its attributes; where the count began anew Home Assistant goes on from there."""
    return Sensor(
        key=key,
        name=name,
        availability=there,
        state_topic=places,
        value_template=f"{found}{{{{ place.{field}.values() | sum if place else none }}}}",
        state_class="total_increasing",
        unit_of_measurement="objects",
        json_attributes_topic=places,
        json_attributes_template=f"{found}{{{{ (place.{field} if place else {{}}) | tojson }}}}",
    )


def _place(kind: str, name: str) -> str:
    """Begins a template: ``place`` is the one of this name, or none in a message of earlier settings.

    Nor is it in the empty message that takes the topic off the broker, of which there is no ``value_json``.
    """
    quoted = json.dumps(name, ensure_ascii=False)
    told = f"(value_json | default({{}})).{kind} | default([])"
    return f"{{% set place = {told} | selectattr('name', 'eq', {quoted}) | first | default(none) %}}"
