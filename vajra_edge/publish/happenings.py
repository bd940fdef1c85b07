"""Happenings: what a connection tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vajra_edge.errors import PublishError
from vajra_edge.publish.connection import Doubt


@dataclass(frozen=True)
class Up:
    """The broker accepted the connection."""

    protocol: str


@dataclass(frozen=True)
class Down:
    """The connection is over, or never came up."""

    error: PublishError
    doubt: Doubt = Doubt.NONE


@dataclass(frozen=True)
class Acked:
    """A message arrived (code below 0x80) or was refused."""

    token: int
    code: int


@dataclass(frozen=True)
class Subscribed:
    """The broker answered a subscription."""

    granted: bool


@dataclass(frozen=True)
class Received:
    """A message from the broker, as paho gave it.

    Attributes:
        path: full MQTT topic.
        payload: its bytes.
        retained: it was stored by the broker before we subscribed.
        response_path: MQTT 5 response topic, or None.
        correlation: MQTT 5 correlation data, or None.
    """

    path: str
    payload: bytes
    retained: bool = False
    response_path: str | None = None
    correlation: bytes | None = None


Happening: TypeAlias = Up | Down | Acked | Subscribed | Received
