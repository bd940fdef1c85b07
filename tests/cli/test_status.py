from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from measured import BUILT, PLAN, REPORT
from station import Station

from vajra_edge.__main__ import main
from vajra_edge.cli import status as command
from vajra_edge.plans.plain import Fields
from vajra_edge.plans.report_json import read_verify
from vajra_edge.telemetry.plan_view import dla_of, int8_of
from vajra_edge.telemetry.status import BrokerView, EngineView, FailureView, Status


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
    assert document["engine"]["serving"]["verify"]["frames"] > 0
    assert [camera["id"] for camera in document["cameras"]] == ["gate"]
    assert main(["status", "--config", str(station.config)]) == 0
    shown = capsys.readouterr().out
    for part in ("serving", "camera gate", "fp32", "not connected", "reference boxes"):
        assert part in shown


def test_a_damaged_settings_file_does_not_hide_the_daemon_that_runs(station, capsys):
    station.start()
    station.serving()
    good = station.config.read_text()
    station.config.write_text(f"{good}[[cameras]]\nid = 'yard'\nsource = 'rtps://u:hunter2@cam/1'\n")
    station.until(lambda status: "(camera yard)" in status["settings"]["error"])
    assert main(["status", "--config", str(station.config)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "not taken: " in shown
    assert "did you mean rtsp://?" in shown
    station.stop()
    assert main(["status", "--config", str(station.config)]) == 78
    assert "cameras[1].source (camera yard)" in capsys.readouterr().err


def test_every_figure_of_the_serving_plan_is_shown(station, monkeypatch, capsys):
    plan = replace(
        PLAN,
        precision="int8",
        target="dla:0",
        verify=read_verify(Fields(REPORT)),
        int8=int8_of(BUILT),
        dla=dla_of(BUILT),
    )
    began = datetime(2026, 11, 22, tzinfo=timezone.utc)
    said = Status("d", "serving", "", began, 1.0, 7, EngineView(serving=plan), broker=BrokerView("b:1883"))
    monkeypatch.setattr(command, "ask", lambda socket, request: [{"status": said.to_json()}])
    station.write()
    assert main(["status", "--config", str(station.config)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "recall 0.968, precision 0.971, mean IoU 0.953, score drift 0.0123, 412 reference boxes, 64 frames",
        "of the device's cameras (held out of calibration)",
        "p50 4.90 ms, p99 6.25 ms",
        "91.2% of multiply-adds, 71 layers, 4 kept higher, score drift 0.0081, box drift 0.0064",
        "ranges measured: minmax of 448 images of the device's cameras, by TensorRT on the GPU",
        "83.0% of multiply-adds, 2 transitions, 1 loadables, 40 of 52 nodes",
        "9 nodes: this device's own DLA compiler refuses it",
    ):
        assert part in shown
    assert main(["status", "--config", str(station.config), "--json"]) == 0
    serving = json.loads(capsys.readouterr().out)["engine"]["serving"]
    assert (serving["verify"]["recall"], serving["int8"]["macs_share"], serving["dla"]["transitions"]) == (
        0.968,
        0.9123,
        2,
    )


def test_what_the_broker_refuses_is_told_while_connected(station, monkeypatch, capsys):
    outbox = {"queued": 0, "dropped": {"refused": 12, "too_large": 3, "bytes": 0}}
    view = BrokerView("b:1883", connected=True, protocol="5", outbox=outbox, troubles=("refused on [x]; check",))
    began = datetime(2026, 11, 22, tzinfo=timezone.utc)
    station.write()

    def shown(broker):
        said = Status("d", "serving", "", began, 1.0, 7, broker=broker)
        monkeypatch.setattr(command, "ask", lambda socket, request: [{"status": said.to_json()}])
        assert main(["status", "--config", str(station.config)]) == 0
        return " ".join(capsys.readouterr().out.split())

    told = shown(view)
    assert "refused on [x]; check" in told
    assert "12 refused by the broker, 3 too large for the broker since the start" in told
    assert "cannot say" not in told
    told = shown(replace(view, protocol="3.1.1", troubles=(), outbox={}))
    assert "MQTT 3.1.1, which cannot say whether a message was refused" in told
    assert "since the start" not in told


def test_bad_weights_are_told_and_the_exit_code_is_one(station, capsys):
    station.write_weights(b"nothing" * 99)
    station.start()
    station.until(lambda status: status["phase"] == "blocked")
    assert main(["status", "--config", str(station.config)]) == 1
    assert "net.onnx" in "".join(capsys.readouterr().out.split())  # the table wraps
    assert main(["status", "--config", str(station.config), "--json"]) == 1
    (failure,) = json.loads(capsys.readouterr().out)["engine"]["failures"]
    assert (failure["cause"], failure["follows"]) == ("build", "blocked until a change")
    assert "net.onnx" in failure["reason"]


def test_what_failed_is_told_in_a_line_with_what_follows(station, monkeypatch, capsys):
    failures = (
        FailureView("ab" * 32, "crash", "it took the process down", ("2026-11-22T10:00:00+00:00",) * 2, "tried again"),
        FailureView(
            "cd" * 32, "build", "no memory", ("2026-11-22T10:00:00+00:00",), "tried again", "2026-11-22T10:01:00+00:00"
        ),
        FailureView("ef" * 32, "service", "slow", (), "blocked until a change"),
    )
    began = datetime(2026, 11, 22, tzinfo=timezone.utc)
    said = Status("d", "blocked", "", began, 1.0, 7, EngineView(failures=failures), broker=BrokerView("b:1883"))
    monkeypatch.setattr(command, "ask", lambda socket, request: [{"status": said.to_json()}])
    station.write()
    assert main(["status", "--config", str(station.config)]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "failed abababababab crash, 2 times, 2026-11-22T10:00:00 UTC: it took the process down; tried again",
        "failed cdcdcdcdcdcd build, 2026-11-22T10:00:00 UTC: no memory; tried again at 2026-11-22T10:01:00 UTC",
        "failed efefefefefef service: slow; blocked until a change",
    ):
        assert part in shown


def test_without_a_daemon_it_says_so(station, capsys):
    station.write()
    assert main(["status", "--config", str(station.config)]) == 1
    assert str(station.socket) in capsys.readouterr().err


def test_rebuild_asks_the_running_daemon_and_shows_what_came_of_it(station, capsys):
    station.start()
    first = station.serving()
    assert main(["rebuild", "--config", str(station.config), "--dry-run", "--json"]) == 0
    preview = json.loads(capsys.readouterr().out)
    assert (preview["needed"], preview["by"]) == (False, "daemon")
    assert main(["rebuild", "--config", str(station.config), "--force", "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["built"]
    assert built["fingerprint"] == first
    assert main(["rebuild", "--config", str(station.config)]) == 0
    assert "no build needed" in capsys.readouterr().out
