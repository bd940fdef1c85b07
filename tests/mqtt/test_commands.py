from __future__ import annotations

import pytest

from vajra_edge.errors import PublishError
from vajra_edge.mqtt.commands import MAX_REQUEST_BYTES, ReplyTo, Requested, parse, reply_to, verb_of
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.topics import Topics

TOPICS = Topics("vajra", "dev")
REBUILD = "vajra/dev/request/rebuild"


@pytest.mark.parametrize(
    ("received", "verb"),
    [
        (Received(REBUILD, b""), "rebuild"),
        (Received("vajra/dev/request/status", b""), "status"),
        (Received("vajra/dev/request/reboot", b""), None),
        (Received("vajra/other/request/rebuild", b""), None),
        (Received(REBUILD, b"", retained=True), None),
    ],
)
def test_only_named_verbs_of_this_device_that_are_not_stored_count(received: Received, verb: str | None) -> None:
    assert verb_of(received, TOPICS) == verb


def test_a_request_is_read_with_its_transaction() -> None:
    received = Received(REBUILD, b'{"transaction": "t1", "force": true}')
    assert parse(received, "rebuild", TOPICS) == Requested(
        "rebuild", "t1", {"force": True}, ReplyTo("vajra/dev/response/rebuild")
    )


def test_an_empty_request_is_one_without_wishes() -> None:
    assert parse(Received(REBUILD, b""), "rebuild", TOPICS).transaction is None


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b'{"transaction": 3}', "transaction"),
        (b'{"transaction": "%s"}' % (b"x" * 300), "transaction"),
        (b" " * (MAX_REQUEST_BYTES + 1), "bytes"),
        (b"[" * 5_000, "not JSON"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(payload: bytes, words: str) -> None:
    with pytest.raises(PublishError, match=words) as caught:
        parse(Received(REBUILD, payload), "rebuild", TOPICS)
    assert "\n" not in str(caught.value)


def test_the_callers_response_topic_and_correlation_are_honoured() -> None:
    received = Received(REBUILD, b"", response_path="app/7/answers", correlation=b"c7")
    assert reply_to(received, "rebuild", TOPICS) == ReplyTo("app/7/answers", b"c7")


@pytest.mark.parametrize(
    "path",
    ["vajra/dev/status", "vajra/dev/request/rebuild", "vajra/other/status", "$SYS/x", "a/+/b", "a/#", "", "x" * 600],
)
def test_a_response_topic_that_only_others_may_write_is_not_used(path: str) -> None:
    received = Received(REBUILD, b"", response_path=path, correlation=b"c7")
    assert reply_to(received, "rebuild", TOPICS) == ReplyTo("vajra/dev/response/rebuild", b"c7")
