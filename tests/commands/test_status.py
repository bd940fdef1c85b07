from __future__ import annotations

import json

import pytest
from station import Station

from vajra_edge.__main__ import main


@pytest.fixture
def station(tmp_path):
    made = Station(tmp_path, 9)
    yield made
    made.stop()


def test_it_tells_everything_and_its_exit_code_says_whether_it_serves(station, capsys):
    station.start()
    station.serving()
    assert main(["status", "--config", str(station.config), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["phase"] == "serving"
    assert document["engine"]["serving"]["precision"] == "fp32"
    assert [camera["id"] for camera in document["cameras"]] == ["gate"]
    assert main(["status", "--config", str(station.config)]) == 0
    shown = capsys.readouterr().out
    for part in ("serving", "camera gate", "fp32", "not connected"):
        assert part in shown


def test_bad_weights_are_told_and_the_exit_code_is_one(station, capsys):
    station.write_weights(b"nothing" * 99)
    station.start()
    station.until(lambda status: status["phase"] == "blocked")
    assert main(["status", "--config", str(station.config)]) == 1
    assert "net.onnx" in "".join(capsys.readouterr().out.split())  # the table wraps


def test_without_a_daemon_it_says_so(station, capsys):
    station.write()
    assert main(["status", "--config", str(station.config)]) == 1
    assert str(station.socket) in capsys.readouterr().err


def test_rebuild_asks_the_running_daemon_and_shows_what_came_of_it(station, capsys):
    station.start()
    first = station.serving()
    assert main(["rebuild", "--config", str(station.config), "--dry-run", "--json"]) == 0
    outlook = json.loads(capsys.readouterr().out)
    assert (outlook["needed"], outlook["by"]) == (False, "daemon")
    assert main(["rebuild", "--config", str(station.config), "--force", "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["built"]
    assert built["fingerprint"] == first
    assert main(["rebuild", "--config", str(station.config)]) == 0
    assert "no build needed" in capsys.readouterr().out
