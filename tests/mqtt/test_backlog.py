from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import orjson
import pytest

from vajra_edge.mqtt import events
from vajra_edge.mqtt.backlog import HOLD_S, STATE_HOLD_S, Backlog
from vajra_edge.mqtt.commands import ReplyTo
from vajra_edge.mqtt.messages import Draft, Number
from vajra_edge.mqtt.outbox_values import KeptIn, OutboxBounds, Recovered
from vajra_edge.mqtt.picture import Receipt, Snapshot
from vajra_edge.mqtt.schema import GapMessage
from vajra_edge.mqtt.topics import Topics, events_of

TOPICS = Topics("vajra", "dev")
DRAFT = Draft("gate", "dev", b'"replayed":false}')


def settled(seq: int) -> Receipt:
    receipt = Receipt()
    receipt.settle(Number("dev", "e1", "yard", seq))
    return receipt


def snapshot(receipt: Receipt, camera: str = "gate") -> Snapshot:
    return Snapshot(camera, datetime.now(timezone.utc), 0, receipt, b"\xff\xd8jpeg")


def backlog() -> Backlog:
    made = Backlog(OutboxBounds(KeptIn.MEMORY, 1_000_000, 60.0), "e1")
    made.connected()
    return made


def take_paths(waiting: Backlog, now_s: float = 0.0) -> list[str]:
    taken = []
    while (parcel := waiting.take(TOPICS, now_s)) is not None:
        taken.append(parcel.path.removeprefix("vajra/dev/"))
    return taken


def test_states_go_first_and_pictures_last() -> None:
    waiting = backlog()
    waiting.set_picture(snapshot(waiting.offer(DRAFT, 0.0)))
    waiting.answer(ReplyTo("app/answers"), b"{}")
    waiting.set_state(TOPICS.status, b"{}")
    assert take_paths(waiting) == ["status", "app/answers", "camera/gate/detections", "camera/gate/snapshot"]
    assert not waiting.is_empty()


def test_another_root_applies_to_what_waits_already() -> None:
    waiting = backlog()
    waiting.offer(DRAFT, 0.0)
    parcel = waiting.take(Topics("elsewhere", "dev"), 0.0)
    assert parcel is not None
    assert parcel.path == "elsewhere/dev/camera/gate/detections"


def test_a_detection_message_of_before_the_connection_is_marked() -> None:
    waiting = backlog()
    waiting.offer(DRAFT, 0.0)
    waiting.disconnected([])
    waiting.connected()
    waiting.offer(DRAFT, 0.0)
    first, second = waiting.take(TOPICS, 0.0), waiting.take(TOPICS, 0.0)
    assert first is not None
    assert second is not None
    assert (first.payload, second.payload) == (
        DRAFT.numbered("e1", 0).replace(b"false", b"true"),
        DRAFT.numbered("e1", 1),
    )


def test_events_go_in_order_with_detections_on_a_topic_and_under_numbers_of_their_own() -> None:
    waiting = backlog()
    event = Draft(events_of("gate"), "dev", b'"replayed":false}')
    for draft in (DRAFT, event, DRAFT):
        waiting.offer(draft, 0.0)
    parcels = [waiting.take(TOPICS, 0.0) for _ in range(3)]
    told = [(parcel.path, orjson.loads(parcel.payload)) for parcel in parcels if parcel is not None]
    assert [(path, content["camera"], content["seq"], content["key"]) for path, content in told] == [
        ("vajra/dev/camera/gate/detections", "gate", 0, "dev/e1/gate/0"),
        ("vajra/dev/camera/gate/events", "gate", 0, "dev/e1/gate/events/0"),
        ("vajra/dev/camera/gate/detections", "gate", 1, "dev/e1/gate/1"),
    ]


def test_events_that_do_not_come_are_a_gap_of_their_own_topic() -> None:
    waiting = backlog()
    waiting.offer(Draft(events_of("gate"), "dev", b'"replayed":false}'), 0.0)
    parcel = waiting.take(TOPICS, 0.0)
    assert parcel is not None
    waiting.settle(parcel, 0x87, 0.0)
    gap = waiting.take(TOPICS, 0.0)
    assert gap is not None
    assert gap.path == "vajra/dev/camera/gate/events"
    told = GapMessage.model_validate_json(gap.payload)
    assert (told.camera, told.key, told.gap.why) == ("gate", "dev/e1/gate/events/0-0", "refused")


def test_responses_under_way_when_the_connection_broke_are_sent_again_in_order() -> None:
    waiting = backlog()
    for name in ("a", "b", "c"):
        waiting.answer(ReplyTo(name), b"{}")
    under_way = [waiting.take(TOPICS, 0.0), waiting.take(TOPICS, 0.0)]
    waiting.disconnected([parcel for parcel in under_way if parcel is not None])
    assert take_paths(waiting) == ["a", "b", "c"]


def test_pictures_are_not_kept_for_later() -> None:
    waiting = backlog()
    waiting.set_picture(snapshot(waiting.offer(DRAFT, 0.0)))
    waiting.disconnected([])
    assert take_paths(waiting) == ["camera/gate/detections"]


