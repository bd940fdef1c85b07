from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.config.changes import ACTIONS, Action, changes
from vajra_edge.config.settings import CameraSettings, leaf_fields, load
from vajra_edge.errors import SettingsError

MINIMAL = {"weights": {"path": "/weights.onnx"}}


def write(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_field_has_exactly_one_action():
    assert set(leaf_fields()) == set(ACTIONS)


def different(field, value):
    """Another valid value for a field, found from its type."""
    special = {
        "engine.target": "dla:1", "engine.img_size": 320, "engine.opset": 17, "mqtt.root": "site/a", "mqtt.qos": 0,
        "mqtt.protocol": "5", "engine.backend": "onnxruntime", "engine.precision": "int8", "engine.typing": "weak",
        "engine.first_boot": "wait", "calibration.algorithm": "entropy", "service.log_level": "debug",
        "weights.sha256": "a" * 64, "weights.class_names": ("x",), "weights.stride": 64, "cameras.fps": 5.0,
        "engine.optimization_level": 4, "engine.workspace_gib": 1.5, "cameras.freeze_s": 3.0, "device_id": "other",
        "cameras.confidence": 0.5, "cameras.classes": ("cat",), "cameras.snapshot_every_s": 9.0, "service.threads": 1,
        "cameras.track": True,
        "cameras.zones": ({"name": "door", "corners": ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))},),
        "cameras.lines": ({"name": "street", "start": (0.0, 0.5), "end": (1.0, 0.5)},),
        "detect.classes": ("cat",), "cameras.width_px": 640, "cameras.height_px": 480, "mqtt.port": 1884,
        "mqtt.username": "me", "cameras.source": "/dev/video1", "engine.quantization": "qdq",
        "cameras.rtsp_transport": "udp", "engine.batch": 4, "cameras.decode": "cpu",
        "mqtt.delivery": "live", "mqtt.outbox": "memory", "mqtt.outbox_bytes": 100_000,
        "mqtt.home_assistant": "device", "mqtt.discovery_prefix": "ha", "mqtt.outputs": ("deepstream",),
    }  # fmt: skip
    if field in special:
        return special[field]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5
    return Path("/other") if value is None or isinstance(value, Path) else f"{value}x"


@pytest.mark.parametrize("field", [name for name in leaf_fields() if name != "cameras.id"])
def test_a_change_of_each_field_asks_for_its_action(field):
    base = {**MINIMAL, "cameras": [{"id": "gate", "source": "/dev/video0"}]}
    old = load(None, base)
    section, _, name = field.rpartition(".")
    if section == "cameras":
        value = different(field, getattr(old.cameras[0], name))
        new = load(None, {**base, "cameras": [{**base["cameras"][0], name: value}]})
        expected = f"cameras.gate.{name}"
    elif section:
        value = different(field, getattr(getattr(old, section), name))
        new = load(None, {**base, section: {**base.get(section, {}), name: value}})
        expected = field
    else:
        new, expected = load(None, {**base, field: different(field, getattr(old, field))}), field
    found = changes(old, new)
    assert found.fields == (expected,)
    assert found.actions == {ACTIONS[field]}
    assert found.reopened == (("gate",) if ACTIONS[field] is Action.REOPEN else ())


def test_cameras_are_compared_by_id_not_by_place():
    cameras = [{"id": "a", "source": "/dev/video0"}, {"id": "b", "source": "/dev/video1"}]
    old = load(None, {**MINIMAL, "cameras": cameras})
    swapped = load(None, {**MINIMAL, "cameras": cameras[::-1]})
    assert changes(old, swapped).fields == ()
    other = load(None, {**MINIMAL, "cameras": [cameras[1], {"id": "c", "source": "/dev/video2"}]})
    found = changes(old, other)
    assert (found.added, found.removed, found.reopened) == (("c",), ("a",), ())


def test_environment_wins_over_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, '[weights]\npath = "/w.onnx"\n[mqtt]\nhost = "file"\nusername = "me"\n')
    monkeypatch.setenv("VAJRA_EDGE_MQTT__HOST", "environment")
    monkeypatch.setenv("VAJRA_EDGE_ENGINE__BATCH", "4")
    loaded = load(path)
    assert (loaded.mqtt.host, loaded.mqtt.username, loaded.engine.batch) == ("environment", "me", 4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[weights]\npath="/w"\n[engine]\nprecision="fp12"\n', ["engine.precision", "fp12", "'fp32'"]),
        ('[weights]\npath="/w"\n[engine]\nimg_siz=640\n', ["engine.img_siz", "did you mean img_size?"]),
        ('[weights]\npath="/w"\n[detect]\nconfidence=1.5\n', ["detect.confidence", "1.5", "less than or equal to 1"]),
        ("[mqtt]\nport=1883\n", ["weights is missing; add a table [weights]"]),
        ('[weights]\npath="/w"\n[[cameras]]\nid="a b"\nsource="x"\n', ["cameras[0].id", "a b"]),
        (
            '[weights]\npath="/w"\n[[cameras]]\nid="a"\nsource="x"\n[[cameras]]\nid="a"\nsource="y"\n',
            ["share the id a"],
        ),
        ('[weights]\npath="/w"\n[mqtt]\nroot="a/#"\n', ["mqtt.root", "a/#"]),
        ('[weights\npath="/w"\n', ["not valid TOML", "line 1"]),
    ],
)
def test_a_wrong_file_names_field_value_and_what_is_allowed(tmp_path, text, named):
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, text))
    message = str(caught.value)
    assert caught.value.exit_code == 78
    assert "\n" not in message
    for part in named:
        assert part in message


def test_all_wrong_fields_are_named_at_once(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, '[weights]\npath="/w"\n[engine]\nbatch=0\nmax_det=0\n'))
    assert "engine.batch" in str(caught.value)
    assert "engine.max_det" in str(caught.value)


def test_an_absent_file_says_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot be read: No such file.*--config"):
        load(tmp_path / "none.toml")


def test_a_wrong_environment_value_is_one_line(monkeypatch):
    monkeypatch.setenv("VAJRA_EDGE_CAMERAS", "not json")
    with pytest.raises(SettingsError, match="cameras"):
        load(None, MINIMAL)


def test_a_wrong_camera_url_does_not_show_its_password():
    with pytest.raises(SettingsError) as caught:
        load(
            None,
            {**MINIMAL, "cameras": [{"id": "a", "source": "rtsp://u:hunter2@cam/", "fps": "rtsp://u:hunter2@cam/"}]},
        )
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


def test_settings_are_frozen():
    loaded = load(None, MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        loaded.engine.batch = 2


def test_the_camera_table_covers_each_field_of_a_camera():
    assert {f"cameras.{name}" for name in CameraSettings.model_fields} <= set(ACTIONS)
