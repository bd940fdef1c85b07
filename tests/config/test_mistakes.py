"""Slips of the hand in settings: one line, with the field, its value and what to write."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from vajra_edge.config.settings import load
from vajra_edge.errors import SettingsError

MINIMAL = {"weights": {"path": "/w.onnx"}}
CAMERA = {"id": "gate", "source": "/dev/video0"}


def refused(**sections: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(None, {**MINIMAL, **sections}, {})
    line = str(caught.value)
    assert caught.value.exit_code == 78
    assert "\n" not in line
    assert "hunter2" not in line
    return line


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"mqtt": {"tls": True, "cert_file": "/c.pem"}}, ["mqtt.cert_file is set without key_file; set both"]),
        ({"mqtt": {"tls": True, "key_file": "/k.pem"}}, ["mqtt.key_file is set without cert_file"]),
        ({"cameras": [CAMERA, CAMERA]}, ["settings: cameras[0] and cameras[1] share the id gate; each camera"]),
        ({"cameras": CAMERA}, ["write [[cameras]], in two brackets"]),
        ({"mqtt": {"port": True}}, ["mqtt.port = true: must be a whole number"]),
        ({"mqtt": {"host": "mqtt://broker"}}, ["mqtt.host = mqtt://broker: is a URL; write the name", "into port"]),
        ({"mqtt": {"host": "mqtts://u:hunter2@broker:8883/x"}}, ["mqtts://broker/***: is a URL", "tls = true"]),
        ({"mqtt": {"host": "broker:1883"}}, ['mqtt.host = "broker:1883": holds a port', "port = 1883"]),
        ({"mqtt": {"host": "[::1]:1883"}}, ["holds a port"]),
        ({"mqtt": {"host": "[::1]"}}, ['mqtt.host = "[::1]": stands in brackets', "::1"]),
        ({"mqtt": {"host": "me:hunter2@broker"}}, ["mqtt.host holds a user"]),
        ({"mqtt": {"host": ""}}, ["names no host"]),
        ({"mqtt": {"host": "bro ker"}}, ["holds a space"]),
        ({"mqtt": {"host": "broker/"}}, ["no name and no address"]),
        ({"mqtt": {"host": "10.0.0.999"}}, ["no valid IPv4 address"]),
        ({"mqtt": {"host": "/run/mosquitto.sock"}}, ["is a path"]),
        ({"mqtt": {"root": "$SYS"}}, ['mqtt.root = "$SYS": begins with $']),
        ({"mqtt": {"root": "$share/g/a"}}, ["begins with $"]),
        ({"mqtt": {"root": "a/#"}}, ['mqtt.root = "a/#": holds a wildcard']),
        ({"mqtt": {"root": "/a"}}, ["holds an empty level"]),
        ({"mqtt": {"root": "a/"}}, ["holds an empty level"]),
        ({"mqtt": {"root": "a//b"}}, ["holds an empty level"]),
        ({"mqtt": {"root": "a\0b"}}, ["mqtt.root holds the invisible character U+0000"]),
        ({"mqtt": {"root": "a b"}}, ["holds a space"]),
        ({"mqtt": {"root": ""}}, ["is empty"]),
        ({"mqtt": {"root": "a" * 600}}, ["mqtt.root is longer than 512 bytes"]),
        ({"mqtt": {"username": "hunter2\n"}}, ["mqtt.username holds a control character"]),
    ],
)
def test_what_is_said_of_the_broker_and_of_tables(sections: dict[str, Any], words: list[str]) -> None:
    line = refused(**sections)
    for part in words:
        assert part in line


@pytest.mark.parametrize(
    "value", ["1883", 1883.0, -1, 0, 65_536, float("nan"), float("inf"), [1883], {}, dt.date(2026, 1, 1)]
)
def test_a_port_is_a_whole_number_and_nothing_else(value: object) -> None:
    assert "mqtt.port" in refused(mqtt={"port": value})


@pytest.mark.parametrize(
    ("section", "field", "values"),
    [
        ("mqtt", "tls", [1, "true", "yes", 0.0]),
        ("mqtt", "outbox_age_s", [float("inf"), float("nan"), 0, -1, "1h", True, 1e12]),
        ("mqtt", "outbox_bytes", [10**15, 1, "16M"]),
        ("mqtt", "qos", [2, "1", True, 1.5]),
        ("mqtt", "keepalive_s", [4, 3601, 30.5]),
        ("mqtt", "protocol", [5, 3.11, "5.0"]),
        ("service", "settle_s", [0, float("nan"), 86_401.0, "2s"]),
        ("service", "control_socket", ["/" + "s" * 120, 1, ""]),
        ("engine", "batch", [True, 0, 65, 1.5]),
        ("engine", "img_size", [True, "640", [640], [640, 640, 3], 31, [640, 9000], 640.0]),
        ("engine", "nms_iou", [True, 1.01, -0.1, float("nan"), "0.7"]),
        ("engine", "simplify", ["false", 0]),
        ("store", "max_bytes", [-1, 1.5, "4G"]),
        ("store", "state_dir", ["", 1, "~/state", "a\0b", "\x1b[2J", "http://x/y"]),
        ("weights", "path", ["", [], "https://x/net.onnx"]),
        ("weights", "sha256", ["abc", "sha256:" + "0" * 64]),
        ("weights", "class_names", ["person", [1, 2], [""], ["\ud800"], []]),
        ("calibration", "data", ["rtsp://u:hunter2@cam/1", "rtsp:/u:hunter2@cam"]),
        ("detect", "classes", ["person", {"person": True}, []]),
    ],
)  # fmt: skip
def test_values_of_another_type_or_out_of_bounds_are_named(section: str, field: str, values: list[object]) -> None:
    for value in values:
        assert f"{section}.{field}" in refused(**{section: {**MINIMAL.get(section, {}), field: value}})


def test_a_whole_number_serves_as_a_number_and_a_list_as_names() -> None:
    taken = load(
        None, {**MINIMAL, "detect": {"confidence": 1, "classes": ["a"]}, "engine": {"img_size": [480, 640]}}, {}
    )
    assert (taken.detect.confidence, taken.detect.classes, taken.engine.img_size) == (1.0, ("a",), (480, 640))


@pytest.mark.parametrize("field", ["password_file"])
def test_a_password_in_the_place_of_its_file_is_refused_and_not_quoted(field: str) -> None:
    assert "mqtt.password_file must be the full path of a file" in refused(mqtt={field: "hunter2"})
    line = refused(cameras=[{**CAMERA, "credentials_file": "admin:hunter2"}])
    assert "cameras[0].credentials_file (camera gate) must be the full path" in line


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"mqtt": {"password": "hunter2"}},
         "mqtt.password is not a setting; write it into a file, and name that in password_file"),
        ({"cameras": [{**CAMERA, "password": "hunter2"}]}, "name that in credentials_file"),
        ({"mqtt": {"user": "me"}}, "did you mean username?"),
        ({"mqtt": {"server": "x"}}, "did you mean host?"),
        ({"mqtt": {"base_topic": "x"}}, "did you mean root?"),
        ({"mqtt": {"client_id": "x"}}, "did you mean device_id"),
        ({"mqtt": {"keep_alive": 3}}, "did you mean keepalive_s?"),
        ({"mqtt": {"key-file": "/k"}}, "write key_file"),
        ({"cameras": [{**CAMERA, "url": "x"}]}, "cameras[0].url (camera gate) is not a setting; did you mean source?"),
        ({"cameras": [{**CAMERA, "enable": True}]}, "did you mean enabled?"),
        ({"engine": {"img_siz": 640}}, "did you mean img_size?"),
        ({"engine": {"confidence": 0.5}}, "it belongs into [detect]"),
        ({"confidence": 0.5}, "it belongs into [detect]"),
        ({"mqqt": {}}, "did you mean mqtt?"),
        ({"mqtt": {"homeassistant": True}}, "did you mean home_assistant?"),
        ({"mqtt": {"last_will": True}}, "mqtt.last_will is not a setting; take it out"),
        ({"engine": {"device": 0}}, "did you mean target?"),
        ({"cameras": [{**CAMERA, "username": "hunter2"}]}, "write user:password into a file, and name that in cred"),
        ({"camera": []}, "did you mean cameras?"),
        ({"rtsp://u:hunter2@cam": 1}, "(a key with other characters) is not a setting"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_told_with_what_was_meant(sections: dict[str, Any], words: str) -> None:
    assert words in refused(**sections)


def test_a_camera_is_named_by_place_and_id_and_shown_by_scheme_and_host() -> None:
    line = refused(cameras=[CAMERA, {"id": "yard", "source": "rtps://u:hunter2@10.0.0.5/s?x=1"}])
    assert "cameras[1].source (camera yard) = rtps://10.0.0.5/***: has a wrong scheme" in line
    assert "did you mean rtsp://?" in line


def test_of_an_address_that_cannot_be_parsed_nothing_is_shown_but_the_cameras_id() -> None:
    line = refused(cameras=[{"id": "yard", "source": "rtsp://admin:hunter2 10.0.0.5/s"}])
    assert line.startswith("settings: cameras[0].source (camera yard) is not a valid URL: it holds a space")
    assert "10.0" not in line


def test_a_missing_file_or_device_is_no_wrong_setting() -> None:
    taken = load(None, {**MINIMAL, "cameras": [{"id": "usb", "source": "/mnt/not-mounted/clip.mp4"}]}, {})
    assert taken.cameras[0].source == "/mnt/not-mounted/clip.mp4"


@pytest.mark.parametrize("name", ["MQTT", "Mqtt", "DEVICE_ID"])
def test_a_section_in_capitals_is_refused_and_not_left_out(name: str) -> None:
    assert f"{name} is not a setting; write {name.lower()}" in refused(mqtt={"port": 1}, **{name: {"port": 2}})


@pytest.mark.parametrize(
    "name", ["_env_file", "_cli_parse_args", "_case_sensitive", "_secrets_dir", "self", "__pydantic_self__"]
)
def test_a_key_that_the_settings_library_knows_is_no_setting(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"{name} is not a setting; take it out" in refused(**{name: ["--help"]})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("set_one", "unset"), [("width_px", "height_px"), ("height_px", "width_px")])
def test_a_csi_camera_with_one_side_is_refused_for_the_other_would_be_that_of_another_shape(
    set_one: str, unset: str
) -> None:
    line = refused(cameras=[{"id": "yard", "source": "csi:0", set_one: 1280}])
    assert f"cameras[0].{set_one} (camera yard) = 1280: is set without {unset}" in line
    assert "set both, or neither" in line


@pytest.mark.parametrize("source", ["csi:0", "/dev/video0"])
def test_both_sides_or_neither_are_taken_of_a_csi_camera_and_either_of_a_v4l2_device(source: str) -> None:
    sides: list[dict[str, int]] = [{}, {"width_px": 1280, "height_px": 720}]
    sides += [] if source == "csi:0" else [{"width_px": 1280}]
    for one in sides:
        assert load(None, {**MINIMAL, "cameras": [{"id": "yard", "source": source, **one}]}, {}).cameras[0].id == "yard"


def test_a_pipeline_is_shown_as_one() -> None:
    line = refused(cameras=[{"id": "yard", "source": "gst:rtspsrc user-pw=hunter2 ! fakesink"}])
    assert "(camera yard) = GStreamer pipeline: is a pipeline without appsink" in line


@pytest.mark.parametrize(
    ("path", "words"), [("C:\\w\\n.onnx", "is a path of Windows"), ("$HOME/n.onnx", "holds a placeholder")]
)
def test_a_path_that_this_system_does_not_read_so_is_refused(path: str, words: str) -> None:
    assert words in refused(weights={"path": path})
    assert "mqtt.username holds a placeholder" in refused(mqtt={"username": "${MQTT_USER}"})


def test_every_wrong_field_is_told_and_a_hundred_of_them_are_counted() -> None:
    line = refused(mqtt={f"x{number}": 1 for number in range(100)})
    assert line.count("is not a setting") == 8
    assert line.endswith("and 92 more")


def test_of_wrong_tables_only_the_kind_is_told() -> None:
    assert "mqtt = 3: must be a table" in refused(mqtt=3)
    assert "mqtt.host = a table: must be a text" in refused(mqtt={"host": {"a": "hunter2"}})
    assert "cameras[0] = a list of 1: must be a table" in refused(cameras=[["hunter2"]])