def test_a_picture_waits_for_the_number_of_its_message_and_no_other_waits_for_it() -> None:
    waiting = Backlog(OutboxBounds(KeptIn.DISK, 1_000_000, 60.0), "e1")
    waiting.connected()
    waiting.set_picture(snapshot(waiting.offer(DRAFT, 0.0)))
    waiting.set_picture(snapshot(settled(3), "yard"))
    assert take_paths(waiting) == ["camera/yard/snapshot"]
    waiting.opened(Recovered("d1", {"gate": 40}, 7, 0, 0))
    batch = waiting.collect()
    assert batch is not None
    assert take_paths(waiting) == []
    waiting.committed(batch)
    message, picture = waiting.take(TOPICS, 0.0), waiting.take(TOPICS, 0.0)
    assert message is not None
    assert picture is not None
    assert picture.path == "vajra/dev/camera/gate/snapshot"
    assert dict(picture.user)["key"] == orjson.loads(message.payload)["key"] == "dev/d1/gate/40"


def test_what_was_asked_for_is_told_though_a_newer_picture_takes_its_place() -> None:
    waiting = backlog()
    waiting.set_picture(replace(snapshot(settled(3)), asked=True))
    waiting.set_picture(snapshot(settled(4)))
    first = waiting.take(TOPICS, 0.0)
    waiting.set_picture(snapshot(settled(5)))
    second = waiting.take(TOPICS, 0.0)
    assert first is not None
    assert second is not None
    assert first.sent is not None
    assert (first.sent.camera, first.sent.told["seq"], second.sent) == ("gate", 4, None)


def test_a_picture_of_a_message_that_waited_for_the_broker_names_it_all_the_same() -> None:
    waiting = Backlog(OutboxBounds(KeptIn.MEMORY, 1_000_000, 60.0), "e1")
    waiting.set_picture(snapshot(waiting.offer(DRAFT, 0.0)))
    waiting.connected()
    message, picture = waiting.take(TOPICS, 0.0), waiting.take(TOPICS, 0.0)
    assert message is not None
    assert picture is not None
    assert b'"replayed":true' in message.payload
    assert dict(picture.user)["key"] == orjson.loads(message.payload)["key"]


@pytest.mark.parametrize(
    ("code", "reason"), [(0x87, "refused"), (0x99, "refused"), (events.PACKET_TOO_LARGE, "too_large")]
)
def test_a_message_refused_for_good_is_dropped_at_once(code: int, reason: str) -> None:
    waiting = backlog()
    waiting.offer(DRAFT, 0.0)
    parcel = waiting.take(TOPICS, 0.0)
    assert parcel is not None
    waiting.settle(parcel, code, 0.0)
    assert waiting.counts().dropped == {reason: 1}
    gap = waiting.take(TOPICS, 0.0)
    assert gap is not None
    assert orjson.loads(gap.payload)["gap"] == {"from": 0, "to": 0, "why": reason}
    waiting.settle(gap, 0, 0.0)
    assert waiting.is_empty()


def test_a_gap_record_that_is_refused_is_tried_again_later_and_holds_nothing_up() -> None:
    waiting = backlog()
    for _ in range(2):
        waiting.offer(DRAFT, 0.0)
        parcel = waiting.take(TOPICS, 0.0)
        assert parcel is not None
        waiting.settle(parcel, 0x87, 0.0)
    waiting.offer(DRAFT, 0.0)
    assert take_paths(waiting) == ["camera/gate/detections"] * 2, "the gap record, and the third message"
    waiting.disconnected([])
    waiting.connected()
    gap = waiting.take(TOPICS, 0.0)
    assert gap is not None
    waiting.settle(gap, 0x87, 0.0)
    parcel = waiting.take(TOPICS, 0.0)
    assert parcel is not None
    assert b'"seq":2' in parcel.payload
    waiting.settle(parcel, 0x87, 0.0)
    assert waiting.take(TOPICS, 1.0) is None
    later = waiting.take(TOPICS, 1000.0)
    assert later is not None
    assert orjson.loads(later.payload)["gap"] == {"from": 0, "to": 2, "why": "refused"}


def test_after_a_refusal_for_the_moment_detections_pause_and_states_do_not() -> None:
    waiting = backlog()
    waiting.offer(DRAFT, 0.0)
    parcel = waiting.take(TOPICS, 0.0)
    assert parcel is not None
    waiting.settle(parcel, 0x97, 0.0)
    waiting.set_state(TOPICS.status, b"{}")
    assert take_paths(waiting, 0.5 * HOLD_S) == ["status"]
    assert take_paths(waiting, HOLD_S) == ["camera/gate/detections"]


def test_a_state_that_is_refused_for_the_moment_is_sent_again_after_a_pause() -> None:
    waiting = backlog()
    waiting.set_state(TOPICS.status, b"{}")
    parcel = waiting.take(TOPICS, 0.0)
    assert parcel is not None
    waiting.settle(parcel, 0x97, 0.0)
    assert take_paths(waiting, 0.5 * STATE_HOLD_S) == []
    assert take_paths(waiting, STATE_HOLD_S) == ["status"]
    waiting.settle(parcel, 0, STATE_HOLD_S)
    assert take_paths(waiting, 3.0 * STATE_HOLD_S) == []


def test_a_state_that_is_refused_for_the_moment_gives_way_to_its_next_value() -> None:
    waiting = backlog()
    waiting.set_state(TOPICS.status, b"{}")
    parcel = waiting.take(TOPICS, 0.0)
    assert parcel is not None
    waiting.set_state(TOPICS.status, b"[]")
    waiting.settle(parcel, 0x97, 0.0)
    newer = waiting.take(TOPICS, 0.0)
    assert newer is not None
    assert newer.payload == b"[]"
    assert take_paths(waiting, STATE_HOLD_S) == []
