"""Events of a connection, and what a refusal, an exception or a silence means for the operator, with the remedy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError
from vajra_edge.mqtt.connection import Doubt
from vajra_edge.wording import Setting, Text, say, several

PORT, TLS_PORT = 1883, 8883
"""Registered for MQTT, without and with TLS."""

FAILURE = 0x80
PACKET_TOO_LARGE = 0x95
TRANSIENT = frozenset({0x80, 0x83, 0x97})
"""Unspecified, implementation specific, quota exceeded: what is refused now may be welcome later."""
UNSUPPORTED_PROTOCOL = 0x84

_LOGIN = several(Setting.MQTT_USERNAME, Setting.MQTT_PASSWORD_FILE)
_PLACE = several(Setting.MQTT_HOST, Setting.MQTT_PORT, Setting.MQTT_TLS)
_FILES = (Setting.MQTT_CA_FILE, Setting.MQTT_CERT_FILE, Setting.MQTT_KEY_FILE)

_CONNACK_REMEDIES: Mapping[int, Text] = {
    UNSUPPORTED_PROTOCOL: say(Setting.MQTT_PROTOCOL.to("auto")),
    0x85: say(Setting.DEVICE_ID.given(), " to a name the broker allows, or allow this one"),
    0x86: say("check ", _LOGIN),
    0x87: say("check ", _LOGIN, ", and the broker's access list"),
    0x88: "the broker is not ready; it is tried again",
    0x89: "the broker is busy; it is tried again",
    0x8A: "the broker bans this client; ask its operator",
    0x9A: "let the broker keep retained messages: states need them",
}
_DISCONNECT_REMEDIES: Mapping[int, Text] = {
    0x8B: "the broker shuts down; it is tried again",
    0x8E: say("another client has the same id: give each device its own ", Setting.DEVICE_ID),
    0x95: say("raise the broker's packet limit, or lower ", Setting.MAX_DET),
    0x97: "raise the broker's quota for this device",
}


def address(mqtt: MqttSettings) -> tuple[str, int]:
    """Host and port; the port's default depends on TLS."""
    return mqtt.host, mqtt.port or (TLS_PORT if mqtt.tls else PORT)


def refused(mqtt: MqttSettings, code: int, name: str) -> PublishError:
    """The broker answered CONNECT with a failure."""
    return _error(mqtt, f"refuses the connection: {name.lower()}", _CONNACK_REMEDIES.get(code, "see the broker's log"))


def kicked(mqtt: MqttSettings, code: int, name: str) -> PublishError:
    """The broker ended the connection and said why."""
    return _error(mqtt, f"ended the connection: {name.lower()}", _DISCONNECT_REMEDIES.get(code, "see the broker's log"))


def lost(mqtt: MqttSettings, how: str) -> PublishError:
    """The connection broke without a word."""
    remedy = say("it is tried again; where this repeats, another client may use the same ", Setting.DEVICE_ID)
    return _error(mqtt, f"is gone: {how}", remedy)


def silent(mqtt: MqttSettings, how: str) -> PublishError:
    """Something took the connection and did not answer as a broker does."""
    return _error(mqtt, how, say("check that ", _PLACE, " name an MQTT broker"))


def unreachable(mqtt: MqttSettings, error: Exception) -> PublishError:
    """Dialling raised: each kind of exception has its own remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", str(error))  # set by OpenSSL's errors only
        return _error(
            mqtt,
            f"has a certificate that fails: {why}",
            say("check ", several(Setting.MQTT_CA_FILE, Setting.MQTT_HOST)),
        )
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or str(error)
        return _error(mqtt, f"fails the TLS handshake: {reason}", say("check ", several(Setting.MQTT_PORT, *_FILES)))
    if isinstance(error, FileNotFoundError | PermissionError):
        return _error(mqtt, f"needs {error.filename}: {error.strerror}", say("check ", several(*_FILES)))
    if isinstance(error, socket.gaierror | UnicodeError):
        return _error(
            mqtt, "has a name that cannot be resolved", say("check ", Setting.MQTT_HOST, " and the device's DNS")
        )
    if isinstance(error, TimeoutError):
        return _error(mqtt, "does not answer", "check the network and the firewall")
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _error(
        mqtt,
        f"cannot be reached: {what}",
        say("check that it runs and that ", several(Setting.MQTT_HOST, Setting.MQTT_PORT), " name it"),
    )


def not_sent(code: int, path: str) -> PublishError:
    """The broker refused a message: MQTT 5 PUBACK, or its packet limit."""
    remedy = "raise the broker's packet limit" if code == PACKET_TOO_LARGE else "check the broker's access list"
    return PublishError(f"the broker refuses a message on {path}: code 0x{code:02X}", remedy=remedy, code=code)


def not_granted() -> PublishError:
    """The broker refused to let this device hear requests."""
    return PublishError("the broker refuses the request topics", remedy="check the broker's access list")


def _error(mqtt: MqttSettings, what: str, remedy: Text) -> PublishError:
    host, port = address(mqtt)
    return PublishError(f"MQTT broker {host}:{port} {what}", remedy=remedy, host=host, port=port)


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
