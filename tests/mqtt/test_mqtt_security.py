"""The Publisher and credentials, certificates and access lists, on a real mosquitto."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificates

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.messages import ServiceStatus, encode
from vajra_edge.mqtt.publisher import BrokerChanged
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.mqtt.topics import Topics

TOPICS = Topics("vajra", "dev")
DETECTIONS = "vajra/dev/camera/+/detections"


def at(port: int, **more: Any) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=port, keepalive_s=60).model_copy(update=more)


def test_wrong_credentials_are_said_once_with_the_remedy_and_mended_in_place(
    mosquitto: Any, daemon: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("absent here: mosquitto_passwd")
    users, secret = tmp_path / "users", tmp_path / "secret"
    users.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(users), "cam", "right"], check=True, capture_output=True)
    mosquitto.start("allow_anonymous false", f"password_file {users}")
    secret.write_text("wrong\n")
    device = daemon(at(mosquitto.port, username="cam", password_file=secret))
    with caplog.at_level(logging.WARNING, "vajra_edge"):
        device.publisher.start()
        until(lambda: device.publisher._link._state.attempts >= 2)
    assert len(device.events) == 1
    assert "check [mqtt] username" in device.events[0].reason
    assert [record.message for record in caplog.records] == [device.events[0].reason]
    assert "wrong" not in caplog.text
    secret.write_text("right\n")
    device.until_connected()
    assert device.events[1] == BrokerChanged(True, "5")


def test_a_password_file_that_is_missing_is_named(daemon: Any, tmp_path: Path, until: Any) -> None:
    device = daemon(at(1, username="cam", password_file=tmp_path / "absent"))
    device.publisher.start()
    until(lambda: device.events)
    assert str(tmp_path / "absent") in device.events[0].reason


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("absent here: openssl")
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


def tls_lines(folder: Path) -> list[str]:
    return [f"cafile {folder}/ca.crt", f"certfile {folder}/server.crt", f"keyfile {folder}/server.key"]


def test_tls_with_a_named_authority(mosquitto: Any, daemon: Any, certificates: Path) -> None:
    mosquitto.start("allow_anonymous true", *tls_lines(certificates))
    device = daemon(at(mosquitto.port, tls=True, ca_file=certificates / "ca.crt"))
    device.publisher.start()
    device.until_connected()
    device.send(500)
    device.until_acked(500)


def test_a_broker_that_nobody_vouches_for_gets_nothing(
    mosquitto: Any, daemon: Any, certificates: Path, until: Any
) -> None:
    mosquitto.start("allow_anonymous true", *tls_lines(certificates))
    device = daemon(at(mosquitto.port, tls=True))
    device.publisher.start()
    until(lambda: device.events)
    assert "certificate that fails" in device.events[0].reason
    assert "ca_file" in device.events[0].reason


def test_tls_to_a_port_without_it_says_so(mosquitto: Any, daemon: Any, certificates: Path, until: Any) -> None:
    mosquitto.start()
    device = daemon(at(mosquitto.port, tls=True, ca_file=certificates / "ca.crt"))
    device.publisher.start()
    until(lambda: device.events)
    assert device.events[0].reason.startswith(f"MQTT broker 127.0.0.1:{mosquitto.port} does not speak TLS")


def test_mutual_tls_needs_the_clients_certificate(mosquitto: Any, daemon: Any, certificates: Path, until: Any) -> None:
    mosquitto.start("allow_anonymous true", "require_certificate true", *tls_lines(certificates))
    trusted = {"tls": True, "ca_file": certificates / "ca.crt"}
    without = daemon(at(mosquitto.port, **trusted), Topics("vajra", "other"))
    without.publisher.start()
    until(lambda: without.events)
    assert not without.counts.connected
    assert "client certificate" in without.events[0].reason or "cert_file" in without.events[0].reason
    pair = {"cert_file": certificates / "client.crt", "key_file": certificates / "client.key"}
    device = daemon(at(mosquitto.port, **trusted, **pair))
    device.publisher.start()
    device.until_connected()


def test_an_encrypted_client_key_is_an_error_and_never_a_question(
    daemon: Any, certificates: Path, mosquitto: Any, until: Any
) -> None:
    mosquitto.start("allow_anonymous true", *tls_lines(certificates))
    locked = certificates / "locked.key"
    command = ["openssl", "ec", "-in", "client.key", "-aes128", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True, cwd=certificates)
    pair = {"cert_file": certificates / "client.crt", "key_file": locked}
    device = daemon(at(mosquitto.port, tls=True, ca_file=certificates / "ca.crt", **pair))
    device.publisher.start()
    until(lambda: device.events)
    assert "key_file" in device.events[0].reason


def test_an_access_list_that_forbids_detections_is_reported_and_states_go_on(
    mosquitto: Any, daemon: Any, tmp_path: Path, retained: Any, until: Any
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite vajra/dev/status\n")
    acl.chmod(0o600)
    mosquitto.start("allow_anonymous true", f"acl_file {acl}")
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    device.until_connected()
    device.send(10)
    device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", "serving")))
    until(lambda: device.counts.outbox.dropped == {"refused": 10})
    assert "access list" in device.counts.last_error
    assert retained(at(mosquitto.port), "vajra/dev/status")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca_file": "absent.pem"}, "needs {}/absent.pem, which cannot be read: No such file or directory"),
        ({"ca_file": "."}, "needs {}, which is a folder; name a file"),
        ({"ca_file": "names"}, "names holds no certificate authority"),
        ({"cert_file": "client.crt"}, "client.crt holds no key that fits its certificate; set [mqtt] key_file"),
        (
            {"cert_file": "client.crt", "key_file": "absent"},
            "needs {}/absent, which cannot be read: No such file or directory",
        ),
        ({"cert_file": "client.crt", "key_file": "server.key"}, "server.key is not the key of "),
        ({"cert_file": "names", "key_file": "server.key"}, "names and "),
    ],
)
def test_each_file_that_cannot_be_used_is_named(
    daemon: Any, certificates: Path, until: Any, mosquitto: Any, files: dict[str, str], words: str
) -> None:
    mosquitto.start("allow_anonymous true", *tls_lines(certificates))
    paths = {"ca_file": certificates / "ca.crt", **{field: certificates / name for field, name in files.items()}}
    device = daemon(at(mosquitto.port, tls=True, **paths))
    device.publisher.start()
    until(lambda: device.events)
    assert words.format(certificates) in device.events[0].reason


def test_a_monster_is_refused_through_tls_too(mosquitto: Any, daemon: Any, certificates: Path, until: Any) -> None:
    mosquitto.start("allow_anonymous true", *tls_lines(certificates))
    trusted = {"tls": True, "ca_file": certificates / "ca.crt", "protocol": "3.1.1", "commands": True}
    device = daemon(at(mosquitto.port, **trusted))
    device.publisher.start()
    device.until_connected()
    with Subscription(at(mosquitto.port, **trusted), ["nothing"]) as stranger:
        until(lambda: stranger.poll(0.05) or stranger.ready)
        stranger._link.publish("vajra/dev/request/status", bytes(4 << 20), 1, retain=True)
        until(lambda: stranger.poll(0.05) or device.counts.connections == 2)
    assert "no requests are taken for 60 s" in device.counts.troubles[0]
