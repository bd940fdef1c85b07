"""Settings changed while a whole daemon runs: applied in place, told, kept over a kill, and undone."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from station import LIMIT_S, Station
from waiting import wait_for
from walk import LEFT, walk

from vajra_edge.errors import ControlError
from vajra_edge.mqtt.schema import CameraMessage


def change(station: Station, setting: str, value: object) -> dict[str, Any]:
    return station.ask(verb="set", setting=setting, value=value)[-1]


def camera(status: dict[str, Any], name: str = "gate") -> dict[str, Any]:
    (found,) = [one for one in status["cameras"] if one["id"] == name]
    return found


def by_name(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["setting"]: one for one in status["settings"]["overrides"]}


def test_a_change_counts_at_once_is_told_and_goes_with_unset(rebooted: Station):
    rebooted.camera("gate", confidence=0.3)
    rebooted.start()
    rebooted.serving()
    ears = rebooted.listen("camera/gate/#")
    ears.until(lambda path, content: path.endswith("/detections") and content["detections"])
    answer = change(rebooted, "cameras.gate.confidence", 1.0)
    assert answer["settings"] == {"cameras.gate.confidence": 1.0}
    told = ears.ever(
        lambda path, content: path.endswith("/status") and content["settings"]["changed"] == ["confidence"]
    )
    assert CameraMessage.model_validate(told, strict=False).settings.confidence == 1.0
    ears.until(lambda path, content: path.endswith("/detections") and not content["detections"])
    status = rebooted.status()
    (override,) = status["settings"]["overrides"]
    assert (override["value"], override["beneath"], override["origin"]) == (1.0, 0.3, "file")
    assert override["by"].startswith("user ")
    assert camera(status)["settings"]["confidence"] == 1.0
    rebooted.write(detect={"confidence": 0.2})  # the file may change meanwhile, and what was changed stands
    rebooted.until(lambda _: rebooted.supervisor._known.settings.detect.confidence == 0.2)
    assert camera(rebooted.status())["settings"]["confidence"] == 1.0
    rebooted.ask(verb="unset", setting="cameras.gate.confidence")
    status = rebooted.status()
    assert (status["settings"]["overrides"], camera(status)["settings"]["confidence"]) == ([], 0.3)
    ears.until(lambda path, content: path.endswith("/detections") and content["detections"])
    ears.close()


def test_a_bad_value_is_refused_and_changes_nothing(rebooted: Station):
    rebooted.start()
    rebooted.serving()
    with pytest.raises(ControlError, match=r"cameras\.gate\.confidence = 7\.0: must be less than or equal to 1"):
        change(rebooted, "cameras.gate.confidence", 7.0)
    with pytest.raises(ControlError, match="there is no camera 'shed'; use one of gate"):
        change(rebooted, "cameras.shed.enabled", False)
    with pytest.raises(ControlError, match=r"there is no class 'persn'; .* the network knows person, car"):
        change(rebooted, "cameras.gate.classes", ["persn"])
    with pytest.raises(ControlError, match="is no setting that can be changed while the daemon runs"):
        change(rebooted, "weights.path", "/elsewhere")
    with pytest.raises(ControlError, match="was not changed"):
        rebooted.ask(verb="unset", setting="cameras.gate")
    assert rebooted.status()["settings"]["overrides"] == []
    assert not (rebooted.state_dir / "overrides").exists()


def test_a_camera_that_is_turned_off_is_told_as_off_and_blind_and_no_other_loses_a_frame(rebooted: Station):
    rebooted.sweep()
    rebooted.camera("gate", source=str(walk(rebooted.folder / "walk")), fps=2.0, zones=[LEFT])
    rebooted.camera("yard", realtime=False)  # one that waits for the engine, however slow this machine is now
    ears = rebooted.listen()
    rebooted.start()
    rebooted.serving()
    ears.ever(lambda path, content: path == "camera/gate/places" and content and content["blind"] == "")
    losses = camera(rebooted.status(), "yard")["losses"]
    change(rebooted, "cameras.gate.enabled", False)
    off = ears.until(lambda path, content: path == "camera/gate/status" and not content["settings"]["enabled"])
    assert off["state"] == "off"
    gone = ears.ever(lambda path, content: path == "camera/gate/places" and content and content["blind"] == "camera")
    assert (gone["zones"][0]["present"], gone["zones"][0]["count"]) == (None, {})
    totals = ears.ever(
        lambda path, content: (
            path == "camera/gate/totals" and content and "camera" in [one["why"] for one in content["blind"]]
        )
    )
    assert totals["camera"] == "gate"
    before = len([path for path, _, _ in ears.all() if path == "camera/gate/detections"])
    ears.detections(20, "yard")
    seen = [content for path, content, _ in ears.all() if path == "camera/yard/detections"]
    assert [one["frame_seq"] for one in seen] == list(range(seen[0]["frame_seq"], seen[0]["frame_seq"] + len(seen)))
    assert len([path for path, _, _ in ears.heard if path == "camera/gate/detections"]) == before
    assert (camera(rebooted.status(), "yard")["losses"], camera(rebooted.status())["state"]) == (losses, "off")
    change(rebooted, "cameras.gate.enabled", True)
    ears.until(lambda path, content: path == "camera/gate/places" and content and content["blind"] == "")
    ears.close()


def test_a_clip_that_ends_while_a_camera_is_turned_off_does_not_end_the_daemon(rebooted: Station):
    rebooted.camera("clip", loop=False)
    rebooted.start()
    rebooted.serving()
    change(rebooted, "cameras.gate.enabled", False)
    rebooted.until(lambda s: camera(s, "clip")["state"] == "ended" and camera(s, "clip")["published"])
    change(rebooted, "cameras.gate.enabled", True)
    rebooted.until(lambda s: camera(s)["state"] == "streaming")


def test_zones_and_pictures_are_changed_in_place(rebooted: Station):
    rebooted.sweep()
    rebooted.camera("gate", source=str(walk(rebooted.folder / "walk")), fps=2.0)
    ears = rebooted.listen()
    rebooted.start()
    rebooted.serving()
    starts = camera(rebooted.until(lambda s: camera(s)["state"] == "streaming"))["starts"]
    change(rebooted, "cameras.gate.zones", [LEFT])
    ears.until(lambda path, content: path == "camera/gate/places" and content and content["zones"])
    event = ears.ever(lambda path, _: path == "camera/gate/events")
    assert event["seq"] == 0
    rebooted.ask(verb="unset", setting="cameras.gate")
    ears.until(lambda path, content: path == "camera/gate/places" and content is None)
    assert camera(rebooted.status())["starts"] == starts
    ears.close()


def test_what_was_changed_outlives_a_kill_and_a_camera_that_is_gone_is_said(rebooted: Station):
    rebooted.camera("yard")
    rebooted.spawn()
    rebooted.serving()
    change(rebooted, "cameras.yard.enabled", False)
    change(rebooted, "detect.confidence", 0.6)
    assert rebooted.process is not None
    rebooted.process.send_signal(signal.SIGKILL)
    rebooted.process.wait(LIMIT_S)
    rebooted.spawn()
    status = rebooted.until(lambda s: s["phase"] == "serving")
    assert camera(status, "yard")["state"] == "off"
    assert camera(status)["settings"]["confidence"] == 0.6
    del rebooted.settings["cameras"]["yard"]
    rebooted.write()
    status = rebooted.until(lambda s: len(s["cameras"]) == 1)
    told = by_name(status)["cameras.yard.enabled"]
    assert told["idle"] == "camera yard is not in the settings file"
    assert (status["phase"], status["reason"]) == ("serving", "")
    rebooted.camera("yard")
    rebooted.write()
    status = rebooted.until(lambda s: len(s["cameras"]) == 2)
    assert (camera(status, "yard")["state"], by_name(status)["cameras.yard.enabled"]["idle"]) == ("off", "")
    assert rebooted.stop() == 0


def test_a_damaged_file_is_published_and_stops_nothing(rebooted: Station):
    rebooted.sweep()
    file = rebooted.state_dir / "overrides" / "overrides.json"
    file.parent.mkdir()
    file.write_bytes(b"\0" * 100)
    ears = rebooted.listen("status")
    rebooted.start()
    said = ears.until(lambda _, content: content["state"] == "serving" and "overrides.damaged" in content["reason"])
    assert "the settings file alone holds" in said["reason"]
    change(rebooted, "detect.confidence", 0.6)
    wait_for(lambda: rebooted.status()["reason"] == "")
    ears.close()


def test_a_settings_file_that_is_wrong_now_keeps_nobody_from_a_change(rebooted: Station):
    rebooted.start()
    rebooted.serving()
    rebooted.config.write_text("[weights\n")
    rebooted.until(lambda s: s["settings"]["error"])
    change(rebooted, "detect.confidence", 0.6)
    status = rebooted.status()
    assert camera(status)["settings"]["confidence"] == 0.6
    assert "is not valid TOML" in status["settings"]["error"]
