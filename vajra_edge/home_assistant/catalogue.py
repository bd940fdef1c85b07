"""Catalogue: which entities our topics feed, and how a template reads each from a message.

What is not known is said as ``None``, which Home Assistant shows as unknown; what is not there is unavailable. So a
lost camera has no count of objects, and nor has one whose frames no engine sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.home_assistant import controls, payloads, places
from vajra_edge.home_assistant.entities import (
    SET_NOW_AT,
    Availability,
    BinarySensor,
    Camera,
    Entity,
    Event,
    Image,
    Sensor,
    Update,
)
from vajra_edge.home_assistant.payloads import Components, Device, Discovery, in_topic
from vajra_edge.mqtt.messages import SERVICE_STATES
from vajra_edge.mqtt.topics import INSTALL, Topics, topics_of
from vajra_edge.plans.audit_log import Happened

_DEVICE_THERE = "{{ 'offline' if value_json.state in ['stopped', 'failed', 'lost'] else 'online' }}"
_CAMERA_THERE = "{{ 'online' if value_json.state == 'streaming' else 'offline' }}"
_REASON = "{{ {'reason': value_json.reason} | tojson }}"
_ENGINE_ATTRIBUTES = ("wanted_precision", "target", "backend", "weights", "fingerprint", "why")
_EVENT_ATTRIBUTES = ("number", "fingerprint", "reason", "asked_by", "duration_s", "at")

_TROUBLED = (  # between two attempts a lost camera is opening: it has a problem until it streams
    "{{ 'ON' if value_json.state == 'lost' or (value_json.state == 'opening' and value_json.attempts > 0) else 'OFF' }}"
)

_UPDATE = (
    "{% set wanted = value_json.wanted or value_json.engine %}"
    "{% set building = value_json.progress is not none %}"
    "{{ dict({'installed_version': value_json.engine or 'none', 'latest_version': wanted} if wanted else {},"
    " in_progress=building, update_percentage=value_json.progress * 100 if building else none) | tojson }}"
)

_LATELY_S = 60
"""openHAB knows no last event to compare with: there one has happened while it is no older than this."""

_HAPPENED = (  # each connection of ours says the newest entry again: it has happened once
    f"{SET_NOW_AT}{{% set entry = value_json.entries[-1] %}}"
    "{% set is_new = entry.number != this.attributes.number if this is defined else"
    f" (now_at - as_datetime(entry.at)).total_seconds() | abs < {_LATELY_S} %}}"
    "{% if is_new %}"
    f"{{{{ {{'event_type': entry.happened, {', '.join(f'{name!r}: entry.{name}' for name in _EVENT_ATTRIBUTES)}}}"
    " | tojson }}{% endif %}"
)


def discoveries(settings: Settings, before: Components) -> tuple[Discovery, ...]:
    """Every retained message that makes the device and its cameras appear; none where nobody asked for that.

    Args:
        settings: the operator's.
        before: of the messages that were sent earlier.
    """
    mqtt, topics = settings.mqtt, topics_of(settings)
    if mqtt.home_assistant == "off":
        return ()
    commands = mqtt.commands and not mqtt.signed_commands  # nobody in Home Assistant can sign
    told = [(_device(topics), tuple(device_entities(topics, commands=commands)))]
    for camera in settings.cameras:
        classes = camera.classes or settings.detect.classes or ()
        told.append((_camera(topics, camera), tuple(camera_entities(topics, camera, classes, commands=commands))))
    prefix = mqtt.discovery_prefix
    if mqtt.home_assistant == "components":
        entities = ((device, (*known, *_pictures(known))) for device, known in told)
        return tuple(one for device, known in entities for one in payloads.as_components(prefix, device, known))
    return tuple(payloads.as_device(prefix, device, entities, before) for device, entities in told)


def _device(topics: Topics) -> Device:
    place, identifier = f"vajra-edge-{in_topic(topics.device)}", f"vajra-edge/{topics.device}"
    return Device(place, identifier, topics.device, "Detection appliance")


def _camera(topics: Topics, camera: CameraSettings) -> Device:
    of, name = _device(topics), f"{topics.device} {camera.id}"  # devices in one house may have cameras of one name
    return Device(f"{of.place}/{in_topic(camera.id)}", f"{of.identifier}/{camera.id}", name, "Camera", of.identifier)


def _pictures(entities: Sequence[Entity]) -> Iterator[Entity]:
    """The images once more as cameras: openHAB, which reads this form, refuses images."""
    for one in entities:
        if isinstance(one, Image):
            yield Camera(key="picture", name="Picture", availability=one.availability, topic=one.image_topic)


def device_entities(topics: Topics, *, commands: bool) -> Iterator[Entity]:
    """Of the daemon and its engine."""
    status, engine = topics.path(topics.status), topics.path(topics.engine)
    there = (Availability(status, _DEVICE_THERE),)
    yield Sensor(
        key="state",
        name="State",
        availability=there,
        entity_category="diagnostic",
        state_topic=status,
        value_template="{{ value_json.state }}",
        device_class="enum",
        options=SERVICE_STATES,
    )
    yield BinarySensor(
        key="problem",
        name="Problem",
        availability=there,
        entity_category="diagnostic",
        state_topic=status,
        value_template="{{ 'ON' if value_json.reason else 'OFF' }}",
        device_class="problem",
        json_attributes_topic=status,
        json_attributes_template=_REASON,
    )
    yield Sensor(
        key="precision",
        name="Engine precision",
        availability=there,
        entity_category="diagnostic",
        state_topic=engine,
        value_template="{{ value_json.precision or none }}",
        json_attributes_topic=engine,
        json_attributes_template=_attributes(_ENGINE_ATTRIBUTES),
    )
    yield Sensor(
        key="latency",
        name="Inference time",
        availability=there,
        entity_category="diagnostic",
        state_topic=engine,
        value_template="{{ value_json.latency_ms }}",
        device_class="duration",
        state_class="measurement",
        unit_of_measurement="ms",
        suggested_display_precision=1,
    )
    yield Event(
        key="history",
        name="Engine event",
        availability=there,
        state_topic=topics.path(topics.history),
        value_template=_HAPPENED,
        event_types=tuple(one.value for one in Happened),
    )
    yield Update(
        key="engine",
        name="Engine",
        availability=there,
        state_topic=status,
        value_template=_UPDATE,
        title="Engine",
        command_topic=topics.path(topics.request(INSTALL)) if commands else None,
        payload_install=INSTALL if commands else None,
    )
    if commands:
        yield from controls.of_the_device(topics, there)


def camera_entities(
    topics: Topics, camera: CameraSettings, classes: tuple[str, ...], *, commands: bool
) -> Iterator[Entity]:
    """Of one camera; each class that the settings name has a count of its own."""
    status, objects = topics.path(topics.camera_status(camera.id)), topics.path(topics.objects(camera.id))
    device = Availability(topics.path(topics.status), _DEVICE_THERE)
    streams = (device, Availability(status, _CAMERA_THERE))
    yield BinarySensor(
        key="connected",
        name="Connected",
        availability=(device,),
        entity_category="diagnostic",
        state_topic=status,
        value_template="{{ 'ON' if value_json.state == 'streaming' else 'OFF' }}",
        device_class="connectivity",
    )
    yield BinarySensor(
        key="problem",
        name="Problem",
        availability=(device,),
        entity_category="diagnostic",
        state_topic=status,
        value_template=_TROUBLED,
        device_class="problem",
        json_attributes_topic=status,
        json_attributes_template=_REASON,
    )
    yield Sensor(
        key="fps",
        name="Frame rate",
        availability=streams,
        entity_category="diagnostic",
        state_topic=status,
        value_template="{{ value_json.fps }}",
        state_class="measurement",
        unit_of_measurement="fps",
        suggested_display_precision=1,
    )
    yield Sensor(
        key="objects",
        name="Objects",
        availability=streams,
        state_topic=objects,
        value_template="{{ value_json.total }}",
        state_class="measurement",
        unit_of_measurement="objects",
        json_attributes_topic=objects,
        json_attributes_template="{{ (value_json.counts or {}) | tojson }}",
    )
    for name in classes:
        yield Sensor(
            key=f"class-{in_topic(name)}",
            name=name,
            availability=streams,
            state_topic=objects,
            value_template=_count_of(name),
            state_class="measurement",
            unit_of_measurement="objects",
        )
    yield from places.of_a_camera(topics, camera, (device,), streams)
    if camera.snapshot_every_s is not None or commands:
        yield Image(
            key="snapshot",
            name="Snapshot",
            availability=streams,
            image_topic=topics.path(topics.snapshot(camera.id)),
            content_type="image/jpeg",
        )
    if commands:
        yield from controls.of_a_camera(topics, camera.id, (device,), streams)


def _attributes(names: tuple[str, ...]) -> str:
    return f"{{{{ {{{', '.join(f'{name!r}: value_json.{name}' for name in names)}}} | tojson }}}}"


def _count_of(name: str) -> str:
    """A class that is not named in known counts is not in the picture; the name may hold quotes and braces."""
    quoted = json.dumps(name, ensure_ascii=False)
    return f"{{{{ none if value_json.counts is none else value_json.counts[{quoted}] | default(0) }}}}"
