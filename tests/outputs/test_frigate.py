"""Frigate's topics, held to its documentation and to its habits."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from outputs.frames import BEGAN_S, frame, person

from vajra_edge.outputs.frigate import Frigate, Labels
from vajra_edge.outputs.sighted import Message, Sighting

SAMPLE: dict[str, Any] = {
    "id": "1607123955.475377-mxklsc",
    "camera": "front_door",
    "frame_time": 1607123962.082975,
    "snapshot": {
        "frame_time": 1607123965.975463,
        "box": [415, 489, 528, 700],
        "area": 12728,
        "region": [260, 446, 660, 846],
        "score": 0.77546,
        "attributes": [],
    },
    "label": "person",
    "sub_label": ["John Smith", 0.79],
    "top_score": 0.958984375,
    "false_positive": False,
    "start_time": 1607123955.475377,
    "end_time": None,
    "score": 0.87890625,
    "box": [432, 496, 544, 854],
    "area": 40096,
    "ratio": 1.251397,
    "region": [218, 440, 693, 915],
    "current_zones": ["yard", "driveway"],
    "entered_zones": ["yard", "driveway"],
    "thumbnail": None,
    "has_snapshot": False,
    "has_clip": False,
    "active": True,
    "stationary": False,
    "motionless_count": 0,
    "position_changes": 2,
    "attributes": {"face": 0.86},
    "current_attributes": [{"label": "face", "box": [442, 506, 534, 524], "score": 0.86}],
    "current_estimated_speed": 0.77,
    "average_estimated_speed": 14.31,
    "velocity_angle": 180,
    "recognized_license_plate": "ABC12345",
    "recognized_license_plate_score": 0.933451,
}
"""``after`` of the example of frigate/events, docs.frigate.video/integrations/mqtt (docs/docs/integrations/mqtt.md of
github.com/blakeblackshear/frigate at e3fa7018)."""

UNKNOWN_HERE = {
    "sub_label",
    "active",
    "stationary",
    "motionless_count",
    "position_changes",
    "current_estimated_speed",
    "average_estimated_speed",
    "velocity_angle",
    "recognized_license_plate",
    "recognized_license_plate_score",
    "thumbnail",
}
"""What nothing on the device measures."""


def kind(value: object) -> str:
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


@pytest.fixture
def frigate() -> Frigate:
    made = Frigate("frigate", "dev")
    made.cameras({"gate": ["door"], "yard": ["door"]})
    return made


def events(messages: list[Message]) -> list[dict[str, Any]]:
    return [orjson.loads(one.payload) for one in messages if one.path == "frigate/events"]


def counts(messages: list[Message]) -> dict[str, int]:
    return {one.path.removeprefix("frigate/"): int(one.payload) for one in messages if one.path.count("/") == 2}


def test_an_event_has_the_fields_of_the_documentation_and_their_kinds(frigate: Frigate) -> None:
    (event,) = events(frigate.see(frame(0, person(zones=("door",)))))
    assert list(event) == ["type", "before", "after"]
    for view in (event["before"], event["after"]):
        assert list(view) == list(SAMPLE)
        assert {name for name, value in view.items() if value is None} - {"end_time", "snapshot"} == UNKNOWN_HERE
        for name in view.keys() - UNKNOWN_HERE - {"end_time"}:
            assert view[name] is None or kind(view[name]) == kind(SAMPLE[name]), name
    assert list(event["after"]["snapshot"]) == list(SAMPLE["snapshot"])


def test_an_area_is_reckoned_as_in_the_documentation() -> None:
    left, top, right, bottom = SAMPLE["box"]
    one = Sighting(1, "person", 0.9, (left, top, right, bottom))
    made = Frigate("frigate", "dev")
    made.cameras({"gate": []})
    (event,) = events(made.see(frame(0, one)))
    assert event["after"]["area"] == SAMPLE["area"]
    assert event["after"]["box"] == SAMPLE["box"]
    assert event["after"]["region"] == [0, 0, 640, 480]


def test_an_object_is_new_then_told_of_again_and_ends_under_one_id(frigate: Frigate) -> None:
    (new,) = events(frigate.see(frame(0, person(score=0.7))))
    assert (new["type"], new["before"]["false_positive"], new["after"]["false_positive"]) == ("new", True, False)
    (update,) = events(frigate.see(frame(0.2, person(score=0.7, zones=("door",)))))
    assert (update["type"], update["before"], update["after"]["current_zones"]) == ("update", new["after"], ["door"])
    assert events(frigate.see(frame(1.0))) == []
    (end,) = events(frigate.see(frame(2.0)))
    assert (end["type"], end["before"]) == ("end", update["after"])
    assert (end["after"]["start_time"], end["after"]["end_time"]) == (BEGAN_S, BEGAN_S + 0.2)
    assert {one["after"]["id"] for one in (new, update, end)} == {new["before"]["id"]}
    assert new["after"]["id"].startswith(f"{BEGAN_S:.6f}-")


def test_objects_of_one_moment_have_ids_of_their_own(frigate: Frigate) -> None:
    told = [
        *events(frigate.see(frame(0, person(1), person(2, left=300.0)))),
        *events(frigate.see(frame(0, person(1), camera="yard"))),
    ]
    assert len({one["after"]["id"] for one in told}) == 3


def test_who_is_not_sure_yet_is_nobody(frigate: Frigate) -> None:
    assert events(frigate.see(frame(0, person(0)))) == []
    assert counts(frigate.see(frame(0.1, person(0)))) == {}


def test_a_better_picture_is_told_every_five_seconds_and_anything_every_minute(frigate: Frigate) -> None:
    frigate.see(frame(0, person(score=0.7)))
    assert events(frigate.see(frame(1, person(score=0.9)))) == []
    (update,) = events(frigate.see(frame(6, person(score=0.8))))
    assert update["after"]["snapshot"]["frame_time"] == BEGAN_S + 1
    assert update["after"]["snapshot"]["score"] == pytest.approx(0.9)
    for at_s in range(7, 66):
        assert events(frigate.see(frame(at_s, person(score=0.8)))) == []
    assert [one["type"] for one in events(frigate.see(frame(66, person(score=0.8))))] == ["update"]


def test_the_top_score_is_the_highest_median_and_a_frame_without_the_object_counts(frigate: Frigate) -> None:
    for number, score in enumerate((0.6, 0.9, 0.8)):
        frigate.see(frame(number / 10, person(score=score)))
    frigate.see(frame(0.4))
    (update,) = events(frigate.see(frame(0.5, person(score=0.7, zones=("door",)))))
    assert update["after"]["top_score"] == pytest.approx(0.8)
    assert update["after"]["score"] == pytest.approx(0.7)


def test_a_label_stays_when_the_class_is_another_for_a_while(frigate: Frigate) -> None:
    frigate.see(frame(0, person(label="car")))
    messages = frigate.see(frame(0.1, person(label="truck", zones=("door",))))
    assert events(messages)[0]["after"]["label"] == "car"
    assert counts(messages) == {}


def test_counts_are_said_when_they_change_and_go_to_zero(frigate: Frigate) -> None:
    assert counts(frigate.see(frame(0))) == {"gate/all": 0}
    assert counts(frigate.see(frame(1, person(1), person(2, left=300.0)))) == {"gate/person": 2, "gate/all": 2}
    assert counts(frigate.see(frame(1.1, person(1), person(2, left=300.0)))) == {}
    assert counts(frigate.see(frame(3, person(1)))) == {"gate/person": 1, "gate/all": 1}
    assert counts(frigate.see(frame(6))) == {"gate/person": 0, "gate/all": 0}


def test_a_process_says_zero_of_whom_the_one_before_it_said_a_number() -> None:
    """Whoever heard it shows it until another one comes: blakeblackshear/frigate-hass-integration issue 738."""
    before = Frigate("frigate", "dev")
    before.cameras({"gate": ["door"], "shed": []})
    before.see(frame(0, person(zones=("door",))))
    before.see(frame(0, person(label="cat"), camera="shed"))
    assert before.labels == Labels({"gate": ("person",), "shed": ("cat",)}, {"door": ("person",)})
    after = Frigate("frigate", "dev", before.labels)
    after.cameras({"gate": ["door"]})
    assert after.labels == Labels({"gate": ("person",)}, {"door": ("person",)})
    assert counts(after.present()) == {}, "nobody knows yet"
    assert counts(after.see(frame(9))) == {"gate/person": 0, "gate/all": 0, "door/person": 0, "door/all": 0}


def test_a_zone_of_two_cameras_has_one_count_and_none_while_one_of_them_sees_nothing(frigate: Frigate) -> None:
    assert "door/person" not in counts(frigate.see(frame(0, person(zones=("door",)))))
    both = counts(frigate.see(frame(0, person(zones=("door",)), camera="yard")))
    assert (both["door/person"], both["door/all"]) == (2, 2)
    frigate.blind("yard")
    assert not [path for path in counts(frigate.see(frame(0.1))) if path.startswith("door/")]
    again = counts(frigate.see(frame(0.2, camera="yard")))
    assert (again["door/person"], again["door/all"]) == (1, 1)


def test_a_lost_camera_ends_its_objects_and_says_no_zero(frigate: Frigate) -> None:
    frigate.see(frame(0, person()))
    assert [(one.path, one.payload) for one in frigate.state("gate", "lost")] == [
        ("frigate/gate/status/detect", b"offline")
    ]
    messages = frigate.blind("gate")
    assert [one["type"] for one in events(messages)] == ["end"]
    assert counts(messages) == {}
    assert counts(frigate.present()) == {}
    assert frigate.blind("gate") == []
    assert counts(frigate.see(frame(9)))["gate/all"] == 0


@pytest.mark.parametrize(
    ("state", "word"), [("streaming", b"online"), ("off", b"disabled"), ("opening", b"offline"), ("ended", b"offline")]
)
def test_a_cameras_state_is_said_in_frigates_words(frigate: Frigate, state: str, word: bytes) -> None:
    assert [one.payload for one in frigate.state("gate", state)] == [word]
    assert frigate.state("gate", state) == []


def test_a_connection_that_comes_up_says_what_is_known_and_that_alone(frigate: Frigate) -> None:
    frigate.state("gate", "streaming")
    frigate.see(frame(0, person()))
    frigate.stats({"cameras": {}})
    told = {one.path: one for one in frigate.present()}
    assert told["frigate/gate/person"].payload == b"1"
    assert told["frigate/gate/status/detect"].payload == b"online"
    assert told["frigate/stats"].payload == b'{"cameras":{}}'
    assert told["frigate/available"] == Message("frigate/available", b"online", qos=1, retain=True)
    assert [path for path, one in told.items() if one.retain] == ["frigate/available"]
    assert frigate.will == ("frigate/available", b"offline")


def test_a_picture_is_kept_for_each_label_in_it_and_for_no_other_frame(frigate: Frigate) -> None:
    frigate.see(frame(0, person(1), person(2, left=300.0, label="traffic light"), seq=5))
    frigate.see(frame(0.1, seq=6))
    pictures = frigate.picture("gate", 5, b"jpeg")
    assert pictures == [
        Message("frigate/gate/person/snapshot", b"jpeg", retain=True),
        Message("frigate/gate/traffic light/snapshot", b"jpeg", retain=True),
    ]
    assert frigate.picture("gate", 6, b"jpeg") == []
    assert frigate.picture("gate", 99, b"jpeg") == []
    assert frigate.picture("nobody", 5, b"jpeg") == []


def test_a_camera_that_is_removed_takes_its_objects_and_pictures_along(frigate: Frigate) -> None:
    frigate.see(frame(0, person(), seq=5))
    frigate.picture("gate", 5, b"jpeg")
    gone = frigate.cameras({"yard": []})
    assert [one["type"] for one in events(gone)] == ["end"]
    assert Message("frigate/gate/person/snapshot", b"", retain=True) in gone
    assert frigate.see(frame(1, person())) == []


def test_a_stop_keeps_pictures_and_an_output_that_is_turned_off_takes_them_back(frigate: Frigate) -> None:
    frigate.see(frame(0, person(), seq=5))
    frigate.picture("gate", 5, b"jpeg")
    stopped = frigate.stop(for_good=False)
    assert [one["type"] for one in events(stopped)] == ["end"]
    assert stopped[-1] == Message("frigate/available", b"stopped", qos=1, retain=True)
    assert len(stopped) == 2
    assert Message("frigate/gate/person/snapshot", b"", retain=True) in frigate.stop(for_good=True)


def test_a_class_whose_name_no_topic_can_hold_is_one_level_of_it(frigate: Frigate) -> None:
    told = counts(frigate.see(frame(0, person(label="a/b+#"))))
    assert told["gate/a_b__"] == 1
