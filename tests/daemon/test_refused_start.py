"""Settings that cannot be taken at a start: exit code 78, and the broker is told wherever it can be made out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from paho.mqtt import publish
from station import LIMIT_S, ROOT, Station

from vajra_edge.config.settings import MqttSettings, load
from vajra_edge.daemon import last_broker
from vajra_edge.daemon.refused_start import readable
from vajra_edge.daemon.state_lock import StateLock

GOOD = 'device_id = "d"\n[weights]\npath = "/w"\n[mqtt]\nhost = "b"\nport = 99\n[service]\ncontrol_socket = "/s"\n'


def run(station: Station, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vajra_edge", "run", "--config", str(station.config)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=env, check=False)


def is_told(station: Station) -> bool:
    """Whether the broker keeps that a start was refused."""
    ears = station.listen()
    publish.single("vajra/test/asked", "{}", hostname="127.0.0.1", port=station.port)
    ears.until(lambda path, _: path == "asked")  # comes behind all that is retained
    ears.close()
    return any(path == "status" and content and content["state"] == "blocked" for path, content, _ in ears.heard)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('id = "gate"', 'id = "gate"\nurl = 1', "cameras[0].url (camera gate) is not a setting"),
        ("[engine]", "[engine]\nbatch = ", "not valid TOML"),
        ("[engine]", "[engine]\nbatch = true", "engine.batch = true"),
        ("[mqtt]", "[mqtt]\nqos = true\npassword = 'hunter2'", "mqtt.qos"),
    ],
)
def test_a_start_that_is_refused_is_told_at_the_broker(station: Station, old: str, new: str, words: str) -> None:
    station.write()
    station.config.write_text(station.config.read_text().replace(old, new, 1))
    ended = run(station)
    assert ended.returncode == 78
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    ears = station.listen("status")
    told = ears.until(lambda _, content: content["state"] == "blocked" and words in content["reason"])
    assert told["reason"].startswith("settings: settings file")
    assert "hunter2" not in json.dumps(told) + ended.stderr
    ears.close()


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"[mqtt]\nhost = 3\n"])
def test_where_the_file_says_nothing_the_last_brokers_place_is_used(station: Station, content: bytes) -> None:
    station.write()
    last_broker.keep(load(station.config))
    station.config.write_bytes(content)
    ended = run(station, STATE_DIRECTORY=str(station.state_dir))
    assert ended.returncode == 78
    ears = station.listen("status")
    ears.until(lambda _, said: said["state"] == "blocked" and str(station.config) in said["reason"])
    ears.close()


def test_a_daemon_that_runs_is_not_talked_over(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    station.sweep()
    station.write()
    station.config.write_text(station.config.read_text().replace("[engine]", "[engine]\nbatch = true"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(station.socket))
        other.listen()
        assert run(station).returncode == 78
        assert not is_told(station)


def test_a_daemon_whose_socket_was_removed_is_not_talked_over_either(station: Station) -> None:
    station.sweep()
    station.write()
    station.config.write_text(station.config.read_text().replace("[engine]", "[engine]\nbatch = true"))
    with StateLock(station.state_dir):
        assert run(station).returncode == 78
        assert not is_told(station)
    assert run(station).returncode == 78
    assert is_told(station)


def parts(path: Path, text: str, **environ: str) -> tuple[str | None, str, int | None, str] | None:
    path.write_text(text)
    known = readable(path, {"STATE_DIRECTORY": str(path.parent / "none"), **environ})
    return (
        None
        if known is None
        else (known.device_id, known.mqtt.host, known.mqtt.port, str(known.service.control_socket))
    )


def test_what_can_be_read_of_a_damaged_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    whole = ("d", "b", 99, "/s")
    assert parts(path, GOOD) == whole
    assert parts(path, GOOD + "[engine]\nbatch = ") == whole
    assert parts(path, GOOD + "[[cameras]]\nid = 'a\n") == whole
    assert parts(path, GOOD.replace("port = 99", "port = 99\nqos = 9\nno = 1")) == whole
    assert parts(path, GOOD.replace('"/w"', "3")) == whole
    assert parts(path, GOOD, VAJRA_EDGE_MQTT__HOST="other") == ("d", "other", 99, "/s")
    assert parts(path, GOOD, vajra_edge_mqtt__host="other") == ("d", "other", 99, "/s")
    assert parts(path, GOOD, VAJRA_EDGE_ENGINE__BATHC="other") == whole
    assert parts(path, GOOD.replace("99", "true")) is None
    assert parts(path, GOOD.replace('"d"', '"a b"')) is None
    assert parts(path, GOOD[: GOOD.index("port")]) == ("d", "b", None, "/run/vajra-edge/control.sock")


def test_of_an_empty_file_the_default_broker_is_told(tmp_path: Path) -> None:
    known = readable(tmp_path / "none.toml", {"STATE_DIRECTORY": str(tmp_path)})
    assert known is not None
    assert known.mqtt == MqttSettings()


def test_the_brokers_place_is_kept_without_a_secret_and_written_once(tmp_path: Path) -> None:
    given = {"weights": {"path": "/w"}, "store": {"state_dir": str(tmp_path / "s")}, "mqtt": {"host": "b"}}
    last_broker.keep(load(None, given, {}))
    file = tmp_path / "s" / "broker.json"
    before = file.stat().st_mtime_ns
    last_broker.keep(load(None, given, {}))
    assert file.stat().st_mtime_ns == before
    assert file.stat().st_mode & 0o777 == 0o600
    assert last_broker.recall(tmp_path / "s")["mqtt"]["host"] == "b"
    file.write_bytes(b"{")
    assert last_broker.recall(tmp_path / "s") == {}


def test_of_what_was_kept_only_the_broker_and_the_devices_id_are_used(tmp_path: Path) -> None:
    (tmp_path / "broker.json").write_text('{"device_id": "d", "mqtt": {}, "_env_file": "/x", "weights": {}}')
    assert last_broker.recall(tmp_path) == {"device_id": "d", "mqtt": {}}


@pytest.mark.parametrize(
    "content", ['[weights]\npath = "/w"\n[[cameras]]\nid = "gate"\n', GOOD.replace("[mqtt]", "[MQTT]")]
)
def test_a_file_without_a_broker_may_have_lost_it_and_the_last_one_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(content)
    known = readable(path, {"STATE_DIRECTORY": str(tmp_path)})
    assert known is not None
    assert known.mqtt == MqttSettings()
    (tmp_path / "broker.json").write_text('{"device_id": "d", "mqtt": {"host": "kept"}}')
    known = readable(path, {"STATE_DIRECTORY": str(tmp_path)})
    assert known is not None
    assert (known.device_id, known.mqtt.host) == ("d", "kept")
