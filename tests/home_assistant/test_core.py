"""A real Home Assistant core, a real broker and a daemon: what appears, what it says, and what goes again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper
from ports import free_port
from station import Station
from waiting import wait_for
from walk import LEFT, STREET, walk

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "deploy" / "samples"
ROOT = Path(os.environ.get("HOME_ASSISTANT_ROOT", "/var/tmp/vajra-edge-home-assistant"))
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or ""
ABSENT = (
    "root" if os.geteuid() else "mmdebstrap" if not shutil.which("mmdebstrap") else "" if MOSQUITTO else "mosquitto"
)

pytestmark = [
    pytest.mark.long("downloads and runs a Home Assistant core, as root; test_catalogue.py looks at payloads always"),
    pytest.mark.skipif(bool(ABSENT), reason=f"absent here: {ABSENT}"),
    pytest.mark.timeout(7200),
]

GATE = "test_gate"
OF_THE_DEVICE = {
    "sensor.test_state",
    "binary_sensor.test_problem",
    "sensor.test_engine_precision",
    "sensor.test_inference_time",
    "event.test_engine_event",
    "update.test_engine",
}
OF_THE_GATE = {
    f"binary_sensor.{GATE}_connected",
    f"binary_sensor.{GATE}_problem",
    f"sensor.{GATE}_frame_rate",
    f"sensor.{GATE}_objects",
    f"image.{GATE}_snapshot",
}
CONTROLS = {
    f"switch.{GATE}_enabled",
    f"number.{GATE}_confidence",
    f"number.{GATE}_snapshot_interval",
    f"text.{GATE}_classes",
}
GONE = "unavailable"


class Mosquitto:
    """A broker without a memory, at one port over all its starts."""

    def __init__(self, folder: Path) -> None:
        self.port, self.config = free_port(), folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> Mosquitto:
        self.child = subprocess.Popen([MOSQUITTO, "-c", str(self.config)], stderr=subprocess.DEVNULL)
        wait_for(self._listens)
        return self

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


class Core:
    """Home Assistant as a child, with a folder of its own that outlives it."""

    def __init__(self, folder: Path, broker: int) -> None:
        self.folder, self.broker, self.http = folder, broker, free_port()
        self.child: subprocess.Popen[str] | None = None

    def start(self) -> Core:
        inside = self.folder.relative_to(ROOT)
        shutil.copy(HERE / "core.py", ROOT / "opt/core.py")
        command = ["chroot", str(ROOT), "/opt/ha/bin/python", "/opt/core.py", f"/{inside}", str(self.http)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (self.folder / "core.log").open("a") as log:
            self.child = subprocess.Popen([*command, str(self.broker)], stderr=log, **pipes)  # type: ignore[call-overload]
        assert self._line()["version"]
        return self

    def ask(self, ask: str, **more: Any) -> Any:
        assert self.child is not None
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps({"ask": ask, **more}) + "\n")
        self.child.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        """The core's own prints may come between."""
        assert self.child is not None
        assert self.child.stdout is not None
        for line in self.child.stdout:
            if line[:1] in "{[t":
                return json.loads(line)
        raise AssertionError((self.folder / "core.log").read_text()[-3000:])

    def stop(self) -> None:
        if self.child is not None:
            self.child.communicate()
            self.child = None

    def states(self) -> dict[str, Any]:
        """Of our devices."""
        told = self.ask("states")
        return {name: state for name, state in told.items() if name.partition(".")[2].startswith("test_")}

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        last: dict[str, Any] = {}

        def holds() -> bool:
            last.clear()
            last.update(self.states())
            return bool(condition(last))

        try:
            wait_for(holds, step_s=0.3)
        except AssertionError as error:
            raise AssertionError(json.dumps(last, indent=1)) from error
        return last

    def press(self, domain: str, service: str, entity: str, **more: Any) -> None:
        self.ask(service, domain=domain, fields={"entity_id": entity, **more})


