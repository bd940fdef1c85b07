"""What Home Assistant makes of a camera's zones and lines: each of our messages through the template that reads it."""

from __future__ import annotations

from typing import Any, get_args

import jinja2
import orjson
import pytest
from home_assistant.test_catalogue import LINES, ZONES, entities, payload, rendered, settings

from vajra_edge.home_assistant.catalogue import discoveries
from vajra_edge.mqtt import messages
from vajra_edge.mqtt.place_messages import LineState, PlaceEvent, PlacesStatus, ZoneState, encode_event, encode_places
from vajra_edge.mqtt.schema import EventMessage

WATCHED = settings(zones=ZONES, lines=LINES)
OURS = "vajra-edge/gate-7/yard/"


def told() -> dict[str, dict[str, Any]]:
    return {name.removeprefix(OURS): one for name, one in entities(discoveries(WATCHED, {})).items() if OURS in name}


def places(*zones: ZoneState, lines: tuple[LineState, ...] = (), blind: str = "") -> bytes:
    now = messages._now()
    return encode_places(PlacesStatus("gate-7", "yard", blind, zones, lines, now, now, True))


def zone(present: bool | None, count: dict[str, int], entered: dict[str, int]) -> ZoneState:
    return ZoneState("door", present, count, entered)


def event(kind: str, *, replayed: bool = False, **fields: Any) -> bytes:
    made = PlaceEvent(messages._now(), True, kind, "door", 7, "person", **fields)
    content = orjson.loads(encode_event(made, "yard", "gate-7").numbered("0011aabb", 3))
    return orjson.dumps({**content, "replayed": replayed})


def shown(key: str, message: bytes) -> str:
    return rendered(told()[key]["value_template"], message)


def test_each_zone_and_line_appears_with_its_camera_and_goes_with_it() -> None:
    camera = discoveries(WATCHED, {})[1]
    keys = {key for key in camera.components if key.startswith(("zone-", "line-", "places"))}
    assert {key for key in keys if key.startswith("zone-door")} == {
        *("zone-door-occupied", "zone-door-objects", "zone-door-entered"),
    }
    assert len(keys) == 2 * 3 + 2 + 1
    without = discoveries(settings(), {camera.path: camera.components})[1]
    assert payload(without)["components"]["zone-door-occupied"] == {"platform": "binary_sensor"}
    assert payload(without)["components"]["places"] == {"platform": "event"}


def test_a_camera_without_places_has_no_event_of_any() -> None:
    assert not [name for name in entities(discoveries(settings(), {})) if name.endswith("/places")]


@pytest.mark.parametrize(
    ("present", "count", "occupied", "objects"),
    [
        (True, {"person": 2, "car": 1}, "ON", "3"),
        (False, {}, "OFF", "0"),
        (None, {}, "None", "None"),
    ],
)
def test_who_cannot_be_seen_is_unknown_and_never_absent(
    present: bool | None, count: dict[str, int], occupied: str, objects: str
) -> None:
    message = places(zone(present, count, {}), blind="" if present is not None else "frames")
    assert shown("zone-door-occupied", message) == occupied
    assert shown("zone-door-objects", message) == objects
    attributes = rendered(told()["zone-door-objects"]["json_attributes_template"], message)
    assert orjson.loads(attributes) == count


def test_totals_stay_while_nobody_sees() -> None:
    line = LineState("door", {"person": 5, "car": 2}, {})
    message = places(zone(None, {}, {"person": 4}), lines=(line,), blind="camera")
    assert (shown("zone-door-entered", message), shown("line-door-in", message)) == ("4", "7")
    assert shown("line-door-out", message) == "0"
    assert orjson.loads(rendered(told()["line-door-in"]["json_attributes_template"], message)) == line.crossed_in
    for key in ("zone-door-entered", "line-door-in", "places"):
        assert len(told()[key]["availability"]) == 1, "of the device alone"
    for key in ("zone-door-occupied", "zone-door-objects"):
        assert len(told()[key]["availability"]) == 2, "of the camera too"


def test_the_empty_message_that_takes_the_topic_away_is_unknown_and_no_mistake_of_a_template() -> None:
    """Home Assistant warns of each variable that a template misses."""
    strict = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701
    for key, one in told().items():
        if key.startswith(("zone-", "line-")):
            assert strict.from_string(one["value_template"]).render() == "None"


def test_a_message_of_earlier_settings_tells_nothing_of_a_place_that_it_does_not_know() -> None:
    message = places()
    names = [key for key in told() if key.startswith(("zone-", "line-"))]
    assert {shown(key, message) for key in names} == {"None"}
    for key in names:
        if template := told()[key].get("json_attributes_template"):
            assert orjson.loads(rendered(template, message)) == {}


def test_every_event_of_ours_has_its_type_there() -> None:
    assert set(told()["places"]["event_types"]) == set(get_args(EventMessage.model_fields["event"].annotation))


@pytest.mark.parametrize("kind", ["enter", "dwell", "leave", "cross"])
def test_what_happens_is_an_event_of_a_type_that_was_announced(kind: str) -> None:
    found = orjson.loads(shown("places", event(kind, dwell_s=2.5)))
    assert found["event_type"] in told()["places"]["event_types"]
    assert (found["event_type"], found["place"], found["class"], found["track_id"]) == (kind, "door", "person", 7)


def test_what_happened_while_the_broker_was_away_does_not_happen_when_it_is_back() -> None:
    assert shown("places", event("enter", replayed=True)).strip() == ""


def test_a_gap_record_is_no_event() -> None:
    gap = {"kind": "gap", "first_seq": 3, "last_seq": 9}
    assert shown("places", orjson.dumps(gap)).strip() == ""
