from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import orjson
import pytest
from pydantic import ValidationError

from vajra_edge.mqtt.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.mqtt.messages import (
    CameraStatus,
    EngineStatus,
    EngineTag,
    Number,
    Response,
    ServiceStatus,
    encode,
    encode_detections,
    encode_gap,
    mark_replayed,
)
from vajra_edge.mqtt.schema import (
    CameraMessage,
    DetectionMessage,
    EngineMessage,
    GapMessage,
    ResponseMessage,
    ServiceMessage,
)
from vajra_edge.plans.report import GateFigures
from vajra_edge.types import Detections, Frame

NAMES = ("person", 'a "replayed":false shop')
TAG = EngineTag("0123456789abcdef" * 4, "fp16", "gpu:0", NAMES)
GATE = GateFigures(True, True, "agrees", "gate", 8, 300, 0.97, None, None, None, 4.9, None, None, None, "")
INT8 = Int8Figures(0.91, 71, 4, 0.008, 0.006, "measured", "minmax", 448, "the device's cameras", "ONNX Runtime")
DLA = DlaFigures(0.83, 2, 40, 52, {"beyond the region": 3}, 1)
NUMBER = Number("dev", "e1", "gate", 7)


def frame(width: int = 200, height: int = 100) -> Frame:
    taken_at = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
    return Frame(np.zeros((height, width, 3), np.uint8), 1_000_000_000, taken_at, 42, "gate", clock_synchronised=True)


def some(count: int) -> Detections:
    dice = np.random.default_rng(count)
    return Detections(
        dice.uniform(0, 100, (count, 4)).astype(np.float32),
        dice.uniform(0, 1, count).astype(np.float32),
        dice.integers(0, 2, count).astype(np.int32),
    )


def message(detections: Detections, tag: EngineTag = TAG) -> bytes:
    return encode_detections(frame(), detections, tag, "dev", 1_012_345_678).numbered("e1", 7)


@pytest.mark.parametrize("count", [0, 1, 100, 300])
def test_real_bytes_match_the_schema(count: int) -> None:
    parsed = DetectionMessage.model_validate_json(message(some(count)))
    assert len(parsed.detections) == count


def test_the_schema_refuses_a_field_too_many_and_one_too_few() -> None:
    payload = orjson.loads(message(some(1)))
    with pytest.raises(ValidationError, match="mood"):
        DetectionMessage.model_validate({**payload, "mood": "good"})
    del payload["frame_age_ms"]
    with pytest.raises(ValidationError, match="frame_age_ms"):
        DetectionMessage.model_validate(payload)


def test_every_field_carries_its_value() -> None:
    one = Detections(
        np.array([[10.123, 20.0, 110.456, 99.999]], np.float32), np.array([0.87654], np.float32), np.zeros(1, np.int32)
    )
    assert orjson.loads(message(one)) == {
        "schema": 2,
        "device": "dev",
        "camera": "gate",
        "epoch": "e1",
        "seq": 7,
        "key": "dev/e1/gate/7",
        "replayed": False,
        "taken_at": "2026-01-02T03:04:05.678901Z",
        "clock_synchronised": True,
        "frame_age_ms": 12.3,
        "frame_seq": 42,
        "resolution_wh": [200, 100],
        "engine": {"fingerprint": "0123456789ab", "precision": "fp16", "target": "gpu:0"},
        "detections": [
            {
                "class_id": 0,
                "class": "person",
                "confidence": 0.8765,
                "xyxy": [10.12, 20.0, 110.46, 100.0],
                "xyxyn": [0.05062, 0.2, 0.55228, 0.99999],
            }
        ],
    }


def test_a_row_that_is_not_finite_is_left_out_and_the_others_stay() -> None:
    rows = some(4)
    rows.xyxy[1, 2] = np.nan
    rows.confidence[2] = np.inf
    parsed = DetectionMessage.model_validate_json(message(rows))
    assert [row.confidence for row in parsed.detections] == pytest.approx(rows.confidence[[0, 3]], abs=1e-4)


