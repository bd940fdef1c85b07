"""Identity: who this device is to the broker, and whom it trusts; out of the files that ``[mqtt]`` names."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from vajra_edge.config import text_file
from vajra_edge.config.credentials import read_secret
from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError, SettingsError
from vajra_edge.mqtt import events
from vajra_edge.wording import Setting, say, several

FIELDS = ("username", "password_file", "tls", "ca_file", "cert_file", "key_file")
"""Settings that an identity is made of."""

MOST_PEM_BYTES = 16 * 1024 * 1024
"""The certificates of all of the world's authorities are 250 kB."""


@dataclass(frozen=True)
class TlsIdentity:
    """What the files hold.

    Attributes:
        password: for the username; None: none.
        tls: trusts the authority and shows our certificate; None: TLS is off.
    """

    password: str | None
    tls: ssl.SSLContext | None


def read(mqtt: MqttSettings) -> TlsIdentity:
    """Read every file that is used.

    Raises:
        PublishError: one cannot be read, or is not what it should be.
    """
    try:
        password = read_secret("mqtt-password", mqtt.password_file) if mqtt.username is not None else None
    except SettingsError as error:
        raise PublishError(error.message, remedy=error.remedy) from error
    return TlsIdentity(password, tls_context(mqtt) if mqtt.tls else None)


def tls_context(mqtt: MqttSettings) -> ssl.SSLContext:
    """Made of the certificates and the key.

    Raises:
        PublishError: one cannot be read, or is not what it should be.
    """
    for path in filter(None, (mqtt.ca_file, mqtt.cert_file, mqtt.key_file)):
        # OpenSSL's error would not say which, and a pipe would hold it for ever
        if isinstance(content := text_file.read_bytes(path, MOST_PEM_BYTES), text_file.Unreadable):
            raise events.needs(mqtt, path, content)
    context = _trusting(mqtt.ca_file)
    context.sslsocket_class = _TlsSocket
    if mqtt.cert_file is not None:
        _show(context, mqtt.cert_file, mqtt.key_file)
    return context


class _TlsSocket(ssl.SSLSocket):
    """paho loses the socket of a handshake that fails, open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise PublishError(
            f"{ca_file} holds no certificate authority: {error.reason or error}",
            remedy=say("name a PEM file in ", Setting.MQTT_CA_FILE),
        ) from error


def _show(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    """Let the broker see our certificate."""
    try:
        # an empty password makes an encrypted key an error where OpenSSL would ask on a terminal
        context.load_cert_chain(cert_file, key_file, password="")
    except ssl.SSLError as error:
        reason = error.reason or ""
        if key_file is None:
            what, remedy = f"{cert_file} holds no key that fits its certificate", say(Setting.MQTT_KEY_FILE.given())
        elif reason == "KEY_VALUES_MISMATCH":
            what = f"{key_file} is not the key of {cert_file}"
            remedy = say("check ", several(Setting.MQTT_CERT_FILE, Setting.MQTT_KEY_FILE))
        else:
            what = f"{cert_file} and {key_file} cannot be used: {reason or error}"
            remedy = say(
                *("name PEM files in ", several(Setting.MQTT_CERT_FILE, Setting.MQTT_KEY_FILE)),
                ", and let the key have no password",
            )
        raise PublishError(what, remedy=remedy) from error
