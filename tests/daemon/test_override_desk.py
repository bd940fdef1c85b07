"""What people change while the daemon runs, on its way to the disk and back."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vajra_edge import durable
from vajra_edge.clock import Moment
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon import override_desk
from vajra_edge.daemon.override_desk import Overridden, OverrideDesk
from vajra_edge.errors import ControlError, SettingsError

SETTINGS = load(None, {"weights": {"path": "x.onnx"}, "cameras": [{"id": "gate", "source": "x.mp4"}]}, {})


class Caller:
    who = "user pi"


class Desk(OverrideDesk):
    """One whose background is done when the test says so."""

    def __init__(self, state_dir: Path) -> None:
        self.tasks: list[Callable[[], Overridden]] = []
        moment = Moment("boot", 1.0, 1_800_000_000.0, synchronised=True)
        super().__init__(state_dir, lambda _, task: self.tasks.append(task), lambda: moment)
        self.open()

    def done(self) -> list[Overridden]:
        tasks, self.tasks = self.tasks, []
        return [task() for task in tasks]

    def change(self, setting: str, value: object, settings: Settings = SETTINGS) -> Overridden:
        self.set(Caller(), {"setting": setting, "value": value}, settings)
        return self.done()[0]


def values(desk: OverrideDesk) -> dict[str, object]:
    return {setting: one.value for setting, one in desk.kept.items()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def file_of(folder: Path) -> Path:
    return folder / override_desk.FOLDER / override_desk.NAME


def test_what_was_changed_is_there_after_a_restart_with_who_and_when(desk: Desk, tmp_path: Path):
    told = desk.change("cameras.gate.confidence", 0.4)
    assert (told.refusal, told.changed) == (None, ("cameras.gate.confidence",))
    again = Desk(tmp_path)
    assert again.kept == told.overrides
    assert again.damage == ""
    one = again.kept["cameras.gate.confidence"]
    assert (one.value, one.by, one.at, one.clock_synchronised) == (0.4, "user pi", "2027-01-15T08:00:00+00:00", True)


def test_two_changes_that_wait_are_both_made(desk: Desk):
    desk.set(Caller(), {"setting": "cameras.gate.confidence", "value": 0.4}, SETTINGS)
    desk.set(Caller(), {"setting": "cameras.gate.enabled", "value": False}, SETTINGS)
    assert values(desk) == {}
    first, second = desk.done()
    assert set(first.overrides or ()) < set(second.overrides or ())
    assert values(desk) == {"cameras.gate.confidence": 0.4, "cameras.gate.enabled": False}


def test_what_is_undone_is_gone_for_good_and_what_is_not_there_cannot_be(desk: Desk, tmp_path: Path):
    desk.change("cameras.gate.confidence", 0.4)
    desk.change("cameras.gate.enabled", False)
    desk.change("detect.confidence", 0.9)
    desk.unset(Caller(), {"setting": "cameras.gate"})
    assert desk.done()[0].changed == ("cameras.gate.confidence", "cameras.gate.enabled")
    assert values(Desk(tmp_path)) == values(desk) == {"detect.confidence": 0.9}
    with pytest.raises(SettingsError, match=r"'cameras\.gate' was not changed"):
        desk.unset(Caller(), {"setting": "cameras.gate"})
    assert not desk.tasks


@pytest.mark.parametrize(
    ("verb", "fields", "said"),
    [
        ("set", {"setting": "detect.confidence"}, "takes a value"),
        ("set", {"value": 1}, "set takes a setting, like"),
        ("set", {"setting": "detect.confidence", "value": 1, "force": True}, "knows no field 'force'"),
        ("unset", {"setting": ["a"]}, "unset takes a setting"),
        ("unset", {"setting": "detect.confidence", "value": 1}, "knows no field 'value'"),
    ],
)
def test_a_request_of_another_form_is_refused(desk: Desk, verb: str, fields: dict[str, Any], said: str):
    with pytest.raises(ControlError, match=said):
        desk.set(Caller(), fields, SETTINGS) if verb == "set" else desk.unset(Caller(), fields)
    assert not desk.tasks


def test_a_value_that_is_not_right_changes_nothing(desk: Desk):
    desk.change("detect.confidence", 0.5)
    with pytest.raises(SettingsError, match=r"detect\.confidence = 7\.0"):
        desk.change("detect.confidence", 7.0)
    assert not desk.tasks
    assert values(desk) == {"detect.confidence": 0.5}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("zones", [{"name": "hall", "corners": [[0, 0], [1, 0], [0, 1], [1, 1]]}], "zone hall crosses itself"),
        ("lines", [{"name": "street", "start": [0, 1], "end": [1, 1]}], "line street lies along the picture's border"),
    ],
)
def test_places_that_are_hardly_meant_are_refused(desk: Desk, field: str, value: object, said: str):
    with pytest.raises(SettingsError, match=rf"^cameras\.gate\.{field}: {said}.*; it stays as it was"):
        desk.change(f"cameras.gate.{field}", value)
    assert desk.kept == {}


def test_a_disk_that_refuses_changes_nothing_and_says_so(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    desk.change("detect.confidence", 0.5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    told = desk.change("detect.confidence", 0.9)
    assert told.overrides is None
    assert "No space left on device" in str(told.refusal)
    monkeypatch.undo()
    assert values(Desk(tmp_path)) == values(desk) == {"detect.confidence": 0.5}


def test_more_than_the_file_may_hold_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(override_desk, "MOST_BYTES", 100)
    told = desk.change("detect.classes", ["person" * 20])
    assert "above 100" in str(told.refusal)
    assert values(desk) == {}


TOO_LARGE = b'{"detect.confidence": {"value": 123456789012345678901, "by": "x", "at": "y", "clock_synchronised": true}}'


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 400, b'{"detect.confidence"', b"[]", b'{"detect.confidence": 0.4}', TOO_LARGE]
)
def test_a_damaged_file_is_put_aside_and_said_and_the_next_change_is_kept(tmp_path: Path, content: bytes):
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_bytes(content)
    desk = Desk(tmp_path)
    assert desk.kept == {}
    assert "the settings file alone holds" in desk.damage
    assert file_of(tmp_path).with_suffix(".damaged").read_bytes() == content
    desk.change("detect.confidence", 0.4)
    assert desk.damage == ""
    assert values(Desk(tmp_path)) == {"detect.confidence": 0.4}


def test_a_folder_in_the_place_of_the_file_stops_nothing(tmp_path: Path):
    file_of(tmp_path).mkdir(parents=True)
    assert "is a folder" in Desk(tmp_path).damage


def test_what_a_power_cut_left_half_written_is_swept_away(desk: Desk, tmp_path: Path):
    desk.change("detect.confidence", 0.4)
    torn = file_of(tmp_path).with_name("0123456789abcdef")
    torn.write_bytes(b"{")
    assert values(Desk(tmp_path)) == {"detect.confidence": 0.4}
    assert not torn.exists()


def test_a_setting_that_this_release_does_not_know_is_kept(tmp_path: Path, desk: Desk):
    desk.change("detect.confidence", 0.4)
    known = json.loads(file_of(tmp_path).read_bytes())
    known["cameras.gate.hue"] = known["detect.confidence"]
    file_of(tmp_path).write_text(json.dumps(known))
    again = Desk(tmp_path)
    again.change("detect.confidence", 0.5)
    assert values(Desk(tmp_path)) == {"detect.confidence": 0.5, "cameras.gate.hue": 0.4}
    again.unset(Caller(), {"setting": "cameras.gate.hue"})
    again.done()
    assert values(Desk(tmp_path)) == {"detect.confidence": 0.5}
