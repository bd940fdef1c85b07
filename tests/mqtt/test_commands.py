from __future__ import annotations

import base64
import contextlib
import random
from datetime import datetime, timezone
from typing import Any

import orjson
import pytest

from vajra_edge.errors import PublishError
from vajra_edge.mqtt.commands import FIELDS, MAX_REQUEST_BYTES, ReplyTo, Requested, parse, reply_to, verb_of
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.topics import VERBS, Topics

TOPICS = Topics("vajra", "dev")
REBUILD = "vajra/dev/request/rebuild"
AT = datetime(2026, 11, 28, 9, 0, tzinfo=timezone.utc)
INNER = '{"device":"dev","verb":"rebuild","transaction":"t1","at":"2026-11-28T09:00:00Z","force":true}'


def signature(comment: str = "untrusted comment: signature from minisign secret key") -> str:
    first, second = base64.b64encode(b"ED" + bytes(8) + bytes(64)), base64.b64encode(bytes(64))
    return f"{comment}\n{first.decode()}\ntrusted comment: x\n{second.decode()}\n"


def signed(request: object = INNER, signature_: object = None) -> bytes:
    return orjson.dumps({"request": request, "signature": signature_ or signature()})


def refused(payload: bytes, verb: str = "rebuild") -> PublishError:
    with pytest.raises(PublishError) as caught:
        parse(Received(f"vajra/dev/request/{verb}", payload), verb, TOPICS)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("received", "verb"),
    [
        *[(Received(f"vajra/dev/request/{verb}", b""), verb) for verb in VERBS],
        (Received("vajra/dev/request/reboot", b""), None),
        (Received("vajra/dev/request/rebuild/now", b""), None),
        (Received("vajra/other/request/rebuild", b""), None),
        (Received(REBUILD, b"", retained=True), None),
    ],
)
def test_only_named_verbs_of_this_device_that_are_not_stored_count(received: Received, verb: str | None) -> None:
    assert verb_of(received, TOPICS) == verb


def test_each_verb_says_what_it_takes() -> None:
    assert set(FIELDS) == set(VERBS)


def test_a_request_is_read_with_what_names_it() -> None:
    received = Received(REBUILD, b'{"transaction": "t1", "at": "2026-11-28T09:00:00Z", "force": true}')
    assert parse(received, "rebuild", TOPICS) == Requested(
        "rebuild", "t1", {"force": True}, ReplyTo("vajra/dev/response/rebuild"), AT
    )


def test_an_install_is_one_word_and_nothing_else() -> None:
    path = "vajra/dev/request/install"
    assert parse(Received(path, b"install"), "install", TOPICS) == Requested(
        "install", None, {}, ReplyTo("vajra/dev/response/install")
    )
    for payload in (b"", b"INSTALL", b'{"force": true}', b"install\n"):
        with pytest.raises(PublishError, match="is another word; send install, or ask for rebuild"):
            parse(Received(path, payload), "install", TOPICS)


def test_an_empty_request_is_one_without_wishes() -> None:
    assert parse(Received(REBUILD, b""), "rebuild", TOPICS).transaction is None


@pytest.mark.parametrize("at", ["2026-11-28T09:00:00Z", "2026-11-28T10:00:00+01:00", "2026-11-28T09:00:00.000Z"])
def test_a_time_may_be_written_in_any_zone(at: str) -> None:
    payload = orjson.dumps({"transaction": "t1", "at": at})
    assert parse(Received(REBUILD, payload), "rebuild", TOPICS).at == AT


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b'{"transaction": 3}', "transaction"),
        (b'{"transaction": ""}', "transaction"),
        (b'{"transaction": "a\\nb"}', "printable"),
        (b'{"transaction": "\\u001b[2J"}', "printable"),
        (b'{"transaction": "\\u202et1"}', "printable"),
        (b'{"transaction": "\\ud800"}', "not JSON"),
        (b'{"transaction": "%s"}' % (b"x" * 300), "transaction"),
        (b" " * (MAX_REQUEST_BYTES + 1), "bytes"),
        (b"[" * 5_000, "not JSON"),
        (b'{"at": 1795860210}', "at of request rebuild is not a text"),
        (b'{"at": "2026-11-28T09:00:00"}', "no time with its zone"),
        (b'{"at": "yesterday"}', "no time with its zone"),
        (b'{"challenge": 7}', "challenge of request rebuild is not a text"),
        (b'{"challenge": %s%s}' % (b"[" * 1000, b"]" * 1000), "is not a text: a list"),
        (b'{"device": %s%s}' % (b"[" * 1000, b"]" * 1000), "is for device a list"),
        (b'{"device": "other"}', "is for device 'other', not 'dev'"),
        (b'{"verb": "adopt"}', "is for verb 'adopt', not 'rebuild'"),
        (b'{"url": "http://x"}', "knows no field 'url'; it takes force, dry_run, wait, rollback"),
        (b'{"bundle": "a"}', "knows no field 'bundle'"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(payload: bytes, words: str) -> None:
    with pytest.raises(PublishError, match=words) as caught:
        parse(Received(REBUILD, payload), "rebuild", TOPICS)
    assert "\n" not in str(caught.value)


def test_a_refusal_knows_the_transaction_where_that_could_be_read() -> None:
    assert refused(b'{"transaction": "t1", "url": "x"}').values["transaction"] == "t1"
    assert "transaction" not in refused(b"[").values


def test_a_signed_request_is_what_its_text_says() -> None:
    told = parse(Received(REBUILD, signed()), "rebuild", TOPICS)
    assert (told.transaction, told.at, told.payload) == ("t1", AT, {"force": True})
    assert told.signed is not None
    assert told.signed.content == INNER.encode()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (signed(INNER.replace('"device":"dev",', "")), "names no device"),
        (signed(INNER.replace('"verb":"rebuild",', "")), "names no verb"),
        (signed(INNER.replace('"dev"', '"other"')), "is for device 'other'"),
        (signed(INNER.replace('"verb":"rebuild"', '"verb":"rollback"')), "is for verb 'rollback'"),
        (signed("["), "not JSON"),
        (signed({"device": "dev"}), "not of its form"),
        (b'{"request": "\\ud800", "signature": "x"}', "not JSON"),
        (signed(signature_=["x"]), "not of its form"),
        (signed(signature_="x"), "its signature is damaged"),
        (signed(signature_=signature("no comment")), "its signature is damaged"),
        (signed(signature_=signature().replace("RUQ", "RWQ", 1)), "signature"),
        (signed(orjson.dumps({"request": INNER, "signature": signature()}).decode()), "knows no field|names no device"),
        (orjson.dumps({**orjson.loads(signed()), "force": True}), "not of its form"),
        (orjson.dumps({"signature": signature()}), "not of its form"),
    ],
)
def test_a_signed_request_of_another_form_or_for_another_is_refused(payload: bytes, words: str) -> None:
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


def test_no_bytes_at_all_do_more_than_be_refused() -> None:
    dice, seeds = random.Random(1), [signed(), b'{"transaction":"t1","at":"2026-11-28T09:00:00Z","wait":true}']
    for _ in range(3_000):
        payload: Any = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 4)):
            payload[dice.randrange(len(payload))] = dice.randrange(256)
        with contextlib.suppress(PublishError):
            parse(Received(REBUILD, bytes(payload)), "rebuild", TOPICS)
