"""What is sent to make devices, cameras and their entities appear, held to Home Assistant's pages."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import home_assistant_keys as documented
import jinja2
import orjson
import pytest

from vajra_edge.config.overrides import checked
from vajra_edge.config.settings import Settings, load
from vajra_edge.errors import SettingsError
from vajra_edge.home_assistant.catalogue import discoveries
from vajra_edge.home_assistant.controls import MOST_SHOWN
from vajra_edge.home_assistant.payloads import Discovery, in_topic
from vajra_edge.mqtt import messages
from vajra_edge.mqtt.commands import Requested, parse, verb_of
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.messages import (
    CameraControls,
    CameraStatus,
    HistoryEntry,
    HistoryStatus,
    ObjectsStatus,
    ServiceStatus,
    encode,
)
from vajra_edge.mqtt.topics import VERBS, Topics

TOPIC = re.compile(r"homeassistant/\w+/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")
"""As Home Assistant has it; another topic is refused with a warning."""

NAMES = ("person", "traffic light", 'a "}}" \\ {% b', "Fußgänger 🚶")


def settings(
    *, form: str = "device", commands: bool = False, signed: bool = False, device: str = "gate-7", **camera: Any
) -> Settings:
    known = {"id": "yard", "source": "x.mp4", **camera}
    mqtt = {"home_assistant": form, "commands": commands, "signed_commands": signed}
    return load(None, {"device_id": device, "weights": {"path": "x.onnx"}, "mqtt": mqtt, "cameras": [known]})


ZONES = [{"name": name, "corners": [[0, 0], [1, 0], [1, 1]]} for name in ("door", "drive.way")]
LINES = [{"name": "door", "start": [0, 0.5], "end": [1, 0.5]}]
ALL = settings(commands=True, snapshot_every_s=5.0, classes=list(NAMES), zones=ZONES, lines=LINES)


def payload(one: Discovery) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(one.payload)
    return told


def entities(told: tuple[Discovery, ...]) -> dict[str, dict[str, Any]]:
    return {one["unique_id"]: one for each in told for one in payload(each)["components"].values() if len(one) > 1}


def rendered(template: str, message: bytes, **more: Any) -> str:
    """As Home Assistant renders it, but for most functions of its own."""
    known = {"value_json": orjson.loads(message), "utcnow": messages._now, **more}
    return jinja2.Environment(autoescape=False).from_string(template).render(known)  # noqa: S701


@pytest.mark.parametrize("form", ["device", "components"])
def test_every_message_is_where_home_assistant_looks(form: str) -> None:
    told = discoveries(settings(form=form, device="site.a_b", id="front.door", classes=list(NAMES)), {})
    assert [one.path for one in told if not TOPIC.fullmatch(one.path)] == []
    assert len({one.path for one in told}) == len(told)


def test_a_device_and_a_camera_are_one_message_each() -> None:
    device, camera = discoveries(ALL, {})
    assert device.path == "homeassistant/device/vajra-edge-gate-7/config"
    assert camera.path == "homeassistant/device/vajra-edge-gate-7/yard/config"
    assert payload(camera)["device"]["via_device"] == payload(device)["device"]["identifiers"][0]


def test_nothing_is_said_where_nobody_asked() -> None:
    assert discoveries(settings(form="off"), {}) == ()
    assert discoveries(load(None, {"weights": {"path": "x.onnx"}}), {}) == ()


@pytest.mark.parametrize("each", discoveries(ALL, {}), ids=lambda each: each.path)
def test_every_key_is_one_of_the_documented_ones_and_none_is_missing(each: Discovery) -> None:
    told = payload(each)
    assert set(told) == {"device", "origin", "components"}
    assert set(told["device"]) <= documented.DEVICE
    assert set(told["origin"]) <= documented.ORIGIN
    for key, one in told["components"].items():
        platform = documented.PLATFORMS[one["platform"]]
        own = set(one) - {"platform"}
        assert platform.must <= own <= platform.must | platform.may | documented.COMMON, key
        assert " " not in key, "Home Assistant takes names of its own apart at spaces"
        assert one.get("entity_category", "config") in documented.CATEGORIES
        assert one.get("state_class", "total") in documented.STATE_CLASSES
        if "device_class" in one:
            assert one["device_class"] in documented.DEVICE_CLASSES[one["platform"]]


def test_the_older_form_says_the_same_of_each_entity() -> None:
    device = entities(discoveries(ALL, {}))
    older = {told["unique_id"]: told for told in map(payload, discoveries(settings_of(ALL, "components"), {}))}
    picture = older.pop("vajra-edge/gate-7/yard/picture")
    assert picture["enabled_by_default"] is False, "it is the snapshot once more, for openHAB"
    assert older.keys() == device.keys()
    for name, told in older.items():
        assert {**told, "device": 0, "origin": 0} == {**without_platform(device[name]), "device": 0, "origin": 0}


def settings_of(known: Settings, form: str) -> Settings:
    return known.model_copy(update={"mqtt": known.mqtt.model_copy(update={"home_assistant": form})})


def without_platform(entity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entity.items() if name != "platform"}


def test_nothing_can_be_pressed_while_commands_are_off() -> None:
    quiet = entities(discoveries(settings(), {}))
    assert [one for one in quiet.values() if "command_topic" in one] == []
    loud = entities(discoveries(settings(commands=True), {}))
    told = {name.removeprefix("vajra-edge/gate-7/"): one for name, one in loud.items() if "command_topic" in one}
    of_the_camera = ("take-snapshot", "reset", "enabled", "confidence", "snapshot-interval", "classes")
    assert told.keys() == {"engine", "rebuild", "rollback", *(f"yard/{key}" for key in of_the_camera)}
    assert {name.removeprefix("vajra-edge/gate-7/") for name in loud.keys() - quiet.keys()} == {
        *(told.keys() - {"engine"}),
        "yard/snapshot",
    }
    assert {one["command_topic"].rpartition("/")[2] for one in told.values()} <= set(VERBS)
    assert not any("retain" in one for one in told.values()), "a retained request is refused"


def test_an_entity_that_goes_is_named_once_more_with_its_platform_alone() -> None:
    """One that is merely left out of the message stays in Home Assistant for ever."""
    before = {one.path: one.components for one in discoveries(ALL, {})}
    device, camera = discoveries(settings(), before)
    assert payload(device)["components"]["rebuild"] == {"platform": "button"}
    assert payload(camera)["components"]["snapshot"] == {"platform": "image"}
    assert payload(camera)["components"]["class-person"] == {"platform": "sensor"}
    assert camera.components == before[camera.path], "a core that was away hears of it too"
    back = discoveries(ALL, {one.path: one.components for one in (device, camera)})
    assert [payload(one) for one in back] == [
        {**payload(one), "components": {**payload(again)["components"]}}
        for one, again in zip(discoveries(ALL, {}), back, strict=True)
    ]


def test_two_names_never_become_one() -> None:
    names = ["a.b", "a-b", "a_b", "a b", "a", "ä", "é", "-", "--"]
    assert len({in_topic(name) for name in names}) == len(names)
    assert in_topic("front_door-2") == "front_door-2"
    ids = [("a", "b_c"), ("a_b", "c"), ("a-b", "c"), ("a.b", "c"), ("a", "b-c")]
    told = [one for device, camera in ids for one in discoveries(settings(device=device, id=camera), {})]
    assert len({one.path for one in told}) == len({(one.path) for one in told})
    cameras = [one for one in told if "via_device" in payload(one)["device"]]
    assert len({one.path for one in cameras}) == len({payload(one)["device"]["identifiers"][0] for one in cameras}) == 5


def entity(name: str) -> dict[str, Any]:
    return entities(discoveries(ALL, {}))[f"vajra-edge/gate-7/{name}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_class_is_counted_whatever_its_name_is(name: str) -> None:
    template = entity(f"yard/class-{in_topic(name)}")["value_template"]
    assert rendered(template, encode(ObjectsStatus("gate-7", "yard", 3, {name: 2, "other": 1}))) == "2"
    assert rendered(template, encode(ObjectsStatus("gate-7", "yard", 1, {"other": 1}))) == "0"
    assert rendered(template, encode(ObjectsStatus("gate-7", "yard"))) == "None"


def test_what_is_not_known_is_unknown_and_never_zero() -> None:
    unknown = encode(ObjectsStatus("gate-7", "yard"))
    assert rendered(entity("yard/objects")["value_template"], unknown) == "None"
    assert orjson.loads(rendered(entity("yard/objects")["json_attributes_template"], unknown)) == {}
    assert rendered(entity("yard/objects")["value_template"], encode(ObjectsStatus("gate-7", "yard", 0, {}))) == "0"
    assert rendered(entity("yard/fps")["value_template"], encode(CameraStatus("gate-7", "yard", "opening"))) == "None"
    nothing = encode(messages.EngineStatus("gate-7"))
    assert rendered(entity("precision")["value_template"], nothing) == "None"
    assert rendered(entity("latency")["value_template"], nothing) == "None"


@pytest.mark.parametrize(
    ("state", "attempts", "there", "connected", "problem"),
    [
        ("opening", 0, "offline", "OFF", "OFF"),
        ("opening", 3, "offline", "OFF", "ON"),
        ("streaming", 0, "online", "ON", "OFF"),
        ("lost", 1, "offline", "OFF", "ON"),
        ("ended", 0, "offline", "OFF", "OFF"),
        ("off", 0, "offline", "OFF", "OFF"),
    ],
)
def test_a_camera_that_does_not_stream_has_no_values(
    state: str, attempts: int, there: str, connected: str, problem: str
) -> None:
    told = encode(CameraStatus("gate-7", "yard", state, attempts=attempts))
    for name in ("objects", "fps", "snapshot", "class-person"):
        both = entity(f"yard/{name}")
        assert both["availability_mode"] == "all"
        assert [rendered(one["value_template"], told) for one in both["availability"][1:]] == [there]
    for name, expected in (("connected", connected), ("problem", problem)):
        assert len(entity(f"yard/{name}")["availability"]) == 1, "of the device alone"
        assert rendered(entity(f"yard/{name}")["value_template"], told) == expected


def test_every_state_of_a_camera_is_among_those() -> None:
    assert set(messages.CAMERA_STATES) == {"opening", "streaming", "lost", "ended", "off"}


@pytest.mark.parametrize("state", messages.SERVICE_STATES)
def test_nothing_of_a_device_that_left_is_there(state: str) -> None:
    told = encode(ServiceStatus("gate-7", state))
    gone = state in ("stopped", "failed", "lost")
    for one in entities(discoveries(ALL, {})).values():
        assert rendered(one["availability"][0]["value_template"], told) == ("offline" if gone else "online")
    assert state in entity("state")["options"]


def update(**fields: Any) -> Any:
    told = encode(ServiceStatus("gate-7", "serving", **fields))
    return orjson.loads(rendered(entity("engine")["value_template"], told))


def test_the_update_is_the_engine_and_its_percentage_the_builds() -> None:
    assert update(engine="aa", wanted="aa") == {
        "installed_version": "aa",
        "latest_version": "aa",
        "in_progress": False,
        "update_percentage": None,
    }
    building = update(engine="aa", wanted="bb", progress=0.42)
    assert (building["installed_version"], building["latest_version"]) == ("aa", "bb")
    assert (building["in_progress"], building["update_percentage"]) == (True, pytest.approx(42))
    assert update(wanted="bb", progress=0.0)["installed_version"] == "none"
    assert update(engine="aa")["latest_version"] == "aa"
    assert "installed_version" not in update(), "nothing is known yet"


def happened(number: int) -> bytes:
    at = messages._now()
    entry = HistoryEntry(number, at, True, "rolled back", "aa", "it lies", "probation", None, {})
    return encode(HistoryStatus("gate-7", (entry,), at))


def test_an_event_happens_once_however_often_its_topic_says_it_again() -> None:
    template = entity("history")["value_template"]
    first = orjson.loads(rendered(template, happened(7), this=NEVER))
    assert (first["event_type"], first["number"], first["reason"]) == ("rolled back", 7, "it lies")
    again = {"attributes": {"number": 7}}
    assert rendered(template, happened(7), this=again).strip() == ""
    assert rendered(template, happened(8), this=again).strip() != ""
    assert rendered(template, happened(1), this=again).strip() != "", "a state folder that was emptied counts anew"


NEVER = {"attributes": {}}


def sent(name: str, value: object = None) -> Requested:
    """What the daemon makes of it, where the entity is pressed, switched or set."""
    one, topics = entity(name), Topics("vajra", "gate-7")
    render = jinja2.Environment(autoescape=False).from_string(one["command_template"]).render  # noqa: S701
    received = Received(one["command_topic"], render(utcnow=messages._now, value=value).encode())
    verb = verb_of(received, topics)
    assert verb is not None
    return parse(received, verb, topics)


@pytest.mark.parametrize(
    ("name", "value", "verb", "payload"),
    [
        ("rebuild", "PRESS", "rebuild", {"force": True, "wait": False}),
        ("rollback", "PRESS", "rollback", {"wait": False}),
        ("yard/take-snapshot", "PRESS", "snapshot", {"camera": "yard"}),
        ("yard/reset", "PRESS", "unset", {"setting": "cameras.yard"}),
        ("yard/enabled", "false", "set", {"setting": "cameras.yard.enabled", "value": False}),
        ("yard/confidence", 0.55, "set", {"setting": "cameras.yard.confidence", "value": 0.55}),
        ("yard/confidence", 1, "set", {"setting": "cameras.yard.confidence", "value": 1}),
        ("yard/snapshot-interval", 30, "set", {"setting": "cameras.yard.snapshot_every_s", "value": 30}),
        ("yard/snapshot-interval", 0, "set", {"setting": "cameras.yard.snapshot_every_s", "value": None}),
        ("yard/classes", " person, Fußgänger 🚶,", "set", ["person", "Fußgänger 🚶"]),
        ("yard/classes", " ", "set", None),
        ("yard/classes", 'a "}}" \\ {% b', "set", ['a "}}" \\ {% b']),
    ],
)
def test_what_is_chosen_is_a_request_of_ours(name: str, value: object, verb: str, payload: Any) -> None:
    request = sent(name, value)
    if name == "yard/classes":
        payload = {"setting": "cameras.yard.classes", "value": payload}
    assert (request.verb, request.payload) == (verb, payload)
    assert request.transaction is not None
    assert request.transaction.startswith("home-assistant-")
    assert request.at is not None
    if verb == "set":
        checked(payload["setting"], payload["value"], ALL)


@pytest.mark.parametrize(
    ("key", "setting", "values"),
    [
        ("confidence", "confidence", (0.0, 0.005, 1.0)),
        ("snapshot-interval", "snapshot_every_s", (None, 0.5, 3601.0, 86_400.0)),
    ],
)
def test_whatever_a_setting_may_be_is_within_the_bounds_of_its_number(
    key: str, setting: str, values: tuple[float | None, ...]
) -> None:
    """Home Assistant takes no value beyond them, and goes on showing the one before."""
    one = entity(f"yard/{key}")
    for value in values:
        assert checked(f"cameras.yard.{setting}", value, ALL) == value
        controls = replace(CameraControls(True, 0.4, None, None, (), (), ()), **{setting: value})
        shown = float(rendered(one["value_template"], encode(CameraStatus("gate-7", "yard", "off", settings=controls))))
        assert one["min"] <= shown <= one["max"]
        assert shown == (value or 0.0)


def test_an_install_is_the_one_word_that_the_daemon_takes() -> None:
    one, topics = entity("engine"), Topics("vajra", "gate-7")
    received = Received(one["command_topic"], one["payload_install"].encode())
    assert verb_of(received, topics) == "install"
    assert parse(received, "install", topics).verb == "install"


def test_controls_show_what_is_in_the_cameras_status() -> None:
    controls = CameraControls(False, 0.4, ("person", "car"), None, (), (), ("enabled",))
    told = encode(CameraStatus("gate-7", "yard", "off", settings=controls))
    shown = {"enabled": "false", "confidence": "0.4", "snapshot-interval": "0", "classes": "person, car"}
    for key, text in shown.items():
        one = entity(f"yard/{key}")
        assert one["state_topic"] == "vajra/gate-7/camera/yard/status"
        assert rendered(one["value_template"], told) == text
        assert len(one["availability"]) == 1, "a camera that is off can be turned on"


def test_more_classes_than_a_state_can_hold_are_counted_and_cannot_be_sent_back() -> None:
    many = tuple(f"class number {number}" for number in range(40))
    for names in (many[:17], many):
        told = encode(
            CameraStatus("gate-7", "yard", settings=CameraControls(True, 0.4, names, None, (), (), ()), state="off")
        )
        shown = rendered(entity("yard/classes")["value_template"], told)
        assert len(shown) <= MOST_SHOWN
        assert (shown == ", ".join(names)) == (len(", ".join(names)) <= MOST_SHOWN)
    assert shown == "(40 classes: too many to be shown here)"
    request = sent("yard/classes", shown)
    with pytest.raises(SettingsError, match="there is no class"):
        checked(request.payload["setting"], request.payload["value"], ALL, many)


def test_no_button_sends_what_would_have_to_be_signed() -> None:
    told = entities(discoveries(settings(commands=True, signed=True), {}))
    assert [one for one in told.values() if "command_topic" in one] == []
