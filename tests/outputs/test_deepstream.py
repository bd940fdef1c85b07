"""DeepStream's minimal schema, held to what NVIDIA's converter writes and says."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import orjson
from outputs.frames import BEGAN_S, frame, person

from vajra_edge.outputs import deepstream
from vajra_edge.outputs.sighted import Sighted, Sighting, sighted
from vajra_edge.types import Detections, Frame

SAMPLE = {
    "version": "4.0",
    "id": "frame-id",
    "@timestamp": "2018-04-11T04:59:59.828Z",
    "sensorId": "sensor-id",
    "objects": ["957|1834|150|1918|215|Vehicle|#|sedan|Bugatti|M|blue|CA 444|California|0.8"],
}
"""github.com/NVIDIA/DeepStream, src/utils/nvmsgconv/deepstream_schema/eventmsg_payload.cpp at 581889df: the example in
the comment of its minimal message. An object without attributes has ``|#||||||`` there, line 1056."""


def told(*objects: Sighting) -> dict[str, object]:
    return orjson.loads(deepstream.encode(frame(1.25, *objects, seq=42)))


def test_a_message_has_the_fields_of_nvidias_example() -> None:
    message = told(person(957))
    assert list(message) == list(SAMPLE)
    assert {name: type(value) for name, value in message.items()} == {name: type(one) for name, one in SAMPLE.items()}
    assert (message["version"], message["id"], message["sensorId"]) == (SAMPLE["version"], "42", "gate")
    at = datetime.fromtimestamp(BEGAN_S + 1.25, timezone.utc)
    assert message["@timestamp"] == at.strftime("%Y-%m-%dT%H:%M:%S.250Z")
    assert len(str(message["@timestamp"])) == len(str(SAMPLE["@timestamp"]))


def test_an_object_has_as_many_parts_as_nvidias_example_and_no_attribute_that_nobody_saw() -> None:
    example, ours = SAMPLE["objects"][0].split("|"), told(person(957, 0.8))["objects"][0].split("|")
    assert len(ours) == len(example)
    assert ours[:6] == ["957", "100", "50", "150", "150", "person"]
    assert ours[6] == example[6] == "#"
    assert ours[7:13] == [""] * 6
    assert ours[13] == example[13]


def test_an_object_that_nobody_tracks_has_deepstreams_number_for_that() -> None:
    """``UNTRACKED_OBJECT_ID``, includes/nvdsmeta.h of the same repository."""
    for track in (None, 0):
        assert told(person(track))["objects"][0].startswith(f"{0xFFFFFFFFFFFFFFFF}|")


def test_a_frame_without_objects_says_so_and_a_bar_in_a_name_begins_no_field() -> None:
    assert told()["objects"] == []
    assert told(person(label="a|b"))["objects"][0].split("|")[5] == "a/b"


def test_a_box_with_a_number_that_is_not_finite_is_left_out() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    taken = Frame(image, 5_000_000_000, datetime.fromtimestamp(BEGAN_S, timezone.utc), 3, "gate")
    found = Detections(
        np.array([[0, 0, 4, 4], [np.nan, 0, 4, 4]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.array([1, 7], np.int32),
    )
    shown = sighted(Sighted.blank(taken), found, np.array([4, 5]), ("person", "car"), {4: ("door",)})
    assert [(one.track, one.label, one.zones) for one in shown.objects] == [(4, "car", ("door",))]
    assert (shown.now_s, shown.unix_s, shown.seq, shown.resolution_wh) == (5.0, BEGAN_S, 3, (8, 8))
    alone = sighted(Sighted.blank(taken), found.take(np.array([False, True])), None, ("person",), {})
    assert alone.objects == ()
