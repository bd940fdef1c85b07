"""What the daemon leaves at the broker for Home Assistant, and that it takes it back, over restarts too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from station import Ears, Station
from waiting import wait_for

from vajra_edge.config.settings import MqttSettings, Settings, load
from vajra_edge.daemon.home_assistant import HomeAssistant
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.mqtt.topics import Topic
from vajra_edge.types import Detections

YARD, GATE = {"id": "yard", "source": "y.mp4"}, {"id": "gate", "source": "x.mp4"}
NAMES = ("person", "car")


def settings(*cameras: dict[str, Any], form: str = "device", **mqtt: Any) -> Settings:
    asked = {"home_assistant": form, **mqtt}
    return load(None, {"device_id": "dev", "weights": {"path": "x"}, "mqtt": asked, "cameras": list(cameras)})


class Broker:
    """What a broker would have been given, and what it did not say it has."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.unheard: set[str] = set()
        self.away = False

    def state(self, topic: Topic, payload: bytes) -> None:
        assert topic.is_path
        assert topic.retain
        self.sent.append(topic.name)
        if self.away:
            self.unheard.add(topic.name)
        elif payload:
            self.retained[topic.name] = payload
        else:
            self.retained.pop(topic.name, None)

    def holds(self, topic: Topic) -> bool:
        return topic.name in self.retained or topic.name in self.unheard