@pytest.fixture(scope="module")
def installed() -> Iterator[None]:
    """The folder with Home Assistant in it; made once on a machine, for it is large."""
    subprocess.run(["bash", str(HERE / "root.sh"), str(ROOT)], check=True)
    yield
    for name in ("dev", "proc"):
        subprocess.run(["umount", str(ROOT / name)], check=False)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.stop()


@pytest.fixture
def core(installed: None, mosquitto: Mosquitto, request: pytest.FixtureRequest) -> Iterator[Core]:
    folder = ROOT / "srv" / f"{os.getpid()}-{request.node.name}"
    folder.mkdir(parents=True)
    core = Core(folder, mosquitto.port)
    try:
        yield core.start()
    finally:
        core.stop()
        shutil.rmtree(folder)


def settled(core: Core, folder: Path) -> Station:
    """A daemon that has not been started."""
    station = Station(folder, core.broker)
    station.camera("gate", snapshot_every_s=0.5)
    station.write(mqtt={"home_assistant": "device"})
    return station


@pytest.fixture
def daemon(core: Core, tmp_path: Path) -> Iterator[Station]:
    station = settled(core, tmp_path)
    try:
        yield station.spawn()
    finally:
        station.stop()


@pytest.fixture
def timely(core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    """One whose clock is known to be right, as this machine's may not be."""
    monkeypatch.setattr("vajra_edge.clock.is_synchronised", lambda: True)
    station = settled(core, tmp_path)
    try:
        yield station.start()
    finally:
        station.stop()


def all_there(states: dict[str, Any]) -> bool:
    return set(states) == OF_THE_DEVICE | OF_THE_GATE and not any(one["state"] == GONE for one in states.values())


def served(states: dict[str, Any]) -> bool:
    """All are there, and each has its value."""
    return (
        all_there(states)
        and states["sensor.test_state"]["state"] == "serving"
        and states["update.test_engine"]["state"] == "off"
        and states[f"sensor.{GATE}_objects"]["state"].isdecimal()
        and states[f"sensor.{GATE}_frame_rate"]["state"] != "unknown"
        and states[f"image.{GATE}_snapshot"]["state"] != "unknown"
    )


def test_a_device_and_its_camera_appear_by_themselves_and_say_what_is(core: Core, daemon: Station) -> None:
    states = core.until(served)
    assert states["sensor.test_engine_precision"]["state"] == "fp32"
    assert float(states["sensor.test_inference_time"]["state"]) > 0
    assert states[f"binary_sensor.{GATE}_connected"]["state"] == "on"
    assert states[f"binary_sensor.{GATE}_problem"]["state"] == "off"
    assert states["update.test_engine"]["installed_version"] == daemon.status()["engine"]["serving"]["fingerprint"][:12]
    devices = core.ask("devices")
    assert (devices["test"]["via"], devices["test gate"]["via"]) == (None, "test")
    assert core.ask("said") == []


def test_a_camera_that_is_lost_has_no_count_and_one_that_is_removed_goes(core: Core, daemon: Station) -> None:
    core.until(served)
    address = f"http://127.0.0.1:{free_port()}/nobody.jpg"
    daemon.settings["cameras"]["yard"] = {"source": address, "classes": ["person", "car"], "backoff_max_s": 0.5}
    daemon.write()
    yard = "test_yard"
    counts = {f"sensor.{yard}_objects", f"sensor.{yard}_person", f"sensor.{yard}_car", f"sensor.{yard}_frame_rate"}
    now = core.until(
        lambda now: counts <= now.keys() and now.get(f"binary_sensor.{yard}_problem", {}).get("state") == "on"
    )
    assert {now[name]["state"] for name in counts} == {GONE}
    assert now[f"binary_sensor.{yard}_connected"]["state"] == "off"
    core.until(lambda now: "127.0.0.1" in now[f"binary_sensor.{yard}_problem"].get("reason", ""))
    del daemon.settings["cameras"]["yard"]
    daemon.write()
    core.until(lambda now: served(now) and not any(yard in name for name in now))
    assert "test yard" not in core.ask("devices")
    assert core.ask("said") == []


def test_zones_and_lines_appear_by_themselves_and_say_who_is_there(core: Core, daemon: Station) -> None:
    core.until(served)
    daemon.camera("gate", source=str(walk(daemon.folder / "walk")), fps=2.0, zones=[LEFT], lines=[STREET])
    daemon.write()
    occupied, happened = f"binary_sensor.{GATE}_left_occupied", f"event.{GATE}_zone_and_line_event"
    objects, entered = f"sensor.{GATE}_left_objects", f"sensor.{GATE}_left_entered"
    ways = f"sensor.{GATE}_street_in", f"sensor.{GATE}_street_out"
    ours = {occupied, happened, objects, entered, *ways}
    core.until(lambda now: ours <= now.keys() and (now[occupied]["state"], now[objects]["state"]) == ("on", "1"))
    core.until(lambda now: (now[occupied]["state"], now[objects]["state"]) == ("off", "0"))
    core.until(lambda now: int(now[entered]["state"]) > 1 and sum(int(now[way]["state"]) for way in ways) > 1)
    seen = {one["event_type"] for one in core.ask("changes", entity=happened) if "event_type" in one}
    assert {"enter", "leave", "cross"} <= seen
    daemon.settings["cameras"]["gate"] |= {"zones": [], "lines": []}
    daemon.write()
    core.until(lambda now: not ours & now.keys() and served(now))
    assert core.ask("said") == []


def test_a_camera_that_goes_while_the_daemon_is_down_goes(core: Core, daemon: Station) -> None:
    daemon.camera("yard")
    daemon.write()
    core.until(lambda now: now.get("binary_sensor.test_yard_connected", {}).get("state") == "on")
    daemon.stop()
    core.until(lambda now: {one["state"] for one in now.values()} == {GONE})
    del daemon.settings["cameras"]["yard"]
    daemon.spawn()
    core.until(served)
    assert "test yard" not in core.ask("devices")


def test_each_of_the_three_may_start_anew(core: Core, daemon: Station, mosquitto: Mosquitto) -> None:
    before = core.until(served)
    happened = core.until(lambda now: now["event.test_engine_event"]["state"] != "unknown")["event.test_engine_event"]

    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    core.until(lambda now: {one["state"] for one in now.values()} == {GONE})
    daemon.spawn()
    core.until(served)

    mosquitto.stop()
    core.until(lambda now: {one["state"] for one in now.values()} == {GONE})
    mosquitto.start()
    after = core.until(served)
    events = [one["number"] for one in core.ask("changes", entity="event.test_engine_event") if "number" in one]
    assert events == sorted(events)
    assert events.count(happened["number"]) <= 2, "shown anew once it is available again, and that is all"
    assert after.keys() == before.keys()

    core.stop()
    core.start()
    again = core.until(served)
    assert again.keys() == before.keys()
    assert core.ask("said") == []


def entities_of(card: object) -> Iterator[str]:
    """Everything that a dashboard, or a part of one, shows or looks at."""
    if isinstance(card, dict):
        yield from [card["entity"]] if "entity" in card else []
        for part in card.values():
            yield from entities_of(part)
    elif isinstance(card, list):
        for part in card:
            yield from entities_of(part)


def test_the_sample_of_a_dashboard_is_taken_and_every_entity_in_it_is_there(core: Core, tmp_path: Path) -> None:
    core.stop()
    shutil.copy(SAMPLES / "home-assistant-dashboard.yaml", core.folder / "dashboard.yaml")
    core.start()
    station = settled(core, tmp_path)
    station.settings["device_id"] = "gate-7"
    del station.settings["cameras"]["gate"]
    station.camera("yard", snapshot_every_s=0.5)
    try:
        station.spawn()
        shown = set(entities_of(core.ask("dashboard")["views"]))
        assert len(shown) == 11

        def known() -> bool:
            states = core.ask("states")
            return all(states.get(name, {}).get("state", GONE) not in (GONE, "unknown") for name in shown)

        wait_for(known, step_s=0.3)
    finally:
        station.stop()


def test_what_can_be_pressed_does_what_it_says(core: Core, timely: Station) -> None:
    daemon = timely
    core.until(served)
    daemon.write(mqtt={"commands": True})
    button = "button.test_rebuild_engine"
    # What is not available yet cannot be pressed, and nobody is told.
    core.until(lambda now: now.get(button, {}).get("state", GONE) != GONE)
    answers = daemon.listen("response/rebuild")
    core.press("button", "press", button)
    assert answers.until(lambda _path, told: told["transaction"].startswith("home-assistant-"))["status"] == "ok"
    asked = "MQTT, transaction home-assistant-"
    core.until(lambda now: now["event.test_engine_event"].get("asked_by", "").startswith(asked))
    answers.close()
    shown = core.ask("changes", entity="update.test_engine")
    assert [one for one in shown if one.get("in_progress") and one.get("update_percentage") is not None]
    daemon.write(mqtt={"commands": False})
    core.until(lambda now: button not in now)
    assert core.ask("said") == []


@pytest.fixture
def commanded(core: Core, timely: Station) -> Station:
    """A daemon that takes requests, once each control has its value."""
    core.until(served)
    timely.write(mqtt={"commands": True})
    core.until(lambda now: all(now.get(name, {}).get("state", GONE) not in (GONE, "unknown") for name in CONTROLS))
    return timely


def camera(daemon: Station) -> dict[str, Any]:
    return daemon.status()["cameras"][0]


def test_each_switch_number_and_text_changes_the_daemon_and_shows_what_is(core: Core, commanded: Station) -> None:
    daemon, switch = commanded, f"switch.{GATE}_enabled"
    core.press("switch", "turn_off", switch)
    daemon.until(lambda s: s["cameras"][0]["state"] == "off" and not s["cameras"][0]["settings"]["enabled"])
    now = core.until(lambda now: now[switch]["state"] == "off" and now[f"sensor.{GATE}_objects"]["state"] == GONE)
    assert now[f"binary_sensor.{GATE}_connected"]["state"] == "off"
    assert now[f"binary_sensor.{GATE}_problem"]["state"] == "off", "it is off because somebody wants that"
    core.press("switch", "turn_on", switch)
    daemon.until(lambda s: s["cameras"][0]["state"] == "streaming")
    core.until(lambda now: now[switch]["state"] == "on" and now[f"sensor.{GATE}_objects"]["state"].isdecimal())
    for entity, field, value, shown in (
        (f"number.{GATE}_confidence", "confidence", 0.85, "0.85"),
        (f"number.{GATE}_snapshot_interval", "snapshot_every_s", 7, "7.0"),
        (f"number.{GATE}_snapshot_interval", "snapshot_every_s", 0, "0.0"),
        (f"text.{GATE}_classes", "classes", "person, car", "person, car"),
        (f"text.{GATE}_classes", "classes", "", ""),
    ):
        core.press(entity.partition(".")[0], "set_value", entity, value=value)
        expected = {0: None, "": None, "person, car": ["person", "car"]}.get(value, value)
        daemon.until(lambda s, field=field, expected=expected: s["cameras"][0]["settings"][field] == expected)
        core.until(lambda now, entity=entity, shown=shown: _same(now[entity]["state"], shown))
    told = {one["setting"]: one for one in daemon.status()["settings"]["overrides"]}
    assert told.keys() == {f"cameras.gate.{name}" for name in ("enabled", "confidence", "snapshot_every_s", "classes")}
    assert {one["by"].partition("-")[0] for one in told.values()} == {"MQTT, transaction home"}
    core.press("button", "press", f"button.{GATE}_undo_changes")
    status = daemon.until(lambda s: not s["settings"]["overrides"])
    assert status["cameras"][0]["settings"]["snapshot_every_s"] == 0.5
    core.until(lambda now: _same(now[f"number.{GATE}_snapshot_interval"]["state"], "0.5"))
    daemon.write(mqtt={"commands": False})
    core.until(served)
    assert core.ask("said") == []


def _same(shown: str, expected: str) -> bool:
    """Numbers by their value."""
    try:
        return float(shown) == float(expected)
    except ValueError:
        return shown == expected


def test_each_button_does_what_it_says(core: Core, commanded: Station) -> None:
    daemon = commanded
    old = daemon.serving()
    core.press("number", "set_value", f"number.{GATE}_snapshot_interval", value=0)
    daemon.until(lambda s: s["cameras"][0]["settings"]["snapshot_every_s"] is None)
    answers = daemon.listen("response/#")
    before = core.states()[f"image.{GATE}_snapshot"]["state"]
    core.press("button", "press", f"button.{GATE}_take_snapshot")
    assert answers.until(lambda path, _: path == "response/snapshot")["status"] == "ok"
    core.until(lambda now: now[f"image.{GATE}_snapshot"]["state"] > before)
    daemon.write_weights(tiny.network(gain=30.0))
    daemon.until(lambda s: s["engine"]["serving"]["fingerprint"] != old and not s["engine"]["loading"])
    core.press("button", "press", "button.test_roll_engine_back")
    daemon.until(lambda s: s["engine"]["serving"]["fingerprint"] == old)
    assert answers.until(lambda path, _: path == "response/rollback")["status"] == "ok"
    core.press("button", "press", "button.test_rebuild_engine")
    told = answers.until(lambda path, _: path == "response/rebuild")
    assert told["transaction"].startswith("home-assistant-")
    answers.close()
    assert core.ask("said") == []


def test_an_update_that_was_taken_back_is_installed_when_somebody_asks(core: Core, commanded: Station) -> None:
    daemon, update = commanded, "update.test_engine"
    old = daemon.serving()
    ears = daemon.listen("camera/gate/detections")
    ears.detections(120)  # what the next plan is measured by
    daemon.write_weights(_blind())
    daemon.until(lambda s: s["engine"]["serving"]["fingerprint"] == old and s["engine"]["failures"])
    now = core.until(
        lambda now: (
            now[update]["state"] == "on"
            and not now[update]["in_progress"]
            and "waits" in now["binary_sensor.test_problem"].get("reason", "")
        )
    )
    assert now[update]["installed_version"] == old[:12]
    new = now[update]["latest_version"]
    answers = daemon.listen("response/install")
    core.press("update", "install", update)
    told = answers.until(lambda _path, _told: True)
    assert (told["status"], told["content"]["started"]) == ("ok", True)
    daemon.until(lambda s: s["engine"]["serving"]["fingerprint"][:12] == new)
    shown = core.ask("changes", entity=update)
    assert [one for one in shown if one.get("in_progress")]
    for each in (ears, answers):
        each.close()
    assert core.ask("said") == []


def _blind() -> bytes:
    """The tiny network with a threshold that nothing reaches."""
    network = onnx.load_from_string(tiny.network())
    for constant in network.graph.initializer:
        if constant.name == "threshold":
            constant.CopyFrom(numpy_helper.from_array(np.full(2, -100.0, np.float32), "threshold"))
    return network.SerializeToString()


def test_the_older_form_is_the_same_and_what_is_off_is_gone(core: Core, daemon: Station) -> None:
    before = core.until(served)
    unique = core.ask("registry")
    daemon.write(mqtt={"home_assistant": "components"})
    picture = f"camera.{GATE}_picture"  # disabled, without a state: it is openHAB's
    wait_for(lambda: picture in core.ask("registry"), step_s=0.3)
    after = core.until(served)
    assert after.keys() == before.keys()
    registry = core.ask("registry")
    assert registry.pop(picture).endswith("/gate/picture")
    assert registry == unique
    daemon.write(mqtt={"home_assistant": "off"})
    core.until(lambda now: not now)
    assert not [name for name in core.ask("devices") if name and name.startswith("test")]
