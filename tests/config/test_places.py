"""Zones and lines in the settings, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.config.settings import CameraSettings, load
from vajra_edge.errors import SettingsError

HEAD = '[weights]\npath = "/w.onnx"\n[[cameras]]\nid = "gate"\nsource = "/dev/video0"\n'
ZONE = '[[cameras.zones]]\nname = "door"\ncorners = [[0, 0], [1, 0], [1, 1.0]]\n'
LINE = '[[cameras.lines]]\nname = "street"\nstart = [0, 0.5]\nend = [1, 0.5]\n'


def loaded(tmp_path: Path, text: str) -> CameraSettings:
    path = tmp_path / "config.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    (camera,) = load(path).cameras
    return camera


def test_tables_below_a_camera_are_its_zones_and_lines(tmp_path: Path):
    camera = loaded(tmp_path, ZONE + "dwell_s = 30\n" + LINE)
    (zone,), (line,) = camera.zones, camera.lines
    assert (zone.name, zone.corners, zone.dwell_s) == ("door", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)), 30)
    assert (line.name, line.start, line.end) == ("street", (0.0, 0.5), (1.0, 0.5))
    assert CameraSettings.model_validate_json(camera.model_dump_json()) == camera


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zones = 3\n", "must be a list of tables; write [[cameras.zones]]"),
        ('[[cameras.zones]]\nname = "a b"\n', "[0] needs a name"),
        ('[[cameras.zones]]\nname = "door"\ncorners = [[0, 0], [1, 1]]\n', "door needs corners: 3 to 64 points"),
        (ZONE.replace("[1, 0]", "[640, 0]"), "door: a corner must be [x, y], each from 0 to 1"),
        (ZONE.replace("[1, 0]", f"[{10**400}, 0]"), "door: a corner must be [x, y], each from 0 to 1"),
        (ZONE.replace("[1, 0]", "[nan, 0]"), "door: a corner must be [x, y], each from 0 to 1"),
        (ZONE.replace("[1, 0]", "[true, 0]"), "door: a corner must be [x, y]"),
        (ZONE.replace("[1, 0]", "[0.5, 0.5]"), "door encloses nothing"),
        (ZONE + "dwell_s = 0\n", "door: dwell_s must be above 0"),
        (ZONE + 'dwell_s = "30"\n', "door: dwell_s must be a number"),
        (ZONE + "dwel_s = 3\n", "door has dwel_s, which is not a setting; it takes corners, dwell_s, name"),
        (ZONE + ZONE, "share the name door"),
        (LINE.replace("[1, 0.5]", "[0, 0.5]"), "street begins where it ends"),
        (LINE.replace("end", "stop"), "street has stop, which is not a setting"),
        ('[[cameras.lines]]\nname = "street"\nstart = [0, 0]\n', "street: end must be [x, y]"),
    ],
)
def test_a_wrong_one_is_named_in_one_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, text)
    assert said in str(caught.value)
    assert "(camera gate)" in str(caught.value)
    assert "\n" not in str(caught.value)
