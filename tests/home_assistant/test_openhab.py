"""What openHAB makes of our messages: each becomes a channel, has a value, and can be commanded."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import openhab_binding as openhab
import orjson
import pytest

from vajra_edge.config.overrides import checked
from vajra_edge.config.settings import load
from vajra_edge.home_assistant.catalogue import discoveries
from vajra_edge.mqtt import messages
from vajra_edge.mqtt.commands import Requested, parse, verb_of
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.messages import (
    CameraControls,
    CameraStatus,
    EngineStatus,
    HistoryEntry,
    HistoryStatus,
    ObjectsStatus,
    ServiceStatus,
    encode,
)
from vajra_edge.mqtt.topics import Topics

NAMES = ("person", "traffic light", 'a "}}" \\ {% b', "Fußgänger 🚶")
SETTINGS = load(
    None,
    {
        "device_id": "gate-7",
        "weights": {"path": "x.onnx"},
        "mqtt": {"home_assistant": "components", "commands": True},
        "cameras": [
            {"id": "yard", "source": "x.mp4", "snapshot_every_s": 5.0, "classes": list(NAMES)},
            {"id": "front.door", "source": "y.mp4"},
        ],
    },
)
CONTROLS = CameraControls(False, 0.4, ("person",), None, (), (), ("enabled",))
LONG_AGO = datetime(2026, 1, 1, tzinfo=timezone.utc)


def history(at: datetime) -> bytes:
    entry = HistoryEntry(7, at, True, "rolled back", "aa", "it lies", "probation", None, {})
    return encode(HistoryStatus("gate-7", (entry,), at))


MESSAGES = {
    "status": [
        ServiceStatus("gate-7", "starting"),
        ServiceStatus("gate-7", "serving", engine="aa", wanted="bb", progress=0.4, reason="it builds"),
    ],
    "engine": [EngineStatus("gate-7"), EngineStatus("gate-7", precision="fp16", latency_ms=3.25)],
    "camera/yard/status": [
        CameraStatus("gate-7", "yard", "opening", settings=CONTROLS),
        CameraStatus("gate-7", "yard", "streaming", fps=24.5, settings=CONTROLS),
    ],
    "camera/yard/objects": [ObjectsStatus("gate-7", "yard"), ObjectsStatus("gate-7", "yard", 3, {"person": 3})],
}
"""What comes on the topics, little known and much."""


def said_on(topic: str) -> list[bytes]:
    path = topic.removeprefix("vajra/gate-7/").replace("front.door", "yard")
    return [history(LONG_AGO)] if path == "history" else [encode(one) for one in MESSAGES[path]]


TOLD = {one.path: orjson.loads(one.payload) for one in discoveries(SETTINGS, {})}


def component(path: str) -> str:
    return path.split("/")[1]


def of_the_yard(key: str) -> dict[str, Any]:
    return next(told for told in TOLD.values() if told["unique_id"] == f"vajra-edge/gate-7/{key}")


def values(told: dict[str, Any], template: str = "value_template", topic: str = "state_topic") -> list[str]:
    """Of an entity, for each message of its topic."""
    return [
        openhab.rendered(told[template], value=said.decode(), value_json=orjson.loads(said))
        for said in said_on(told[topic])
    ]


def test_what_openhab_refuses_is_there_once_more_as_what_it_takes():
    refused = {path for path in TOLD if component(path) not in openhab.COMPONENTS}
    assert {component(path) for path in refused} == {"image"}, "another that is refused needs another way"
    pictures = {told["topic"]: told for path, told in TOLD.items() if component(path) == "camera"}
    assert pictures.keys() == {TOLD[path]["image_topic"] for path in refused}
    assert not any(told["enabled_by_default"] for told in pictures.values()), "Home Assistant has the image"


def test_home_assistants_own_form_has_no_picture_twice():
    mqtt = SETTINGS.mqtt.model_copy(update={"home_assistant": "device"})
    told = [orjson.loads(one.payload) for one in discoveries(SETTINGS.model_copy(update={"mqtt": mqtt}), {})]
    assert not [one for each in told for one in each["components"].values() if one["platform"] == "camera"]


def test_each_component_is_a_channel_of_its_own():
    channels: set[tuple[str, str]] = set()
    for path, told in TOLD.items():
        prefix, _, node, last, config = path.split("/")
        assert (prefix, config) == ("homeassistant", "config"), "it looks nowhere else"
        assert re.fullmatch("[A-Za-z0-9_-]+", node)
        assert re.fullmatch("[A-Za-z0-9_-]+", last)
        channels.add((told["device"]["identifiers"][0], last.replace("-", "_")))
        assert told["name"].strip()
        assert told["unique_id"].strip()
    assert len(channels) == len(TOLD)


def test_the_device_and_the_sender_hold_nothing_that_costs_the_whole_message():
    for told in TOLD.values():
        assert told["device"].keys() <= openhab.DEVICE
        assert told["device"]["identifiers"]
        assert told["origin"].keys() <= openhab.ORIGIN


def test_all_components_of_a_device_say_the_same_of_a_topic_that_tells_who_is_there():
    """The first template of a topic counts for all of them, and the last mode."""
    templates: dict[tuple[str, str], set[str]] = {}
    for told in TOLD.values():
        assert told["availability_mode"] == "all"
        for one in told["availability"]:
            templates.setdefault((*told["device"]["identifiers"], one["topic"]), set()).add(one["value_template"])
            heard = {openhab.rendered(one["value_template"], value_json=orjson.loads(x)) for x in said_on(one["topic"])}
            assert heard <= {"online", "offline"}
    assert all(len(known) == 1 for known in templates.values())


@pytest.mark.parametrize("path", [path for path, told in TOLD.items() if "json_attributes_template" in told])
def test_attributes_are_json_whatever_is_known(path: str):
    for text in values(TOLD[path], "json_attributes_template", "json_attributes_topic"):
        assert isinstance(orjson.loads(text), dict)


@pytest.mark.parametrize("path", [path for path in TOLD if component(path) in ("sensor", "number")])
def test_a_number_is_one_or_unknown(path: str):
    told = TOLD[path]
    is_number = component(path) == "number" or "unit_of_measurement" in told or "state_class" in told
    for text in values(told):
        assert text == openhab.UNKNOWN or not is_number or float(text) >= 0.0
        assert text


@pytest.mark.parametrize("path", [path for path in TOLD if component(path) in ("binary_sensor", "switch")])
def test_on_and_off_are_said_in_the_words_that_were_told(path: str):
    told = TOLD[path]
    assert set(values(told)) <= {told.get("payload_on", "ON"), told.get("payload_off", "OFF")}


def test_a_text_and_an_update_have_a_value_whatever_is_known():
    assert values(of_the_yard("yard/classes")) == ["person", "person"]
    known = [orjson.loads(text) for text in values(of_the_yard("engine"))]
    assert [one.get("installed_version") for one in known] == [None, "aa"]


def happened(at: datetime) -> str:
    told = of_the_yard("history")
    return openhab.rendered(told["value_template"], value_json=orjson.loads(history(at)))


def test_an_event_happens_that_is_new_and_not_again_what_the_broker_kept():
    assert happened(LONG_AGO) == ""
    assert happened(datetime.now(timezone.utc) - timedelta(hours=1)) == ""
    assert orjson.loads(happened(datetime.now(timezone.utc)))["event_type"] in of_the_yard("history")["event_types"]


def sent(key: str, value: str) -> Requested:
    """What the daemon hears where a channel is commanded; openHAB's templates get text, with the unit of a number."""
    told, topics = of_the_yard(key), Topics("vajra", "gate-7")
    received = Received(told["command_topic"], openhab.rendered(told["command_template"], value=value).encode())
    verb = verb_of(received, topics)
    assert verb is not None
    return parse(received, verb, topics)


