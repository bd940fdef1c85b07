"""A snapshot as it is sent, with the name of its detection message."""

from __future__ import annotations

import io
from datetime import datetime, timezone

import cv2
import numpy as np
import orjson
import pytest

from vajra_edge.mqtt.messages import EngineTag, Number, encode_detections
from vajra_edge.mqtt.picture import Receipt, Snapshot, encode_picture
from vajra_edge.mqtt.schema import SnapshotComment
from vajra_edge.types import Detections, Frame

pillow = pytest.importorskip("PIL.Image", reason="absent here: Pillow")
TAKEN_AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)


def snapshot(number: Number | None) -> Snapshot:
    receipt = Receipt()
    receipt.settle(number)
    return Snapshot(
        "gate", TAKEN_AT, 42, receipt, cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes(), False, True
    )


def comment_of(payload: bytes) -> bytes:
    with pillow.open(io.BytesIO(payload)) as image:
        return bytes(image.info["comment"])


def test_the_comment_and_the_user_properties_say_what_the_message_says() -> None:
    frame = Frame(np.zeros((16, 16, 3), np.uint8), 0, TAKEN_AT, 42, "gate", clock_synchronised=True)
    draft = encode_detections(frame, Detections.empty(), EngineTag("ab" * 32, "fp32", "cpu", ()), "dev", 0)
    message = orjson.loads(draft.numbered("e1", 7))
    picture = encode_picture(snapshot(Number("dev", "e1", "gate", 7)), "dev")
    told = orjson.loads(comment_of(picture.payload))
    SnapshotComment.model_validate_json(comment_of(picture.payload))
    assert told == {name: message[name] for name in told}
    assert dict(picture.user) == {name: str(message[name]) for name in ("key", "seq", "taken_at")}


def test_a_picture_whose_message_was_lost_before_it_had_a_number_names_none() -> None:
    picture = encode_picture(snapshot(None), "dev")
    told = SnapshotComment.model_validate_json(comment_of(picture.payload))
    assert (told.key, told.epoch, told.seq, told.taken_at) == (None, None, None, TAKEN_AT)
    assert [name for name, _ in picture.user] == ["taken_at"]
