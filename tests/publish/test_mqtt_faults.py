"""The Publisher on brokers that are absent, killed, frozen, full, strict, mistrusted, or no brokers at all."""

from __future__ import annotations

import logging
import shutil
import signal
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from vajra_edge.publish.messages import ServiceStatus, encode
from vajra_edge.publish.mqtt import BrokerChanged, Publisher
from vajra_edge.publish.topics import Topics
from vajra_edge.settings import MqttSettings

TOPICS = Topics("vajra", "dev")
DETECTIONS = "vajra/dev/camera/+/detections"
ACCEPT_5 = b"\x20\x03\x00\x00\x00"


def at(port: int, **more: Any) -> MqttSettings:
    """Also with a keep alive of one second, which the settings do not allow: tests would take five times as long."""
    return MqttSettings(host="127.0.0.1", port=port).model_copy(update={"keepalive_s": 1, **more})


def by_seq(items: list[Any]) -> dict[int, dict[str, Any]]:
    return {message["seq"]: message for message in (orjson.loads(item.payload) for item in items)}


def test_it_starts_without_a_broker_and_finds_it_later(mosquitto: Any, daemon: Any, ear: Any, until: Any) -> None:
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    until(lambda: device.events)
    assert device.events[0].connected is False
    assert "check that it runs" in device.events[0].reason
    device.send(20)
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device.until_connected()
    device.send(5)
    device.until_acked(25)
    until(lambda: 24 in by_seq(hearing.received))
    live = [message["seq"] for message in by_seq(hearing.received).values() if not message["replayed"]]
    assert live == [20, 21, 22, 23, 24]