@pytest.mark.parametrize(
    ("key", "value", "verb", "payload"),
    [
        ("rebuild", "PRESS", "rebuild", {"force": True, "wait": False}),
        ("rollback", "PRESS", "rollback", {"wait": False}),
        ("yard/take-snapshot", "PRESS", "snapshot", {"camera": "yard"}),
        ("yard/reset", "PRESS", "unset", {"setting": "cameras.yard"}),
        ("yard/enabled", "false", "set", {"setting": "cameras.yard.enabled", "value": False}),
        ("yard/confidence", "0.55", "set", {"setting": "cameras.yard.confidence", "value": 0.55}),
        ("yard/snapshot-interval", "30 s", "set", {"setting": "cameras.yard.snapshot_every_s", "value": 30}),
        ("yard/snapshot-interval", "2.5 s", "set", {"setting": "cameras.yard.snapshot_every_s", "value": 2.5}),
        ("yard/snapshot-interval", "0 s", "set", {"setting": "cameras.yard.snapshot_every_s", "value": None}),
        ("yard/snapshot-interval", "0", "set", {"setting": "cameras.yard.snapshot_every_s", "value": None}),
        ("yard/classes", "person, car", "set", {"setting": "cameras.yard.classes", "value": ["person", "car"]}),
    ],
)
def test_what_is_commanded_is_a_request_of_now(key: str, value: str, verb: str, payload: dict[str, Any]):
    before = messages._now()
    request = sent(key, value)
    assert (request.verb, request.payload) == (verb, payload)
    assert request.transaction
    assert request.at is not None
    assert before - timedelta(seconds=1) <= request.at <= messages._now() + timedelta(seconds=1)
    if verb == "set":
        checked(payload["setting"], payload["value"], SETTINGS)


def test_commands_of_one_millisecond_are_not_taken_for_one():
    template = of_the_yard("yard/enabled")["command_template"]
    now = messages._now()
    told = {openhab.rendered(template, value="false", utcnow=lambda: now) for _ in range(9)}
    assert len(told) > 1


def test_nothing_is_commanded_with_retain():
    assert not any(told.get("retain") for told in TOLD.values())
