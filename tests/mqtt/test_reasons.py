from __future__ import annotations

import socket
import ssl

import pytest

from vajra_edge import clock
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
        (PermissionError(1, "Operation not permitted"), "cannot be reached: Operation not permitted"),
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


@pytest.mark.parametrize("code", [0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x9A, 0x9B, 0x80])
def test_every_refusal_has_a_remedy(code: int) -> None:
    error = events.refused(MQTT, code, "Some name")
    assert "some name" in error.message
    assert error.remedy


TLS = MqttSettings(host="broker.example", tls=True)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        BrokenPipeError(32, "Broken pipe"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        TimeoutError("_ssl.c:985: The handshake operation timed out"),
    ],
)
def test_a_port_without_tls_is_named_as_that(error: Exception) -> None:
    text = str(events.unreachable(TLS, error))
    assert "does not speak TLS at this port; set [mqtt] port to that of its TLS listener, or set [mqtt] tls" in text
    assert "does not speak TLS" not in str(events.unreachable(MQTT, error))


@pytest.mark.parametrize("host", ["mqtt://broker", "broker:1883", "[::1]", "broker/path"])
def test_what_is_no_host_name_is_named_as_that(host: str) -> None:
    text = str(events.unreachable(MqttSettings().model_copy(update={"host": host}), socket.gaierror(-2, "unknown")))
    assert "is no host name; name the host alone in [mqtt] host; the port goes into [mqtt] port" in text


def test_a_name_server_that_is_silent_is_told_from_a_name_that_nobody_knows() -> None:
    silent = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert "no name server answers" in str(events.unreachable(MQTT, silent))


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (0x95, events.LossCause.TOO_LARGE),
        (0x8E, events.LossCause.RIVAL),
        (0x87, events.LossCause.HUNG_UP),
        (0x82, events.LossCause.HUNG_UP),
        (0x8B, events.LossCause.OTHER),
        (0x89, events.LossCause.OTHER),
        (0x8D, events.LossCause.OTHER),
        (0x97, events.LossCause.OTHER),
    ],
)
def test_what_a_disconnect_says_about_messages(code: int, cause: events.LossCause) -> None:
    assert events.cause_of(code) is cause


@pytest.mark.parametrize(
    ("code", "path", "words"),
    [
        (0x87, "vajra/dev/camera/gate/detections", "not authorized; check the broker's access list"),
        (0x87, "$SYS/dev/status", "topics that begin with $ are the broker's own: set [mqtt] root to another name"),
        (0x97, "vajra/dev/camera/gate/detections", "quota exceeded; raise the broker's quota for this device"),
        (0x80, "vajra/dev/camera/gate/detections", "unspecified error; see the broker's log"),
        (0x95, "vajra/dev/camera/gate/snapshot", "turn this camera's snapshots off"),
        (0x95, "vajra/dev/camera/gate/detections", "lower [engine] max_det"),
        (0x95, "vajra/dev/engine", "raise the broker's packet limit"),
    ],
)
def test_a_message_that_was_not_sent_is_named_with_its_size_and_the_remedy(code: int, path: str, words: str) -> None:
    text = str(events.not_sent(code, path, 4711))
    assert f"{path} of 4711 bytes" in text
    assert words in text


@pytest.mark.parametrize(("explains", "remedy"), [(True, "wait for a time server"), (False, "check [mqtt] ca_file")])
def test_a_certificate_out_of_date_is_blamed_on_a_clock_that_may_be_wrong(explains, remedy, monkeypatch):
    error = ssl.SSLCertVerificationError("verify failed")
    error.verify_code, error.verify_message = 9, "certificate is not yet valid"
    monkeypatch.setattr(clock, "may_explain", lambda code: explains and code == 9)
    text = str(events.unreachable(TLS, error))
    assert "has a certificate that fails: certificate is not yet valid; " in text
    assert remedy in text
