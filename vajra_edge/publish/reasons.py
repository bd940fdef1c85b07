"""Reasons: what a broker's refusal, a library's exception or a silence means for the operator, with the remedy."""

from __future__ import annotations

import socket
import ssl

from vajra_edge.errors import PublishError
from vajra_edge.settings import MqttSettings

FAILURE = 0x80
PACKET_TOO_LARGE = 0x95
TRANSIENT = frozenset({0x80, 0x83, 0x97})
"""Unspecified, implementation specific, quota exceeded: what is refused now may be welcome later."""
UNSUPPORTED_PROTOCOL = 0x84

_CONNACK_REMEDIES = {
    UNSUPPORTED_PROTOCOL: 'set [mqtt] protocol to "auto"',
    0x85: "set device_id to a name the broker allows, or allow this one",
    0x86: "check [mqtt] username and password_file",
    0x87: "check [mqtt] username, password_file and the broker's access list",
    0x88: "the broker is not ready; it is tried again",
    0x89: "the broker is busy; it is tried again",
    0x8A: "the broker bans this client; ask its operator",
    0x9A: "let the broker keep retained messages: states need them",
}
_DISCONNECT_REMEDIES = {
    0x8B: "the broker shuts down; it is tried again",
    0x8E: "another client has the same id: give each device its own device_id",
    0x95: "raise the broker's packet limit, or lower [engine] max_det",
    0x97: "raise the broker's quota for this device",
}


def address(mqtt: MqttSettings) -> tuple[str, int]:
    """Host and port; the port's default depends on TLS."""
    return mqtt.host, mqtt.port or (8883 if mqtt.tls else 1883)


def refused(mqtt: MqttSettings, code: int, name: str) -> PublishError:
    """The broker answered CONNECT with a failure."""
    return _error(mqtt, f"refuses the connection: {name.lower()}", _CONNACK_REMEDIES.get(code, "see the broker's log"))


def kicked(mqtt: MqttSettings, code: int, name: str) -> PublishError:
    """The broker ended the connection and said why."""
    return _error(mqtt, f"ended the connection: {name.lower()}", _DISCONNECT_REMEDIES.get(code, "see the broker's log"))


def lost(mqtt: MqttSettings, how: str) -> PublishError:
    """The connection broke without a word."""
    remedy = "it is tried again; where this repeats, another client may use the same device_id"
    return _error(mqtt, f"is gone: {how}", remedy)


def silent(mqtt: MqttSettings, how: str) -> PublishError:
    """Something took the connection and did not answer as a broker does."""
    return _error(mqtt, how, "check that [mqtt] host, port and tls name an MQTT broker")


def unreachable(mqtt: MqttSettings, error: Exception) -> PublishError:
    """Dialling raised: each kind of exception has its own remedy."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = getattr(error, "verify_message", str(error))  # set by OpenSSL's errors only
        return _error(mqtt, f"has a certificate that fails: {why}", "check [mqtt] ca_file and host")
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or str(error)
        return _error(mqtt, f"fails the TLS handshake: {reason}", "check its port, ca_file, cert_file and key_file")
    if isinstance(error, FileNotFoundError | PermissionError):
        return _error(mqtt, f"needs {error.filename}: {error.strerror}", "check [mqtt] ca_file, cert_file, key_file")
    if isinstance(error, socket.gaierror | UnicodeError):
        return _error(mqtt, "has a name that cannot be resolved", "check [mqtt] host and the device's DNS")
    if isinstance(error, TimeoutError):
        return _error(mqtt, "does not answer", "check the network and the firewall")
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _error(mqtt, f"cannot be reached: {what}", "check that it runs and that [mqtt] host and port name it")


def not_sent(code: int, path: str) -> PublishError:
    """The broker refused a message: MQTT 5 PUBACK, or its packet limit."""
    remedy = "raise the broker's packet limit" if code == PACKET_TOO_LARGE else "check the broker's access list"
    return PublishError(f"the broker refuses a message on {path}: code 0x{code:02X}", remedy=remedy, code=code)


def _error(mqtt: MqttSettings, what: str, remedy: str) -> PublishError:
    host, port = address(mqtt)
    return PublishError(f"MQTT broker {host}:{port} {what}", remedy=remedy, host=host, port=port)
