"""Topics: one table of what is published where, with its quality of service and whether the broker keeps it."""

from __future__ import annotations

import hashlib
import hmac
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from vajra_edge.config.settings import Settings

Delivery: TypeAlias = Literal["durable", "live"]

_EVENTS = "/events"

INSTALL = "install"
"""What Home Assistant asks for whose update is installed: one word, since it can send nothing else there."""

VERBS = ("rebuild", "reload", "rollback", "snapshot", "status", "adopt", "set", "unset", INSTALL)
"""What may be asked over MQTT, and nothing else."""

_MACHINE_ID = Path("/etc/machine-id")
_NO_MACHINE_ID = b"uninitialized"
"""What a system's image holds until the first boot has made one, see machine-id(5); the same on every device."""


@dataclass(frozen=True)
class Topic:
    """One row of the table.

    Attributes:
        name: below the device's root, so that a new root or device id moves everything at once.
        qos: 0 at most once, 1 at least once.
        retain: the broker keeps the last value for later subscribers.
        delivery: ``durable``: messages wait for the broker; ``live``: what cannot be sent now is dropped, and a gap
            record says so. Retained topics always have their newest value sent.
        is_path: the name is the full MQTT topic, which belongs to another program's names.
    """

    name: str
    qos: int
    retain: bool
    delivery: Delivery = "live"
    is_path: bool = False


@dataclass(frozen=True)
class Topics:
    """Every topic of one device.

    Attributes:
        root: first part of every topic (``[mqtt] root``).
        device: second part.
        detections_qos: of the detection messages (``[mqtt] qos``); states and responses always use 1.
        detections_delivery: of the detection messages (``[mqtt] delivery``); at quality of service 0 always live.
    """

    root: str
    device: str
    detections_qos: int = 1
    detections_delivery: Delivery = "durable"

    status = Topic("status", 1, retain=True)
    engine = Topic("engine", 1, retain=True)
    history = Topic("history", 1, retain=True)

    def camera_status(self, camera: str) -> Topic:
        """Whether a camera delivers, retained."""
        return Topic(f"camera/{camera}/status", 1, retain=True)

    def detections(self, camera: str) -> Topic:
        """One message a frame, and the gap records of those that do not come."""
        return Topic(f"camera/{camera}/detections", self.detections_qos, retain=False, delivery=self.delivery)

    def events(self, camera: str) -> Topic:
        """What happens at its places, and the gap records of what does not come; kept as detections are."""
        return Topic(f"camera/{camera}/events", self.detections_qos, retain=False, delivery=self.delivery)

    def places(self, camera: str) -> Topic:
        """Who is where now, retained."""
        return Topic(f"camera/{camera}/places", 1, retain=True)

    def totals(self, camera: str) -> Topic:
        """What happened by hour, retained."""
        return Topic(f"camera/{camera}/totals", 1, retain=True)

    def objects(self, camera: str) -> Topic:
        """How many objects a camera shows now, retained; where Home Assistant is asked for."""
        return Topic(f"camera/{camera}/objects", 1, retain=True)

    @property
    def delivery(self) -> Delivery:
        """Of the detection messages: without acknowledgements nothing tells what the broker has."""
        return self.detections_delivery if self.detections_qos else "live"

    def snapshot(self, camera: str) -> Topic:
        """A JPEG now and then; one that cannot be sent now is not worth sending later."""
        return Topic(f"camera/{camera}/snapshot", 0, retain=False)

    def request(self, verb: str) -> Topic:
        """Where a verb is asked for."""
        return Topic(f"request/{verb}", 1, retain=False)

    def response(self, verb: str) -> Topic:
        """Where it is answered."""
        return Topic(f"response/{verb}", 1, retain=False)

    def path(self, topic: Topic) -> str:
        """The full MQTT topic."""
        return topic.name if topic.is_path else f"{self.root}/{self.device}/{topic.name}"


def events_of(camera: str) -> str:
    """Name of the stream of a camera's events in the outbox; no camera's id holds a slash."""
    return camera + _EVENTS


def camera_of(stream: str) -> str:
    """The camera of a stream: its detections have its own name."""
    return stream.removesuffix(_EVENTS)


def topic_of(stream: str, topics: Topics) -> Topic:
    """Where a stream of the outbox goes: a camera's detections, or its events."""
    camera = camera_of(stream)
    return topics.detections(camera) if stream == camera else topics.events(camera)


def topics_of(settings: Settings) -> Topics:
    """The table for these settings."""
    return Topics(settings.mqtt.root, device_id(settings), settings.mqtt.qos, settings.mqtt.delivery)


def device_id(settings: Settings, machine_id: Path = _MACHINE_ID) -> str:
    """The id from the settings, else 12 hex digits derived from the machine.

    The machine id itself is confidential (machine-id(5)), hence a keyed hash of it, as
    ``sd_id128_get_machine_app_specific`` makes one. Where there is none the host name takes its place.
    """
    if settings.device_id is not None:
        return settings.device_id
    return hmac.new(_secret(machine_id) or socket.gethostname().encode(), b"vajra-edge", hashlib.sha256).hexdigest()[
        :12
    ]


def _secret(machine_id: Path) -> bytes:
    """The machine id; empty where there is none, or one that is every machine's."""
    try:
        secret = machine_id.read_bytes().strip()
    except OSError:
        return b""
    return b"" if secret == _NO_MACHINE_ID or not secret.strip(b"0-") else secret
