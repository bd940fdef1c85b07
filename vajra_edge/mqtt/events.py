"""Events of a connection, and what a refusal, an exception or a silence means for the operator, with the remedy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from vajra_edge import clock
from vajra_edge.config.settings import MqttSettings
from vajra_edge.config.text_file import Unreadable
from vajra_edge.errors import PublishError
from vajra_edge.mqtt.connection import Doubt
from vajra_edge.wording import Setting, Text, say, several

PORT, TLS_PORT = 1883, 8883
"""Registered for MQTT, without and with TLS."""

FAILURE = 0x80
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
"""Of the device or of the broker's disk, and so of no single message."""
TRANSIENT = frozenset({0x80, 0x83, QUOTA_EXCEEDED})
"""Unspecified, implementation specific, quota exceeded: what is refused now may be welcome later."""
UNSUPPORTED_PROTOCOL = 0x84

NOT_AUTHORIZED = 0x87
TAKEN_OVER = 0x8E
UNSUPPORTED_QOS = 0x9B
"""Of a CONNACK: the will's quality of service is above the broker's highest."""
OVERSIZED = 0x95
"""Of a DISCONNECT: the broker's word for a packet that is larger than it takes."""
ABOUT_MESSAGES = frozenset({0x80, 0x81, 0x82, 0x83, NOT_AUTHORIZED, 0x90, 0x94, 0x99, 0x9A, UNSUPPORTED_QOS})
"""Of a DISCONNECT: malformed packet, protocol error, not authorized, topic name, payload format, retain or quality of
service not supported: some brokers end the connection over one message that they do not like."""


