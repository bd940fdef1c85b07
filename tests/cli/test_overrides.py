"""``set`` and ``unset`` as somebody types them, and what ``status`` says then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from station import Station

from vajra_edge.__main__ import main


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path, 9)
    made.camera("gate", confidence=0.3)
    yield made
    made.stop()


def test_what_is_typed_counts_is_shown_and_is_undone(station: Station, capsys: pytest.CaptureFixture[str]):
    station.start()
    config = ["--config", str(station.config)]
    assert main(["set", "cameras.gate.confidence", "0.4", *config]) == 0
    assert capsys.readouterr().out == "cameras.gate.confidence = 0.4, until it is unset\n"
    assert main(["set", "cameras.gate.enabled", "off", *config, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"] == {"cameras.gate.enabled": False}
    assert answer["overrides"] == {"cameras.gate.confidence": 0.4, "cameras.gate.enabled": False}
    main(["status", *config])
    shown = " ".join(capsys.readouterr().out.split())
    assert "changed cameras.gate.confidence = 0.4 (file: 0.3), by user" in shown
    assert "cameras.gate.enabled = false (default: true), by user" in shown
    assert main(["unset", "cameras.gate", *config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "cameras.gate.confidence = 0.3, without what was set",
        "cameras.gate.enabled = true, without what was set",
    ]
    assert station.status()["settings"]["overrides"] == []


def test_a_change_without_effect_is_shown_with_the_reason(station: Station, capsys: pytest.CaptureFixture[str]):
    station.camera("yard")
    station.start()
    main(["set", "cameras.yard.classes", "person, car", "--config", str(station.config)])
    del station.settings["cameras"]["yard"]
    station.write()
    station.until(lambda status: len(status["cameras"]) == 1)
    capsys.readouterr()
    main(["status", "--config", str(station.config)])
    shown = " ".join(capsys.readouterr().out.split())
    assert 'cameras.yard.classes = ["person","car"], by user' in shown
    assert "of no effect: camera yard is not in the settings file" in shown


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["set", "cameras.gate.confidence", "high"], 'cameras.gate.confidence = "high": must be a number'),
        (["set", "mqtt.host", "x"], "'mqtt.host' is no setting that can be changed while the daemon runs"),
        (["unset", "cameras.gate.confidence"], "'cameras.gate.confidence' was not changed"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    station: Station, capsys: pytest.CaptureFixture[str], typed: list[str], said: str
):
    station.start()
    assert main([*typed, "--config", str(station.config)]) != 0
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1


def test_without_a_daemon_nothing_is_changed(station: Station, capsys: pytest.CaptureFixture[str]):
    station.write()
    assert main(["set", "cameras.gate.confidence", "0.4", "--config", str(station.config)]) != 0
    assert "no daemon answers" in capsys.readouterr().err