class House:
    """One daemon after the other on one state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.broker = folder, Broker()
        self.part: HomeAssistant

    def start(self, settings: Settings) -> HomeAssistant:
        self.part = HomeAssistant(self.broker, self.folder, lambda _, task: task())  # type: ignore[arg-type]
        self.part.open(settings)
        return self.part

    def tell(self, state: str = "streaming", phase: str = "serving", camera: str = "gate") -> None:
        self.part.tell(SimpleNamespace(phase=phase, cameras=(SimpleNamespace(id=camera, state=state),)))  # type: ignore[arg-type]

    @property
    def devices(self) -> set[str]:
        return {name for name in self.broker.retained if name.startswith("homeassistant/")}

    def objects(self, camera: str = "gate") -> Any:
        told = orjson.loads(self.broker.retained[f"vajra/dev/camera/{camera}/objects"])
        return told["total"], told["counts"]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


DEVICE, AT_GATE, AT_YARD = (f"homeassistant/device/vajra-edge-dev{camera}/config" for camera in ("", "/gate", "/yard"))


def test_a_camera_that_is_removed_goes(house: House) -> None:
    part = house.start(settings(GATE, YARD))
    assert house.devices == {DEVICE, AT_GATE, AT_YARD}
    house.tell(camera="yard")
    part.apply(settings(GATE))
    assert house.devices == {DEVICE, AT_GATE}
    assert "vajra/dev/camera/yard/objects" not in house.broker.retained


def test_who_reads_a_state_goes_before_it(house: House) -> None:
    house.start(settings(GATE, YARD, root="alpha"))
    house.tell()
    house.broker.sent.clear()
    house.part.apply(settings(YARD, root="alpha"))
    assert house.broker.sent[:2] == [AT_GATE, "alpha/dev/camera/gate/objects"]


def test_what_did_not_change_is_not_said_again(house: House) -> None:
    part = house.start(settings(GATE))
    before = len(house.broker.sent)
    part.apply(settings(GATE))
    assert len(house.broker.sent) == before
    part.apply(settings({**GATE, "snapshot_every_s": 5.0}))
    assert house.broker.sent[before:] == [AT_GATE]


@pytest.mark.parametrize(
    "then",
    [settings(GATE, form="off"), settings(GATE, form="components"), settings(GATE, discovery_prefix="ha")],
    ids=["off", "components", "prefix"],
)
@pytest.mark.parametrize("restarted", [False, True], ids=["in place", "while it was down"])
def test_what_is_asked_for_no_more_goes(house: House, then: Settings, restarted: bool) -> None:
    part = house.start(settings(GATE))
    if restarted:
        part = house.start(then)
    else:
        part.apply(then)
    assert {DEVICE, AT_GATE} & house.broker.retained.keys() == set()
    assert bool(house.broker.retained) is (then.mqtt.home_assistant != "off")


def test_another_device_id_takes_the_old_device_away(house: House) -> None:
    house.start(settings(GATE))
    house.start(settings(GATE).model_copy(update={"device_id": "other"}))
    assert {name for name in house.devices if "vajra-edge-dev" in name} == set()


def test_a_camera_that_was_removed_while_the_broker_was_away_goes_once_it_is_back(house: House) -> None:
    part = house.start(settings(GATE, YARD))
    house.broker.away = True
    part.apply(settings(GATE))
    house.tell()
    house.broker.away = False
    house.start(settings(GATE))
    assert house.devices == {DEVICE, AT_GATE}


def test_what_the_broker_was_rid_of_is_not_taken_back_again(house: House) -> None:
    """Another device may have the name by then."""
    house.start(settings(GATE, YARD)).apply(settings(GATE))
    house.tell()
    house.broker.retained[AT_YARD] = b"another's"
    house.start(settings(GATE))
    assert house.broker.retained[AT_YARD] == b"another's"


def test_a_camera_that_comes_back_is_there(house: House) -> None:
    part = house.start(settings(GATE, YARD))
    house.broker.away = True
    part.apply(settings(GATE))
    house.broker.away = False
    part.apply(settings(GATE, YARD))
    house.tell()
    part.apply(settings(GATE))
    part.apply(settings(GATE, YARD))
    assert house.devices == {DEVICE, AT_GATE, AT_YARD}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 3}', bytes(64), b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_as_none(house: House, content: bytes) -> None:
    (house.folder / "home_assistant.json").write_bytes(content)
    house.start(settings(GATE))
    assert house.devices == {DEVICE, AT_GATE}


def test_an_entity_that_went_while_the_daemon_was_down_is_named_with_its_platform_alone(house: House) -> None:
    house.start(settings({**GATE, "classes": ["car"]}))
    house.start(settings(GATE))
    assert orjson.loads(house.broker.retained[AT_GATE])["components"]["class-car"] == {"platform": "sensor"}


def found(*class_ids: int) -> Detections:
    count = len(class_ids)
    return Detections(np.zeros((count, 4), np.float32), np.ones(count, np.float32), np.array(class_ids, np.int32))


def test_objects_are_counted_by_class_and_said_when_they_change(house: House) -> None:
    part = house.start(settings(GATE))
    house.tell()
    assert house.objects() == (None, None), "no frame was inferred yet"
    part.see("gate", found(0, 1, 0, 7), NAMES)
    house.tell()
    assert house.objects() == (4, {"person": 2, "car": 1, "7": 1})
    before = len(house.broker.sent)
    part.see("gate", found(1, 0, 7, 0), NAMES)
    house.tell()
    assert len(house.broker.sent) == before
    part.see("gate", found(), NAMES)
    house.tell()
    assert house.objects() == (0, {})


@pytest.mark.parametrize(("state", "phase"), [("lost", "serving"), ("opening", "serving"), ("streaming", "blocked")])
def test_a_count_that_is_no_longer_known_is_null_until_the_next_frame(house: House, state: str, phase: str) -> None:
    part = house.start(settings(GATE))
    part.see("gate", found(0), NAMES)
    house.tell()
    house.tell(state, phase)
    assert house.objects() == (None, None)
    house.tell()
    assert house.objects() == (None, None), "the frame of before is not what the camera sees now"


def test_nothing_is_counted_where_nobody_asked(house: House) -> None:
    part = house.start(settings(GATE, form="off"))
    part.see("gate", found(0), NAMES)
    house.tell()
    assert house.broker.sent == []


@pytest.fixture
def at_broker(broker: int) -> Callable[[str], dict[str, Any]]:
    """What a subscriber that comes later gets."""

    def read(path: str) -> dict[str, Any]:
        got: dict[str, Any] = {}
        with Subscription(MqttSettings(host="127.0.0.1", port=broker), [path, "vajra/test/status"]) as late:

            def heard() -> bool:
                for item in late.poll(0.05):
                    got[item.path] = json.loads(item.payload) if item.payload else None
                return "vajra/test/status" in got

            wait_for(heard)
            for item in late.poll(0.2):
                got[item.path] = json.loads(item.payload) if item.payload else None
        return {name: told for name, told in got.items() if told and name != "vajra/test/status"}

    return read


def test_no_entity_is_left_with_an_empty_state_of_places_that_went(rebooted: Station) -> None:
    """Home Assistant would log an error for each template that reads it."""
    rebooted.sweep()
    rebooted.camera("gate", zones=[{"name": "door", "corners": [[0, 0], [1, 0], [1, 1]]}])
    rebooted.write(mqtt={"home_assistant": "device", "root": "vajra/test", "discovery_prefix": "vajra/test/ha"})
    ears = rebooted.listen()
    rebooted.start()
    ears.ever(lambda path, told: path == "test/camera/gate/places" and told)
    read = "ha/device/vajra-edge-test/gate/config"
    ears.ever(lambda path, told: path == read and told)
    rebooted.camera("gate", zones=[])
    rebooted.write()
    ears.ever(lambda path, told: path == "test/camera/gate/places" and told is None)
    order = [path for path, told, _ in ears.heard if path == read or (path == "test/camera/gate/places" and not told)]
    assert order.count(read) == 2
    assert order.index("test/camera/gate/places") == 2
    ears.close()
    rebooted.stop()
    rebooted.sweep()


def test_a_daemon_says_what_it_has_counts_what_it_sees_and_takes_all_of_it_back(
    rebooted: Station, at_broker: Callable[[str], dict[str, Any]]
) -> None:
    rebooted.camera("yard")
    rebooted.write(mqtt={"home_assistant": "device", "discovery_prefix": "ha-of-this-test"})
    ears: Ears = rebooted.listen("camera/+/objects")
    rebooted.start()
    known = ears.ever(lambda path, told: path == "camera/gate/objects" and told and told["total"] is not None)
    assert known["total"] == sum(known["counts"].values())
    base = "ha-of-this-test/device/vajra-edge-test"
    wait_for(lambda: at_broker("ha-of-this-test/#").keys() == {f"{base}{one}/config" for one in ("", "/gate", "/yard")})
    del rebooted.settings["cameras"]["yard"]
    rebooted.write()
    wait_for(lambda: at_broker("ha-of-this-test/#").keys() == {f"{base}{one}/config" for one in ("", "/gate")})
    wait_for(lambda: at_broker("vajra/test/camera/+/objects").keys() == {"vajra/test/camera/gate/objects"})
    rebooted.stop()
    assert at_broker("vajra/test/camera/gate/objects")["vajra/test/camera/gate/objects"]["total"] is None
    rebooted.write(mqtt={"home_assistant": "off"})
    rebooted.start()
    wait_for(lambda: at_broker("ha-of-this-test/#") == {})
    wait_for(lambda: at_broker("vajra/test/camera/+/objects") == {})
    ears.close()