class LossCause(Enum):
    """What the end of a connection says about the messages that were under way, and about whoever else is there."""

    OTHER = "nothing"
    HUNG_UP = "the broker broke it, perhaps over one of them"
    TOO_LARGE = "one is too large for the broker"
    RIVAL = "another client took the session over"
    MONSTER = "the broker sent a larger packet than is taken"


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
    UNSUPPORTED_QOS: "let the broker take a will at QoS 0",
}
_QUOTA_REMEDY = "raise the broker's quota for this device"
_NOT_SENT_REMEDIES: Mapping[int, Text] = {
    0x80: "see the broker's log; it is tried again a few times",
    0x83: "see the broker's log; it is tried again a few times",
    QUOTA_EXCEEDED: _QUOTA_REMEDY,
    0x99: "let the broker take JSON on this topic",
}
_DISCONNECT_REMEDIES: Mapping[int, Text] = {
    0x8B: "the broker shuts down; it is tried again",
    0x8D: say("the network stalls for longer than ", Setting.MQTT_KEEPALIVE_S, " allows; it is tried again"),
    TAKEN_OVER: say("another client has the same id: give each device its own ", Setting.DEVICE_ID),
    0x98: "the broker's operator ended it; it is tried again",
    0x9D: "the broker has moved: ask its operator where to",
    0x95: say("raise the broker's packet limit, or lower ", Setting.MAX_DET),
    QUOTA_EXCEEDED: _QUOTA_REMEDY,
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
    certificate = () if not mqtt.tls or mqtt.cert_file else (", and whether it wants a ", Setting.MQTT_CERT_FILE)
    return _error(mqtt, how, say("check that ", _PLACE, " name an MQTT broker", *certificate))


def doubt_of(code: int) -> Doubt:
    """What a CONNACK with a failure says about how the broker was dialled."""
    return {UNSUPPORTED_PROTOCOL: Doubt.SURE, UNSUPPORTED_QOS: Doubt.WILL_QOS}.get(code, Doubt.NONE)


def cause_of(code: int) -> LossCause:
    """What the reason of a DISCONNECT says about messages."""
    if code == OVERSIZED:
        return LossCause.TOO_LARGE
    if code == TAKEN_OVER:
        return LossCause.RIVAL
    return LossCause.HUNG_UP if code in ABOUT_MESSAGES else LossCause.OTHER


def unreachable(mqtt: MqttSettings, error: Exception) -> PublishError:
    """Dialling raised: each kind of exception has its own remedy."""
    if isinstance(error, PublishError):
        return error
    if isinstance(error, ssl.SSLError) or (mqtt.tls and _speaks_no_tls(error)):
        return _no_handshake(mqtt, error)
    if isinstance(error, socket.gaierror | UnicodeError):
        return _unresolved(mqtt, error)
    if isinstance(error, TimeoutError):
        return _error(mqtt, "does not answer", "check the network and the firewall")
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _error(
        mqtt,
        f"cannot be reached: {what}",
        say("check that it runs and that ", several(Setting.MQTT_HOST, Setting.MQTT_PORT), " name it"),
    )


def needs(mqtt: MqttSettings, path: Path, content: Unreadable) -> PublishError:
    """A file that the settings name cannot be read."""
    return _error(mqtt, f"needs {path}, which {content.what}", say(content.remedy, "; see ", several(*_FILES)))


def _no_handshake(mqtt: MqttSettings, error: Exception) -> PublishError:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", str(error))  # set by OpenSSL's errors only
        remedy = say("check ", several(Setting.MQTT_CA_FILE, Setting.MQTT_HOST))
        if clock.may_explain(getattr(error, "verify_code", None)):
            remedy = say(
                f"this device's clock says {datetime.now(timezone.utc).date()}: wait for a time server, or set it"
            )
        return _error(mqtt, f"has a certificate that fails: {why}", remedy)
    if mqtt.tls and _speaks_no_tls(error):
        remedy = say(Setting.MQTT_PORT.given(), " to that of its TLS listener, or ", Setting.MQTT_TLS.to(False))
        return _error(mqtt, "does not speak TLS at this port", remedy)
    reason = getattr(error, "reason", None) or str(error)
    return _error(mqtt, f"fails the TLS handshake: {reason}", say("check ", several(Setting.MQTT_PORT, *_FILES)))


def slow(mqtt: MqttSettings) -> PublishError:
    """An attempt goes on for long: it is the system's resolver that has no limit of its own."""
    remedy = say("check ", Setting.MQTT_HOST, ", the device's DNS and the network")
    return _error(mqtt, "cannot be reached so far: no name server or no route answers", remedy)


def alerted(mqtt: MqttSettings, error: ssl.SSLError) -> PublishError:
    """The broker ended the TLS connection with an alert: with TLS 1.3 it looks at our certificate that late."""
    reason = (error.reason or str(error)).upper()
    files = several(Setting.MQTT_CERT_FILE, Setting.MQTT_KEY_FILE)
    if mqtt.cert_file is None and ("CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason):
        return _error(mqtt, "wants a client certificate", say("name one with its key in ", files))
    what = reason.lower().replace("_", " ")
    return _error(mqtt, f"ended the TLS connection: {what}", say("check ", files, ", and what the broker trusts"))


def _speaks_no_tls(error: Exception) -> bool:
    """A broker without TLS hangs up on the first bytes of a handshake, answers in its own way, or waits for more."""
    if isinstance(error, ssl.SSLError):
        return isinstance(error, ssl.SSLEOFError) or (error.reason or "") in {
            "WRONG_VERSION_NUMBER",
            "UNKNOWN_PROTOCOL",
        }
    handshake = isinstance(error, TimeoutError) and "handshake" in str(error)
    return handshake or isinstance(error, ConnectionResetError | BrokenPipeError)


def _unresolved(mqtt: MqttSettings, error: Exception) -> PublishError:
    """A name that is none, that nobody knows, or that nobody could be asked about."""
    host = mqtt.host
    if "/" in host or host.startswith("[") or host.rpartition(":")[2].isdecimal():
        remedy = say("name the host alone in ", Setting.MQTT_HOST, "; the port goes into ", Setting.MQTT_PORT)
        return _error(mqtt, "is no host name", remedy)
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return _error(mqtt, "has a name that no name server answers for", "check the network and the device's DNS")
    remedy = say("check ", Setting.MQTT_HOST, " and the device's DNS")
    return _error(mqtt, "has a name that cannot be resolved", remedy)


def not_sent(code: int, path: str, size_bytes: int) -> PublishError:
    """The broker refused a message: MQTT 5 PUBACK, or its packet limit."""
    remedy: Text = _NOT_SENT_REMEDIES.get(code, "check the broker's access list")
    if code == PACKET_TOO_LARGE:
        remedy = _smaller(path)
    elif path.startswith("$"):
        remedy = say("topics that begin with $ are the broker's own: ", Setting.MQTT_ROOT.given(), " to another name")
    name = _NAMES.get(code, "")
    return PublishError(
        f"the broker refuses a message on {path} of {size_bytes} bytes: code 0x{code:02X}{name}",
        remedy=remedy,
        code=code,
    )


def broke(path: str, size_bytes: int, *, too_large: bool) -> PublishError:
    """The connection broke over this message, again and again; it is dropped."""
    remedy = _smaller(path) if too_large else "check the broker's access list and its log"
    return PublishError(
        f"the broker breaks the connection over a message on {path} of {size_bytes} bytes, which is dropped",
        remedy=remedy,
    )


def kept_back(path: str, size_bytes: int, *, too_large: bool) -> PublishError:
    """A message like those that the connection broke over is not sent."""
    remedy = _smaller(path) if too_large else "check the broker's access list and its log"
    return PublishError(
        f"a message on {path} of {size_bytes} bytes is dropped: the broker breaks the connection over such",
        remedy=remedy,
    )


def monster(size_bytes: int, most_bytes: int) -> PublishError:
    """The broker sent more than is taken, as its header said; nothing of it was read."""
    return PublishError(
        f"a message of {size_bytes} bytes came for this device, which is not taken and costs the connection",
        remedy=f"send at most {most_bytes} bytes; where it is retained, take it off the broker",
        size_bytes=size_bytes,
    )


def not_granted(mqtt: MqttSettings) -> PublishError:
    """The broker refused to let this device hear what it asked for."""
    return PublishError(f"the broker refuses {_heard(mqtt)}", remedy="check the broker's access list")


def not_heard(mqtt: MqttSettings) -> PublishError:
    """The connection broke twice when that was asked for: some brokers refuse a subscription that way."""
    unasked = Setting.MQTT_COMMANDS.to(False) if mqtt.commands else Setting.MQTT_HOME_ASSISTANT.to("off")
    return PublishError(
        f"the broker breaks the connection when {_heard(mqtt)} are subscribed to",
        remedy=say("check its access list, or ", unasked),
    )


def _heard(mqtt: MqttSettings) -> str:
    if mqtt.home_assistant == "off":
        return "the request topics"
    return f"the topics {'request/# and ' if mqtt.commands else ''}{mqtt.discovery_prefix}/status"


_NAMES: Mapping[int, str] = {
    0x80: ", unspecified error",
    0x83: ", implementation specific error",
    NOT_AUTHORIZED: ", not authorized",
    0x90: ", topic name invalid",
    PACKET_TOO_LARGE: ", packet too large",
    QUOTA_EXCEEDED: ", quota exceeded",
    0x99: ", payload format invalid",
}


def _smaller(path: str) -> Text:
    if path.endswith("/snapshot"):
        return "raise the broker's packet limit, or turn this camera's snapshots off"
    if path.endswith("/detections"):
        return say("raise the broker's packet limit, or lower ", Setting.MAX_DET)
    return "raise the broker's packet limit"


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
    cause: LossCause = LossCause.OTHER


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
