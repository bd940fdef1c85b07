"""The Publisher with its outbox on disk: real brokers that leave, freeze, restart and refuse, and disks that do."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt import outbox_writer
from vajra_edge.mqtt.outbox_file import NAME, OutboxFile
from vajra_edge.mqtt.topics import Topics

TOPICS = Topics("vajra", "dev")
DETECTIONS = "vajra/+/camera/+/detections"


def at(port: int, **more: Any) -> MqttSettings:
    """Also with a keep alive of one second, which the settings do not allow: tests would take five times as long."""
    return MqttSettings(host="127.0.0.1", port=port).model_copy(update={"keepalive_s": 1, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox"


@pytest.fixture
def durable(daemon: Any, folder: Path, until: Any) -> Callable[..., Any]:
    """A started device whose outbox is open."""

    def start(mqtt: MqttSettings, topics: Topics = TOPICS) -> Any:
        device = daemon(mqtt, topics, folder)
        device.publisher.start()
        until(lambda: device.publisher._backlog.is_durable)
        return device

    return start


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """One that takes all messages of a test and their log: with less the disk was full again of what had waited."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def heard(ear: Any) -> tuple[dict[str, list[int]], list[tuple[str, int, int, str]]]:
    """Numbers by camera, in order and without copies, and gap records."""
    seqs: dict[str, list[int]] = {}
    gaps = []
    keys: set[str] = set()
    for message in [orjson.loads(item.payload) for item in list(ear.received)]:
        if message["key"] in keys:
            continue
        keys.add(message["key"])
        if "gap" in message:
            gaps.append((message["camera"], message["gap"]["from"], message["gap"]["to"], message["gap"]["why"]))
        else:
            seqs.setdefault(message["camera"], []).append(message["seq"])
    return seqs, gaps


