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
