"""What may be changed while the daemon runs: which settings, which values, and what lies over what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vajra_edge.config.changes import ACTIONS, Action
from vajra_edge.config.overrides import (
    OF_A_CAMERA,
    OF_DETECT,
    Override,
    Overrides,
    beneath,
    changed_fields,
    checked,
    laid_over,
    named,
    place_of,
    turned_off,
    typed,
    value_of,
    why_idle,
)
from vajra_edge.config.settings import Settings, load
from vajra_edge.errors import SettingsError

DOOR = {"name": "door", "corners": [[0, 0], [0.5, 0], [0.5, 1]]}


def settings(environ: dict[str, str] | None = None, **detect: Any) -> Settings:
    cameras = [{"id": "gate", "source": "x.mp4", "confidence": 0.3}, {"id": "back.yard", "source": "y.mp4"}]
    given = {"weights": {"path": "x.onnx"}, "cameras": cameras, "detect": detect}
    return load(None, given, environ or {})


def told_as_frigate(**camera: Any) -> Settings:
    given = {"weights": {"path": "x.onnx"}, "mqtt": {"outputs": ["frigate"]}}
    yard = {"id": "yard", "source": "y.mp4", "track": True}
    return load(None, {**given, "cameras": [{"id": "gate", "source": "x.mp4", **camera}, yard]}, {})


def changes(**values: object) -> Overrides:
    """Double underscores for dots."""
    return {name.replace("__", "."): Override(value, "me", "t", True) for name, value in values.items()}


@pytest.mark.parametrize(
    ("setting", "value", "kept"),
    [
        ("cameras.gate.enabled", False, False),
        ("cameras.gate.confidence", 1, 1.0),
        ("cameras.gate.confidence", None, None),
        ("cameras.back.yard.classes", ["person"], ["person"]),
        ("cameras.gate.snapshot_every_s", 5, 5.0),
        ("detect.confidence", 0.4, 0.4),
    ],
)
def test_a_value_that_the_settings_file_would_take_is_taken(setting: str, value: object, kept: object):
    assert checked(setting, value, settings()) == kept


def test_a_zone_is_kept_as_json_that_is_taken_again():
    kept = checked("cameras.gate.zones", [DOOR], settings())
    again = laid_over(settings(), {"cameras.gate.zones": Override(json.loads(json.dumps(kept)), "", "", True)})
    assert [zone.name for zone in again.cameras[0].zones] == ["door"]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (
            "cameras.gate.confidence",
            7.0,
            r"^cameras\.gate\.confidence = 7\.0: must be less than or equal to 1; it",
        ),
        ("cameras.gate.confidence", "0.4", r'^cameras\.gate\.confidence = "0\.4": must be a number'),
        ("cameras.gate.confidence", True, r"= true: must be a number"),
        ("cameras.gate.enabled", 1, r"= 1: must be true or false"),
        ("cameras.gate.classes", [], r"names nothing"),
        ("cameras.gate.snapshot_every_s", 0, r"= 0: must be greater than 0"),
        ("cameras.gate.zones", [{"name": "door"}], r"door needs corners"),
        ("cameras.shed.enabled", True, r"there is no camera 'shed'; use one of gate, back\.yard"),
        ("cameras.gate.source", "rtsp://x", r"'cameras\.gate\.source' is no setting that can be changed .*; change "),
        ("mqtt.host", "elsewhere", r"is no setting that can be changed"),
        ("weights.path", "/tmp/x", r"is no setting that can be changed"),
        ("cameras..enabled", True, r"is no setting"),
        ("detect", {}, r"is no setting"),
        (7, 7, r"is no setting"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_value_and_what_to_do(setting: Any, value: object, said: str):
    with pytest.raises(SettingsError, match=said):
        checked(setting, value, settings())


def test_a_class_that_the_network_does_not_know_is_a_mistake_where_it_is_known_what_it_knows():
    names = ("person", "car", *map(str, range(20)))
    assert checked("detect.classes", ["car"], settings(), names) == ["car"]
    assert checked("detect.classes", None, settings(), names) is None
    assert checked("detect.classes", ["bus"], settings()) == ["bus"]
    with pytest.raises(SettingsError, match=r"there is no class 'bus'; .*knows person, car, 0, .* and 12 more$"):
        checked("cameras.gate.classes", ["car", "bus"], settings(), names)


def test_a_camera_that_somebody_turned_off_may_be_turned_on_again_and_one_of_the_file_may_not():
    known = load(None, {"weights": {"path": "x"}, "cameras": [{"id": "gate", "source": "x.mp4", "enabled": False}]}, {})
    assert not turned_off(known, {})
    assert not turned_off(settings(), changes(cameras__gate__enabled=True))
    over = changes(cameras__gate__enabled=False)
    assert turned_off(laid_over(settings(), over), over)


def test_a_change_lies_over_the_file_and_the_environment_and_says_what_is_beneath():
    environ = {"VAJRA_EDGE_DETECT__CONFIDENCE": "0.6"}
    known = settings(environ, confidence=0.5, classes=["car"])
    over = changes(detect__confidence=0.9, detect__classes=["person"], cameras__gate__confidence=0.8)
    assert beneath("detect.confidence", known, environ) == (0.6, "environment")
    assert beneath("detect.classes", known, environ) == (["car"], "file")
    assert beneath("cameras.gate.confidence", known, environ) == (0.3, "file")
    assert beneath("cameras.gate.enabled", known, environ) == (True, "default")
    changed = laid_over(known, over)
    assert (changed.detect.confidence, changed.detect.classes) == (0.9, ("person",))
    assert [camera.confidence for camera in changed.cameras] == [0.8, None]
    assert (known.detect.confidence, known.cameras[0].confidence) == (0.6, 0.3)


def test_cameras_of_the_environment_are_told_as_that():
    environ = {"VAJRA_EDGE_CAMERAS": '[{"id": "gate", "source": "x.mp4", "confidence": 0.2}]'}
    assert beneath("cameras.gate.confidence", settings(environ), environ) == (0.2, "environment")


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("cameras.shed.enabled", False, "camera shed is not in the settings file"),
        ("cameras.gate.confidence", 7.0, "must be less than or equal to 1"),
        ("cameras.gate.hue", 1, "no setting that can be changed"),
    ],
)
def test_a_change_that_fits_no_more_has_no_effect_and_says_why(setting: str, value: object, why: str):
    over = {setting: Override(value, "me", "t", True), "detect.confidence": Override(0.9, "me", "t", True)}
    assert why in why_idle(setting, over[setting], settings())
    changed = laid_over(settings(), over)
    assert changed.cameras == settings().cameras
    assert changed.detect.confidence == 0.9
    assert value_of("cameras.gate.hue", settings()) is None


def test_what_the_file_may_not_say_beside_frigates_topics_nobody_may_change_to_either():
    """A zone and a camera of one name would share a count; of a camera that tracks no more the last one would stand."""
    told, named_alike = told_as_frigate(zones=[DOOR]), [{**DOOR, "name": "yard"}]
    with pytest.raises(
        SettingsError, match=r"cannot tell the zone yard from the camera; name the zone otherwise.*stays"
    ):
        checked("cameras.gate.zones", named_alike, told)
    with pytest.raises(SettingsError, match=r"set track = true for camera gate"):
        checked("cameras.gate.zones", [], told)
    assert checked("cameras.gate.zones", [], told_as_frigate(zones=[DOOR], track=True)) == []
    assert checked("cameras.gate.lines", [], told) == []
    assert checked("cameras.gate.confidence", 0.4, told) == 0.4
    assert checked("cameras.gate.zones", named_alike, settings())[0]["name"] == "yard"
    over = {"cameras.gate.zones": Override(named_alike, "me", "t", True)}  # made before frigate was turned on
    assert "cannot tell the zone yard" in why_idle("cameras.gate.zones", over["cameras.gate.zones"], told)
    assert [zone.name for zone in laid_over(told, over).cameras[0].zones] == ["door"]


def test_one_change_is_named_by_its_setting_and_all_of_a_camera_by_it():
    over = changes(cameras__gate__enabled=False, cameras__gate__confidence=0.4, detect__confidence=0.9)
    assert named("cameras.gate.confidence", over) == ("cameras.gate.confidence",)
    assert named("cameras.gate", over) == ("cameras.gate.enabled", "cameras.gate.confidence")
    assert list(changed_fields("gate", over)) == ["enabled", "confidence"]
    with pytest.raises(SettingsError, match=r"'cameras\.back\.yard' was not changed; what was: cameras\.gate\.enabled"):
        named("cameras.back.yard", over)


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ("cameras.gate.confidence", "0.4", 0.4),
        ("cameras.gate.enabled", "off", False),
        ("cameras.gate.enabled", "true", True),
        ("cameras.gate.classes", "person, traffic light", ["person", "traffic light"]),
        ("cameras.gate.classes", '["person"]', ["person"]),
        ("cameras.gate.snapshot_every_s", "none", None),
        ("cameras.gate.confidence", "high", "high"),
        ("cameras.gate.confidence", "1e999", "1e999"),
        ("cameras.gate.confidence", "NaN", "NaN"),
        ("cameras.gate.confidence", "[" * 100_000, "[" * 100_000),
        ("cameras.gate.zones", json.dumps([DOOR]), [DOOR]),
    ],
)
def test_what_is_typed_is_what_is_meant(setting: str, text: str, value: object):
    assert typed(setting, text) == value


def test_nothing_may_be_changed_that_builds_reconnects_or_waits_for_a_restart():
    allowed = [f"cameras.{name}" for name in OF_A_CAMERA] + [f"detect.{name}" for name in OF_DETECT]
    assert {ACTIONS[name] for name in allowed} == {Action.APPLY, Action.REOPEN}
    assert place_of("cameras.a.b.c.lines").camera == "a.b.c"
