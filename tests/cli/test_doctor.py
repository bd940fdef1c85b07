from __future__ import annotations

import json
import socket

import pytest

from vajra_edge.__main__ import main


def report(place, capsys):
    code = main(["doctor", "--config", str(place.config), "--json"])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


@pytest.fixture
def answering_port(place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = place.config.read_text().replace("port = 9\n", f"port = {server.getsockname()[1]}\n")
        place.config.write_text(text)
        yield


@pytest.mark.usefixtures("answering_port")
def test_all_is_well(place, capsys):
    code, checks = report(place, capsys)
    assert code == 0
    assert checks["backend"]["found"].startswith("onnxruntime: no NVIDIA GPU is seen")
    assert checks["camera yard"]["found"] == "delivers 256 x 256"
    assert checks["store"]["verdict"] == "ok"
    assert "numpy" in checks["versions"]["found"]


def test_a_broker_that_is_not_there_fails_with_the_remedy(place, capsys):
    code, checks = report(place, capsys)
    assert code == 1
    assert checks["broker"]["verdict"] == "fail"
    assert "127.0.0.1:9" in checks["broker"]["found"]
    assert "[mqtt] host" in checks["broker"]["remedy"]


def test_each_fault_is_found_in_one_go(place, capsys):
    place.weights.unlink()
    for picture in place.pictures.iterdir():
        picture.unlink()
    code, checks = report(place, capsys)
    assert code == 1
    failed = {name for name, check in checks.items() if check["verdict"] == "fail"}
    assert failed == {"weights", "broker", "camera yard"}


def test_a_wrong_settings_file_is_a_failed_check(place, capsys):
    place.config.write_text("[weights]\n")
    code, checks = report(place, capsys)
    assert code == 1
    assert "weights.path is missing" in checks["settings"]["found"]


def test_the_table_and_quiet(place, capsys):
    assert main(["doctor", "--config", str(place.config)]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().out
    assert main(["doctor", "--config", str(place.config), "--quiet"]) == 1
    assert capsys.readouterr().out == ""


def test_a_password_in_a_camera_url_is_not_shown(place, capsys):
    text = place.config.read_text().replace(
        f'"{place.pictures}"', '"rtsp://u:hunter2@127.0.0.1:9/x"\nopen_timeout_s = 1.0'
    )
    place.config.write_text(text)
    main(["doctor", "--config", str(place.config), "--json"])
    assert "hunter2" not in capsys.readouterr().out


def test_files_that_settings_name_are_looked_at_and_never_quoted(place, capsys):
    (place.folder / "mqtt").write_text("hunter2")
    (place.folder / "cert").write_text("hunter2")
    (place.folder / "empty").touch()
    (place.folder / "gate").write_text("hunter2")
    broker = f"""[mqtt]
ca_file = "{place.folder / "gone"}"
cert_file = "{place.folder / "cert"}"
password_file = "{place.folder / "mqtt"}"
"""
    cameras = f"""[[cameras]]
id = "gate"
source = "rtsp://u:hunter2@127.0.0.1:9/x"
enabled = false
credentials_file = "{place.folder / "gate"}"
[[cameras]]
id = "pole"
source = "rtsp://127.0.0.1:9/x"
enabled = false
credentials_file = "{place.folder / "empty"}"
"""
    place.config.write_text(place.config.read_text().replace("[mqtt]\n", broker) + cameras)
    main(["doctor", "--config", str(place.config), "--json"])
    said = capsys.readouterr().out
    checks = {(check["name"], check["verdict"]): check["found"] for check in json.loads(said)}
    assert "hunter2" not in said
    assert "gone cannot be read" in checks["mqtt.ca_file", "fail"]
    assert "tls is off" in checks["mqtt.cert_file", "note"]
    assert "without a username" in checks["mqtt.password_file", "note"]
    assert "no user before a colon" in checks["camera gate credentials", "fail"]
    assert "stands in the settings file" in checks["camera gate credentials", "note"]
    assert "empty is empty" in checks["camera pole credentials", "fail"]
