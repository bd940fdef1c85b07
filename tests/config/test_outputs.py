"""Outputs in other programs' words: which settings go together."""

from __future__ import annotations

from typing import Any

import pytest

from vajra_edge.config.settings import Settings, load
from vajra_edge.errors import SettingsError

ZONE = {"name": "door", "corners": [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]}


def settings(outputs: Any, *cameras: dict[str, Any], **mqtt: Any) -> Settings:
    known = [{"source": "/dev/video0", **camera} for camera in cameras]
    return load(None, {"weights": {"path": "/x.onnx"}, "mqtt": {"outputs": outputs, **mqtt}, "cameras": known})


def test_none_is_on_by_itself() -> None:
    assert load(None, {"weights": {"path": "/x.onnx"}}).mqtt.outputs == ()


def test_both_are_taken_where_every_camera_tracks() -> None:
    taken = settings(["frigate", "deepstream"], {"id": "gate", "track": True}, {"id": "yard", "zones": [ZONE]})
    assert taken.mqtt.outputs == ("frigate", "deepstream")
    assert taken.mqtt.frigate_prefix == "frigate"


def test_deepstream_has_a_word_for_objects_that_nobody_tracks() -> None:
    assert settings(["deepstream"], {"id": "gate"}).mqtt.outputs == ("deepstream",)


def test_cameras_that_do_not_track_are_named_with_the_remedy() -> None:
    with pytest.raises(SettingsError, match=r"set track = true for cameras yard, shed, or take frigate out of mqtt"):
        settings(["frigate"], {"id": "gate", "track": True}, {"id": "yard"}, {"id": "shed", "enabled": False})


def test_a_zone_with_the_name_of_a_camera_would_share_its_counts() -> None:
    with pytest.raises(SettingsError, match="cannot tell the zone door from the camera; name the zone otherwise"):
        settings(["frigate"], {"id": "gate", "zones": [ZONE]}, {"id": "door", "track": True})


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ("frigate", r'mqtt.outputs = "frigate": must be a list, like \["frigate", "deepstream"\]'),
        (["frigate", "frigate"], "names one twice"),
        (["onvif"], "must be 'frigate' or 'deepstream'"),
        ([1], "must be 'frigate' or 'deepstream'"),
    ],
)
def test_another_list_is_refused_in_words(outputs: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        settings(outputs)


@pytest.mark.parametrize("prefix", ["", "a/#", "/frigate"])
def test_the_prefix_is_a_topic(prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"mqtt\.frigate_prefix"):
        settings(["frigate"], frigate_prefix=prefix)