def test_a_stop_while_the_broker_is_away_is_quick_and_loses_nothing(
    mosquitto: Any, durable: Any, ear: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    device = durable(at(1))
    device.send(300, "gate")
    device.send(200, "yard")
    device.publisher.close(60.0)
    assert device.counts.outbox.dropped == {}
    assert "500 messages wait on disk for the next start" in caplog.text
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    again = durable(at(mosquitto.port))
    again.send(10, "gate")
    until(lambda: sum(map(len, heard(hearing)[0].values())) == 510)
    assert heard(hearing) == ({"gate": list(range(310)), "yard": list(range(200))}, [])
    replayed = [orjson.loads(item.payload)["replayed"] for item in hearing.received]
    assert all(replayed[:500])


def test_a_frozen_and_a_restarted_broker_cost_nothing(mosquitto: Any, durable: Any, ear: Any, until: Any) -> None:
    """What came after the restart is counted in the broker's log: a subscriber may be back later than the device."""
    mosquitto.lines.append("log_type all")
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device = durable(at(mosquitto.port))
    device.until_connected()
    mosquitto.send(signal.SIGSTOP)
    device.send(200)
    until(lambda: not device.counts.connected)
    mosquitto.send(signal.SIGCONT)
    device.until_acked(200)
    until(lambda: len(heard(hearing)[0].get("gate", ())) == 200)
    mosquitto.stop(signal.SIGTERM)
    until(lambda: not device.counts.connected)
    before = mosquitto.logged("Received PUBLISH", "/detections")
    device.send(300)
    mosquitto.start()
    device.until_acked(500)
    assert mosquitto.logged("Received PUBLISH", "/detections") - before >= 300
    assert device.counts.outbox.dropped == {}
    assert heard(hearing)[1] == []


def test_a_backlog_of_five_thousand_passes_a_receive_maximum_of_twenty_in_one_connection(
    mosquitto: Any, durable: Any, ear: Any, until: Any
) -> None:
    device = durable(at(1, max_inflight=1000))
    device.send(5_000)
    device.publisher.close(60.0)
    mosquitto.start("allow_anonymous true", "max_inflight_messages 20", "max_queued_messages 0")
    hearing = ear(at(mosquitto.port), DETECTIONS)
    again = durable(at(mosquitto.port, max_inflight=1000, keepalive_s=60))
    again.until_acked(5_000)
    until(lambda: heard(hearing) == ({"gate": list(range(5_000))}, []))
    assert again.counts.connections == 1


def test_a_password_that_is_revoked_and_restored_costs_nothing(
    mosquitto: Any, durable: Any, ear: Any, until: Any, tmp_path: Path
) -> None:
    users, secret = tmp_path / "users", tmp_path / "secret"

    def let_in(password: str) -> None:
        program = shutil.which("mosquitto_passwd") or pytest.skip("absent here: mosquitto_passwd")
        for name, word in (("device", password), ("ear", "ear")):
            create = [] if users.exists() else ["-c"]
            subprocess.run([program, "-b", *create, str(users), name, word], check=True, capture_output=True)
        users.chmod(0o644)

    for file, word in ((secret, "right"), (tmp_path / "ear", "ear")):
        file.write_text(word)
        file.chmod(0o600)
    let_in("right")
    lines = ("allow_anonymous false", f"password_file {users}")
    mosquitto.start(*lines)
    device = durable(at(mosquitto.port, username="device", password_file=secret))
    device.send(50)
    device.until_acked(50)
    let_in("another")
    mosquitto.stop()
    mosquitto.start(*lines)
    until(lambda: "username" in device.counts.last_error)
    device.send(100)
    assert device.counts.outbox.dropped == {}
    hearing = ear(at(mosquitto.port, username="ear", password_file=tmp_path / "ear"), DETECTIONS)
    let_in("right")
    mosquitto.send(signal.SIGHUP)
    device.until_acked(150)
    until(lambda: heard(hearing) == ({"gate": list(range(50, 150))}, []))


def test_what_the_bounds_dropped_is_announced_after_a_restart_too(
    mosquitto: Any, durable: Any, ear: Any, until: Any
) -> None:
    device = durable(at(1, outbox_bytes=65_536))
    device.send(500)
    until(lambda: device.publisher._backlog._outbox._fresh_bytes == 0)
    kept = device.counts.outbox.queued
    assert device.counts.outbox.dropped == {"bytes": 500 - kept}
    device.publisher.close(60.0)
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    durable(at(mosquitto.port))
    until(lambda: len(heard(hearing)[0].get("gate", ())) == kept)
    assert heard(hearing) == ({"gate": list(range(500 - kept, 500))}, [("gate", 0, 499 - kept, "bytes")])
    assert "gap" in orjson.loads(hearing.received[0].payload), "before what follows"


def test_another_device_id_announces_what_the_old_one_left(mosquitto: Any, durable: Any, ear: Any, until: Any) -> None:
    device = durable(at(1))
    device.send(30)
    device.publisher.close(60.0)
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    other = durable(at(mosquitto.port), Topics("vajra", "other"))
    other.send(5)
    until(lambda: len(heard(hearing)[0].get("gate", ())) == 5)
    assert heard(hearing) == ({"gate": list(range(5))}, [("gate", 0, 29, "moved")])
    assert {item.path for item in hearing.received} == {"vajra/other/camera/gate/detections"}


def test_another_broker_gets_all_that_waits(mosquitto: Any, durable: Any, ear: Any, until: Any) -> None:
    device = durable(at(1))
    device.send(30)
    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device.publisher.reconnect(at(mosquitto.port), Topics("city", "dev"))
    device.until_acked(30)
    assert not hearing.received, "the root is another"
    device.publisher.reconnect(at(mosquitto.port), TOPICS)
    until(lambda: device.counts.connections == 2)
    device.send(1)
    until(lambda: heard(hearing) == ({"gate": [30]}, []))


def test_a_damaged_file_costs_what_was_in_it_is_said_and_service_goes_on(
    mosquitto: Any, durable: Any, until: Any, folder: Path
) -> None:
    device = durable(at(1))
    device.send(30)
    device.publisher.close(60.0)
    (folder / NAME).write_bytes(os.urandom(50_000))
    mosquitto.start()
    again = durable(at(mosquitto.port))
    again.send(5)
    again.until_acked(5)
    until(lambda: again.counts.troubles)
    assert "put aside as damaged-" in again.counts.troubles[0]
    assert again.counts.outbox.kept == "disk"


def test_a_folder_that_cannot_be_made_costs_durability_alone_and_says_so(
    mosquitto: Any, daemon: Any, until: Any, folder: Path
) -> None:
    folder.parent.mkdir()
    folder.write_text("not a folder")
    mosquitto.start()
    device = daemon(at(mosquitto.port), TOPICS, folder)
    device.publisher.start()
    device.send(20)
    device.until_acked(20)
    assert device.counts.outbox.kept == "memory"
    assert "kept in memory only" in device.counts.troubles[0]
    assert "remove what lies in the folder's place" in device.counts.troubles[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="absent here: the right to mount a small disk")
def test_a_full_disk_costs_durability_alone_and_it_comes_back(
    mosquitto: Any, durable: Any, ear: Any, until: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_writer, "RETRY_S", 0.2)
    with small_disk(folder.parent) as disk:
        mosquitto.start("allow_anonymous true", "max_queued_messages 0")
        hearing = ear(at(mosquitto.port), DETECTIONS)
        device = durable(at(1))
        device.send(50)
        until(lambda: device.publisher._backlog._outbox._fresh_bytes == 0)
        fill = disk / "fill"
        with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass  # until nothing is left
        device.send(3_000)
        until(lambda: "full" in device.counts.outbox.trouble)
        device.publisher.reconnect(at(mosquitto.port), TOPICS)
        device.until_acked(50)
        fill.unlink()
        until(lambda: device.counts.outbox.kept == "disk")
        device.send(10)
        device.until_acked(3_060)
        until(lambda: len({orjson.loads(item.payload)["key"] for item in list(hearing.received)}) >= 3_060)
        assert len({orjson.loads(item.payload).get("frame_seq") for item in hearing.received} - {None}) == 3_060
        device.publisher.close(5.0)


def test_a_disk_that_does_not_answer_holds_up_neither_frames_nor_the_broker(
    mosquitto: Any, durable: Any, ear: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_writer, "STUCK_S", 0.3)
    monkeypatch.setattr(outbox_writer, "RETRY_S", 0.1)
    answers, commit = threading.Event(), OutboxFile.commit

    def stuck(file: OutboxFile, batch: Any, *, sync: bool) -> None:
        answers.wait(60.0)
        commit(file, batch, sync=sync)

    mosquitto.start()
    hearing = ear(at(mosquitto.port), DETECTIONS)
    device = durable(at(mosquitto.port))
    device.send(10)
    device.until_acked(10)
    monkeypatch.setattr(OutboxFile, "commit", stuck)
    device.send(40)
    device.until_acked(50)
    assert "does not answer" in device.counts.outbox.trouble
    answers.set()
    until(lambda: device.counts.outbox.kept == "disk")
    device.send(5)
    device.until_acked(55)
    until(lambda: len({orjson.loads(item.payload).get("frame_seq") for item in hearing.received} - {None}) == 55)
    sent = [orjson.loads(item.payload) for item in hearing.received]
    assert len([one for one in sent if "gap" not in one]) == 55, "none came twice under another key"


def test_quality_of_service_zero_has_no_outbox(durable: Any, daemon: Any, folder: Path) -> None:
    device = daemon(at(1, qos=0), Topics("vajra", "dev", 0), folder)
    device.publisher.start()
    device.send(10)
    assert (device.counts.outbox.kept, device.counts.outbox.queued) == ("live", 0)
    assert device.counts.outbox.dropped == {"live": 10}
    device.publisher.close(1.0)
    assert not folder.exists()