def test_tracks_are_told_where_a_camera_tracks_and_no_word_of_them_where_it_does_not() -> None:
    rows = some(4)
    rows.xyxy[1, 2] = np.nan
    draft = encode_detections(frame(), rows, TAG, "dev", 1_012_345_678, np.array([7, 8, 0, 9]))
    payload = draft.numbered("e1", 7)
    assert [row["track_id"] for row in orjson.loads(payload)["detections"]] == [7, None, 9]
    assert [row.track_id for row in DetectionMessage.model_validate_json(payload).detections] == [7, None, 9]
    assert b"track_id" not in message(rows)


def test_ratios_stay_within_the_image() -> None:
    outside = Detections(np.array([[-5, -5, 500, 500]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    assert DetectionMessage.model_validate_json(message(outside)).detections[0].xyxyn == (0, 0, 1, 1)


def test_a_class_without_a_name_is_named_by_its_number() -> None:
    one = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.full(1, 9, np.int32))
    assert DetectionMessage.model_validate_json(message(one)).detections[0].class_name == "9"


def test_replayed_is_marked_in_its_place_even_if_a_class_name_looks_like_it() -> None:
    one = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    live = message(one)
    replayed = DetectionMessage.model_validate_json(mark_replayed(live))
    assert replayed.replayed
    assert replayed.detections[0].class_name == NAMES[1]
    assert replayed.model_copy(update={"replayed": False}) == DetectionMessage.model_validate_json(live)


@pytest.mark.parametrize(
    ("status", "schema"),
    [
        (ServiceStatus("dev", "serving", version="1", progress=0.5, dropped={"age": 3}), ServiceMessage),
        (ServiceStatus("dev", "lost"), ServiceMessage),
        (EngineStatus("dev"), EngineMessage),
        (EngineStatus("dev", "ab", resolution_hw=(640, 640), class_names=NAMES, latency_ms=1.5), EngineMessage),
        (
            EngineStatus("dev", "ab", verify=GATE, int8=INT8, dla=DLA, refused=(Refused("int8", "no", GATE, INT8),)),
            EngineMessage,
        ),
        (CameraStatus("dev", "gate", "lost", "no frame for 10 s"), CameraMessage),
        (CameraStatus("dev", "gate", "streaming", resolution_wh=(1920, 1080), fps=29.97), CameraMessage),
        (Response("dev", "rebuild", "t1", "ok", content={"job": 3}), ResponseMessage),
        (Response("dev", "status", None, "error", "no"), ResponseMessage),
    ],
)
def test_states_and_responses_match_their_schema(status: ServiceStatus, schema: type[ServiceMessage]) -> None:
    assert schema.model_validate_json(encode(status)).device == "dev"


def test_a_status_number_that_is_not_finite_becomes_null() -> None:
    assert orjson.loads(encode(EngineStatus("dev", latency_ms=float("nan"))))["latency_ms"] is None


def test_numpy_numbers_from_the_pipeline_are_taken_in_states() -> None:
    status = CameraStatus("dev", "gate", "streaming", fps=np.float32(2.5), frames=np.int64(7))
    assert CameraMessage.model_validate_json(encode(status)).frames == 7


def test_a_hundred_detections_are_encoded_whole_and_in_order() -> None:
    rows = some(100)
    told = [one["xyxy"] for one in orjson.loads(message(rows))["detections"]]
    assert len(told) == 100
    np.testing.assert_allclose(told, rows.xyxy, atol=0.1)


def test_a_gap_record_says_which_messages_do_not_come_and_cannot_be_taken_for_one() -> None:
    told = encode_gap(NUMBER, 9, "age", datetime(2026, 1, 2, tzinfo=timezone.utc), clock_synchronised=False)
    parsed = GapMessage.model_validate_json(told)
    assert (parsed.gap.first, parsed.gap.last, parsed.gap.why, parsed.key) == (7, 9, "age", "dev/e1/gate/7-9")
    with pytest.raises(ValidationError):
        DetectionMessage.model_validate_json(told)
    assert "gap" not in orjson.loads(message(some(1)))
