"""Payloads: a device and its entities as the retained messages that Home Assistant, or openHAB, discovers them by.

Home Assistant reads one message a device (since 2024.12); openHAB, and older releases, one an entity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from vajra_edge.home_assistant.entities import Entity
from vajra_edge.version import VERSION

Components: TypeAlias = "Mapping[str, Mapping[str, str]]"
"""Of each message, by its path, the platform of each entity in it, by its key."""

_ORIGIN = {"name": "vajra-edge", "sw_version": VERSION}
_DIGEST_CHARS = 8


@dataclass(frozen=True)
class Device:
    """A Jetson or a camera, as Home Assistant lists it.

    Attributes:
        place: below ``<prefix>/device/``, before ``/config``: one level or two, of letters, digits, ``-`` and ``_``.
        identifier: tells it from all others.
        name: shown.
        model: what it is.
        via: identifier of the device that it hangs on; None: it stands alone.
    """

    place: str
    identifier: str
    name: str
    model: str
    via: str | None = None

    def told(self) -> dict[str, Any]:
        """As each payload carries it."""
        via = {} if self.via is None else {"via_device": self.via}
        return {
            "identifiers": [self.identifier],
            "name": self.name,
            "manufacturer": "vajra-edge",
            "model": self.model,
            "sw_version": VERSION,
            **via,
        }


@dataclass(frozen=True)
class Discovery:
    """One retained message.

    Attributes:
        path: full MQTT topic.
        payload: JSON.
        components: platform of each entity in it, by its key; empty where the message is of one entity.
    """

    path: str
    payload: bytes
    components: Mapping[str, str]


def as_device(prefix: str, device: Device, entities: Sequence[Entity], before: Components) -> Discovery:
    """One message for all entities.

    Args:
        prefix: first levels of the topic.
        device: that has the entities.
        entities: of it.
        before: what messages had earlier. An entity that is merely left out would stay in Home Assistant for ever: it
            goes when it is named with its platform and nothing else.
    """
    path = f"{prefix}/device/{device.place}/config"
    now = {one.key: one.platform for one in entities}
    gone = {key: {"platform": platform} for key, platform in before.get(path, {}).items() if key not in now}
    there = {one.key: {"platform": one.platform, **_identified(device, one)} for one in entities}
    payload = {"device": device.told(), "origin": _ORIGIN, "components": {**gone, **there}}
    return Discovery(path, orjson.dumps(payload), {**before.get(path, {}), **now})


def as_components(prefix: str, device: Device, entities: Sequence[Entity]) -> Iterator[Discovery]:
    """A message for each entity."""
    node = device.place.partition("/")[0]
    for one in entities:
        told = _identified(device, one)
        # the key alone is not unique below the node, where all cameras of a device are
        place = f"{node}/{one.key}-{_digest(told['unique_id'])}"
        payload = {**told, "device": device.told(), "origin": _ORIGIN}
        yield Discovery(f"{prefix}/{one.platform}/{place}/config", orjson.dumps(payload), {})


def in_topic(name: str) -> str:
    """A name as Home Assistant takes it in a topic; another name never becomes the same."""
    legal = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return name if legal == name else f"{legal}-{_digest(name)}"


def _identified(device: Device, entity: Entity) -> dict[str, Any]:
    return {"unique_id": f"{device.identifier}/{entity.key}", **entity.told()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARS]