def test_a_thousand_messages_through_an_outage_arrive_in_order(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device = daemon(at(mosquitto.port))
    device.publisher.state(TOPICS.status, encode(ServiceStatus("dev", "serving")))
    device.publisher.start()
    device.until_connected()
    device.send(300)
    device.until_acked(100)
    mosquitto.stop(signal.SIGKILL)
    until(lambda: not device.counts.connected)
    device.send(400)
    assert device.counts.outbox.queued >= 400
    mosquitto.start()
    until(lambda: hearing.subscription.ready)
    device.until_connected()
    device.send(300)
    device.until_acked(1_000)
    assert device.counts.outbox.dropped == {}
    until(lambda: 999 in by_seq(hearing.received))
    seen = by_seq(hearing.received)
    held_back = [seq for seq in range(300, 700) if seq in seen]
    assert all(seen[seq]["replayed"] for seq in held_back)
    assert not any(seen[seq]["replayed"] for seq in range(700, 1_000))
    order = [orjson.loads(item.payload)["seq"] for item in hearing.received]
    after = order[order.index(700) :]
    assert after == sorted(after)


def test_nothing_acknowledged_late_is_lost_when_the_subscriber_stays(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    """The connection breaks three times under load while the broker and its subscriber stay: every message arrives."""
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    for cut in range(1, 4):
        until(lambda cut=cut: device.counts.connections == cut, 15.0)
        device.send(60)
        device.publisher._link._session._client.socket().shutdown(2)
        device.send(40)
    until(lambda: len(by_seq(hearing.received)) == 300, 20.0)
    first_seen = list(by_seq(hearing.received))
    assert first_seen == sorted(first_seen)
    assert len(hearing.received) - 300 <= 3 * 20


def test_the_bound_of_the_outbox_holds_and_the_newest_survive(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    device = daemon(at(mosquitto.port, outbox_bytes=65_536))
    device.send(500)
    counts = device.counts.outbox
    assert counts.size_bytes <= 65_536
    assert counts.dropped["bytes"] + counts.queued == 500
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device.publisher.start()
    until(lambda: len(hearing.received) == counts.queued)
    assert list(by_seq(hearing.received)) == list(range(500 - counts.queued, 500))


def test_old_messages_are_dropped_during_an_outage(daemon: Any, until: Any) -> None:
    device = daemon(at(1, outbox_age_s=0.2))
    device.publisher.start()
    device.send(10)
    until(lambda: device.counts.outbox.dropped == {"age": 10})


def test_a_frozen_broker_is_noticed_blocks_nobody_and_loses_nothing(
    mosquitto: Any, daemon: Any, ear: Any, until: Any
) -> None:
    mosquitto.start()
    hearing = ear(at(mosquitto.port, keepalive_s=60), DETECTIONS)
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    device.until_connected()
    mosquitto.send(signal.SIGSTOP)
    start_s, beats = time.monotonic(), device.beats
    device.send(200)
    assert time.monotonic() - start_s < 1.0
    until(lambda: not device.counts.connected)
    assert time.monotonic() - start_s < 5.0
    assert device.beats > beats
    assert device.counts.outbox.queued == 200
    mosquitto.send(signal.SIGCONT)
    device.until_acked(200, 20.0)
    until(lambda: len(by_seq(hearing.received)) == 200)


def test_closing_with_a_frozen_broker_keeps_to_its_deadline(mosquitto: Any, daemon: Any) -> None:
    mosquitto.start()
    device = daemon(at(mosquitto.port, keepalive_s=60))
    device.publisher.start()
    device.until_connected()
    mosquitto.send(signal.SIGSTOP)
    device.send(100)
    start_s = time.monotonic()
    device.publisher.close(0.5)
    assert time.monotonic() - start_s < 2.0
    assert device.counts.outbox.dropped == {"closed": 100}


def test_closing_without_a_broker_does_not_wait(daemon: Any, until: Any) -> None:
    device = daemon(at(1))
    device.publisher.start()
    until(lambda: device.events)
    device.send(3)
    start_s = time.monotonic()
    device.publisher.close(10.0)
    assert time.monotonic() - start_s < 2.0
    assert device.counts.outbox.dropped == {"closed": 3}


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


def make_certificates(folder: Path) -> None:
    """A CA, a certificate of 127.0.0.1 and one of a client, as any installation guide makes them."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key")
    openssl("req", "-x509", "-new", "-key", "ca.key", "-days", "2", "-subj", "/CN=test CA", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "names", "-out", f"{name}.crt"),
        )


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
    assert device.events[0].reason.startswith(f"MQTT broker 127.0.0.1:{mosquitto.port} ")


def test_mutual_tls_needs_the_clients_certificate(mosquitto: Any, daemon: Any, certificates: Path, until: Any) -> None:
    mosquitto.start("allow_anonymous true", "require_certificate true", *tls_lines(certificates))
    trusted = {"tls": True, "ca_file": certificates / "ca.crt"}
    without = daemon(at(mosquitto.port, **trusted), Topics("vajra", "other"))
    without.publisher.start()
    until(lambda: without.events)
    assert not without.counts.connected
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


def test_a_backlog_far_above_receive_maximum_goes_through_in_one_connection(mosquitto: Any, daemon: Any) -> None:
    """paho alone sends the whole backlog at once and is kicked for ever."""
    device = daemon(at(mosquitto.port, max_inflight=1_000))
    device.send(500)
    mosquitto.start("allow_anonymous true", "max_inflight_messages 3")
    device.publisher.start()
    device.until_acked(500)
    assert device.counts.connections == 1


def test_receive_maximum_is_kept_to_the_letter(scripted: Any, daemon: Any) -> None:
    """Receive Maximum 4; acknowledgements come only when four messages wait, and a fifth is a kick."""
    waiting: list[int] = []

    def strict(mid: int, _pending: int) -> bytes:
        waiting.append(mid)
        if len(waiting) > 4:
            raise ConnectionError
        if len(waiting) < 4:
            return b""
        answer = b"".join(struct.pack("!BBH", 0x40, 2, each) for each in waiting)
        waiting.clear()
        return answer

    broker = scripted(b"\x20\x06\x00\x00\x03\x21\x00\x04", strict)
    device = daemon(at(broker.port, max_inflight=100))
    device.send(200)
    device.publisher.start()
    device.until_acked(200)
    assert len(broker.connects) == 1


@pytest.mark.parametrize(
    ("code", "tries", "acked", "dropped"),
    [(0x87, 1, 0, {"refused": 1}), (0x99, 1, 0, {"refused": 1}), (0x97, 2, 1, {})],
    ids=["not authorised", "payload invalid", "quota, once"],
)
def test_a_refused_message_is_tried_again_only_where_that_can_help(
    scripted: Any, daemon: Any, until: Any, code: int, tries: int, acked: int, dropped: dict[str, int]
) -> None:
    answers = [code, 0]

    def refuse(mid: int, _pending: int) -> bytes:
        return struct.pack("!BBHBB", 0x40, 4, mid, answers.pop(0) if answers else 0, 0)

    broker = scripted(ACCEPT_5, refuse)
    device = daemon(at(broker.port))
    device.publisher.start()
    device.until_connected()
    device.send(1)
    until(lambda: len(device.publisher._backlog._outbox) == 0)
    assert (len(broker.published), device.counts.outbox.acked) == (tries, acked)
    assert device.counts.outbox.dropped == dropped
    assert f"0x{code:02X}" in device.counts.last_error


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


def test_a_message_above_the_brokers_packet_limit_is_dropped_and_the_others_pass(
    mosquitto: Any, daemon: Any, until: Any
) -> None:
    mosquitto.start("allow_anonymous true", "max_packet_size 2000")
    device = daemon(at(mosquitto.port))
    device.publisher.start()
    device.until_connected()
    device.publisher._backlog.offer(TOPICS.detections("gate"), b"x" * 5_000, time.monotonic())
    device.send(3)
    device.until_acked(3)
    assert device.counts.outbox.dropped == {"too_large": 1}
    assert device.counts.connections == 1


def test_a_broker_that_forgets_acknowledgements_is_left_and_asked_again(scripted: Any, daemon: Any) -> None:
    forgotten: list[int] = []

    def forget(mid: int, _pending: int) -> bytes:
        if len(forgotten) < 2:
            forgotten.append(mid)
            return b""
        return struct.pack("!BBH", 0x40, 2, mid)

    broker = scripted(ACCEPT_5, forget)
    device = daemon(at(broker.port))
    device.publisher.start()
    device.until_connected()
    device.send(5)
    device.until_acked(5)
    assert len(broker.connects) == 2
    assert "no acknowledgement" in device.counts.last_error


def test_a_broker_that_never_answers_5_is_asked_in_3(scripted: Any, daemon: Any, until: Any) -> None:
    broker = scripted(None)
    device = daemon(at(broker.port))
    device.publisher.start()
    until(lambda: len(broker.connects) == 2)
    assert [connect[6] for connect in broker.connects] == [5, 4]
    assert device.events == []


def test_a_broker_that_says_it_does_not_know_5_is_asked_in_3_at_once(scripted: Any, daemon: Any, until: Any) -> None:
    broker = scripted(b"\x20\x02\x00\x01")
    device = daemon(at(broker.port))
    start_s = time.monotonic()
    device.publisher.start()
    until(lambda: len(broker.connects) == 2)
    assert time.monotonic() - start_s < 1.0
    assert [connect[6] for connect in broker.connects] == [5, 4]


@pytest.mark.parametrize("noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x03\x00\xff\x00", b"\x00" * 50])
def test_what_is_no_broker_is_said_to_be_none(scripted: Any, daemon: Any, until: Any, noise: bytes) -> None:
    broker = scripted(noise)
    device = daemon(at(broker.port, protocol="5"))
    device.publisher.start()
    until(lambda: device.events, 12.0)
    assert "name an MQTT broker" in device.events[0].reason
    device.send(1)
    until(lambda: len(broker.connects) >= 2)


def test_two_devices_under_one_id_do_not_storm_the_broker_and_are_told(mosquitto: Any, daemon: Any) -> None:
    mosquitto.start()
    one, two = daemon(at(mosquitto.port)), daemon(at(mosquitto.port))
    one.publisher.start()
    one.until_connected()
    two.publisher.start()
    time.sleep(2.0)
    assert one.counts.connections + two.counts.connections < 10
    assert "device_id" in one.counts.last_error


def test_a_broker_that_names_the_double_is_quoted(scripted: Any, daemon: Any, until: Any) -> None:
    """mosquitto 2.0 closes without a word, others send DISCONNECT with reason 0x8E."""
    broker = scripted(ACCEPT_5 + b"\xe0\x06\x8e\x04\x1f\x00\x01!")
    device = daemon(at(broker.port))
    device.publisher.start()
    until(lambda: "another client has the same id" in device.counts.last_error)


def test_a_name_that_cannot_be_resolved_does_not_stop_the_heart(daemon: Any, until: Any) -> None:
    device = daemon(MqttSettings(host="no-such-host.invalid"))
    device.publisher.start()
    until(lambda: device.events, 30.0)
    assert "check [mqtt] host" in device.events[0].reason
    beats = device.beats
    until(lambda: device.beats > beats)


def test_the_thread_survives_an_owner_that_raises(mosquitto: Any, until: Any, caplog: pytest.LogCaptureFixture) -> None:
    mosquitto.start()
    calls: list[object] = []

    def post(event: object) -> None:
        calls.append(event)
        if len(calls) == 1:
            raise RuntimeError("inbox is full")

    publisher = Publisher(at(mosquitto.port), TOPICS, post)
    publisher.start()
    until(lambda: publisher.counters().connections == 2 and publisher.counters().connected)
    assert "inbox is full" in caplog.text
    publisher.close(1.0)


def test_no_thread_or_socket_is_left_behind(mosquitto: Any, daemon: Any, until: Any) -> None:
    mosquitto.start()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    threads_before = threading.active_count()
    for _ in range(5):
        device = daemon(at(mosquitto.port))
        device.publisher.start()
        device.until_connected()
        device.publisher.reconnect(at(mosquitto.port), TOPICS)
        until(lambda device=device: device.counts.connections == 2)
        device.publisher.close(1.0)
    until(lambda: threading.active_count() <= threads_before)
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_before
