"""Variables over the file: the same checks, and the variable is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vajra_edge.config.settings import load
from vajra_edge.errors import SettingsError

MINIMAL: dict[str, Any] = {"weights": {"path": "/w.onnx"}}


def test_variables_are_read_as_what_their_fields_are() -> None:
    taken = load(
        None,
        {**MINIMAL, "mqtt": {"username": "me"}},
        {
            "VAJRA_EDGE_MQTT__HOST": "10.0.0.5",
            "VAJRA_EDGE_MQTT__PROTOCOL": "5",
            "VAJRA_EDGE_MQTT__QOS": "0",
            "vajra_edge_mqtt__tls": "yes",
            "VAJRA_EDGE_ENGINE__IMG_SIZE": "[480, 640]",
            "VAJRA_EDGE_ENGINE__BATCH": "4",
            "VAJRA_EDGE_WEIGHTS__SHA256": "1" * 64,
            "VAJRA_EDGE_DETECT__CLASSES": '["person"]',
            "VAJRA_EDGE_DEVICE_ID": "7",
            "VAJRA_EDGE_SERVICE": '{"settle_s": 3, "poll_s": 2}',
            "VAJRA_EDGE_SERVICE__POLL_S": "0.5",
            "VAJRA_EDGE_CAMERAS": '[{"id": "gate", "source": "rtsp://cam/1"}]',
        },
    )
    assert (taken.mqtt.host, taken.mqtt.username, taken.mqtt.protocol) == ("10.0.0.5", "me", "5")
    assert (taken.mqtt.qos, taken.mqtt.tls, taken.engine.batch) == (0, True, 4)
    assert (taken.engine.img_size, taken.detect.classes, taken.device_id) == ((480, 640), ("person",), "7")
    assert (taken.weights.path, taken.weights.sha256) == (Path("/w.onnx"), "1" * 64)
    assert (taken.service.settle_s, taken.service.poll_s) == (3.0, 0.5)
    assert taken.cameras[0].id == "gate"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MQTT__PORT", "abc", "mqtt.port (environment variable VAJRA_EDGE_MQTT__PORT)"),
        ("MQTT__PORT", "true", "must be a whole number"),
        ("MQTT__PORT", "", "must be a whole number"),
        ("MQTT__HOST", "mqtt://u:hunter2@broker", "VAJRA_EDGE_MQTT__HOST) = mqtt://broker/***: is a URL"),
        ("MQTT__PASSWORD_FILE", "hunter2", "must be the full path"),
        ("MQTT__PASSWORD", "hunter2", "is not a setting; did you mean VAJRA_EDGE_MQTT__PASSWORD_FILE?"),
        ("MQTT_HOST", "b", "VAJRA_EDGE_MQTT_HOST is not a setting; did you mean VAJRA_EDGE_MQTT__HOST?"),
        ("MQTT__HOTS", "b", "did you mean VAJRA_EDGE_MQTT__HOST?"),
        ("NOTHING__LIKE", "b", "is not a setting; unset it"),
        ("ENGINE__BATCH", "1.5", "VAJRA_EDGE_ENGINE__BATCH) = 1.5: must be a whole number"),
        ("ENGINE__NMS_IOU", "NaN", "engine.nms_iou"),
        ("MQTT__PORT", "1" * 5000, "VAJRA_EDGE_MQTT__PORT) must be a whole number"),
        ("ENGINE__BATCH", "[" * 100_000, "must be a whole number"),
        ("ENGINE__IMG_SIZE", "[" * 100_000, "is not valid JSON; write a list as"),
        ("MQTT", '{"Port": 5}', "mqtt.Port (environment variable VAJRA_EDGE_MQTT) is not a setting; write port"),
        ("DETECT__CLASSES", "person", "VAJRA_EDGE_DETECT__CLASSES) is not valid JSON"),
        ("CAMERAS", '[{"id": "gate", "source": "rtsp://u:hunter2@cam',
         "cameras (environment variable VAJRA_EDGE_CAMERAS) is not valid JSON"),
        ("CAMERAS", '[{"id": "gate", "source": "rtps://u:hunter2@cam/1"}]',
         "cameras[0].source (camera gate) (environment variable"),
        ("CAMERAS__0__SOURCE", "rtsp://u:hunter2@cam/1", "VAJRA_EDGE_CAMERAS takes all cameras as JSON"),
        ("MQTT", "hunter2", "mqtt (environment variable VAJRA_EDGE_MQTT) is not valid JSON"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, MINIMAL, {f"VAJRA_EDGE_{name}": value})
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_variables_of_others_are_left_alone() -> None:
    assert load(None, MINIMAL, {"VAJRA_EDGE_CONFIG": "/c.toml", "VAJRA_EDGE_IMAGE_TAG": "1", "PATH": "/bin"})


def test_a_section_that_is_no_table_is_named_also_beside_a_variable_of_its_field() -> None:
    for value, said in (("[]", "a list of 0"), ('"x"', '"x"'), ("5", "5")):
        with pytest.raises(SettingsError, match=r"VAJRA_EDGE_MQTT\) = ") as caught:
            load(None, MINIMAL, {"VAJRA_EDGE_MQTT": value, "VAJRA_EDGE_MQTT__PORT": "5"})
        assert f"= {said}: must be a table" in str(caught.value)
    assert load(None, MINIMAL, {"VAJRA_EDGE_MQTT": "null", "VAJRA_EDGE_MQTT__PORT": "5"}).mqtt.port == 5
