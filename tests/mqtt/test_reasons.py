from __future__ import annotations

import socket
import ssl

import pytest

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt import events

MQTT = MqttSettings(host="broker.example", username="u")


@pytest.mark.parametrize(("tls", "port", "expected"), [(False, None, 1883), (True, None, 8883), (True, 1, 1)])
def test_the_port_follows_from_tls_unless_it_is_set(tls: bool, port: int | None, expected: int) -> None:
    assert events.address(MqttSettings(tls=tls, port=port)) == ("localhost", expected)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "check that it runs"),
        (socket.gaierror(-2, "Name or service not known"), "check [mqtt] host and the device's DNS"),
        (UnicodeError("label too long"), "check [mqtt] host"),
        (TimeoutError("timed out"), "check the network and the firewall"),
        (FileNotFoundError(2, "No such file or directory", "/ca.crt"), "needs /ca.crt"),
        (ssl.SSLError(1, "wrong version number"), "fails the TLS handshake"),
        (ssl.SSLCertVerificationError(1, "self-signed"), "check [mqtt] ca_file and host"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_each_kind_of_trouble_names_the_broker_and_its_own_remedy(error: Exception, words: str) -> None:
    text = str(events.unreachable(MQTT, error))
    assert text.startswith("MQTT broker broker.example:1883 ")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize("code", [0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x9A, 0x80])
def test_every_refusal_has_a_remedy(code: int) -> None:
    error = events.refused(MQTT, code, "Some name")
    assert "some name" in error.message
    assert error.remedy
