"""Commands: what a subscriber may ask over MQTT, checked by its form before anybody acts on it.

A request is a JSON object: ``transaction`` and ``at``, then what its verb takes. A signed one is ``{"request": TEXT,
"signature": TEXT}``: the same object as text, which also names ``device`` and ``verb``, and minisign's signature of it.
``install`` alone is a plain word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from vajra_edge.bundles import minisign
from vajra_edge.bundles.minisign import FileSignature
from vajra_edge.errors import BundleError, PublishError
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.topics import INSTALL, VERBS, Topics
from vajra_edge.wording import clipped

MAX_REQUEST_BYTES = 16 * 1024
_MAX_TRANSACTION_CHARS = 256
_MAX_TOPIC_CHARS = 512

FIELDS: Mapping[str, tuple[str, ...]] = {
    "rebuild": ("force", "dry_run", "wait", "rollback"),
    "reload": (),
    "rollback": ("wait",),
    "snapshot": ("camera",),
    "status": (),
    "adopt": ("bundle", "wait"),
    "set": ("setting", "value"),
    "unset": ("setting",),
    INSTALL: (),
}
"""What each verb takes beside what every request has."""


@dataclass(frozen=True)
class ReplyTo:
    """Where the answer goes.

    Attributes:
        path: full MQTT topic.
        correlation: MQTT 5 correlation data, given back as it came.
    """

    path: str
    correlation: bytes | None = None


@dataclass(frozen=True)
class SignedText:
    """What somebody signed.

    Attributes:
        content: the request's text, byte for byte.
        signature: of it, not checked yet.
    """

    content: bytes
    signature: FileSignature


@dataclass(frozen=True)
class Requested:
    """Event: somebody asks for a verb over MQTT.

    Attributes:
        verb: one of ``topics.VERBS``.
        transaction: the caller's own, to be echoed, and to be used once; None where it gave none.
        payload: what the verb takes.
        reply_to: for ``Publisher.respond``.
        at: when it was asked, by the caller's clock; None where it does not say.
        challenge: of this daemon, in the place of a time; None where it names none.
        signed: what is to be checked; None: nobody signed it.
    """

    verb: str
    transaction: str | None
    payload: Mapping[str, object] = field(default_factory=dict)
    reply_to: ReplyTo = ReplyTo("")
    at: datetime | None = None
    challenge: str | None = None
    signed: SignedText | None = None


def verb_of(received: Received, topics: Topics) -> str | None:
    """The verb, or None for what is no request of ours. A retained one is old: it would be obeyed at every start."""
    if received.retained:
        return None
    return next((verb for verb in VERBS if topics.path(topics.request(verb)) == received.path), None)


def reply_to(received: Received, verb: str, topics: Topics) -> ReplyTo:
    """Where the answer goes: the caller's response topic where it names one that it may."""
    path = received.response_path
    if path is None or not _may_answer_to(path, topics):
        path = topics.path(topics.response(verb))
    return ReplyTo(path, received.correlation)


def parse(received: Received, verb: str, topics: Topics) -> Requested:
    """Read a request.

    Raises:
        PublishError: it is too large, not of the form, or not for this verb of this device; ``values`` has its
            transaction where that could be read.
    """
    size_bytes = len(received.payload)
    if size_bytes > MAX_REQUEST_BYTES:
        raise PublishError(f"request {verb} has {size_bytes} bytes", remedy=f"send at most {MAX_REQUEST_BYTES}")
    if verb == INSTALL:
        return _install(received, topics)
    told, signed = _object(received.payload or b"{}", verb), None
    if "signature" in told:
        signed = _signed(told, verb)
        told = _object(signed.content, verb)
    transaction = _transaction(told.pop("transaction", None), verb)
    try:
        _require_ours(told, verb, topics, signed=signed is not None)
        at, challenge = _time(told.pop("at", None), verb), _text(told.pop("challenge", None), "challenge", verb)
        _require_known(told, verb)
    except PublishError as error:
        error.values["transaction"] = transaction
        raise
    return Requested(verb, transaction, told, reply_to(received, verb, topics), at, challenge, signed)


def _install(received: Received, topics: Topics) -> Requested:
    if received.payload != INSTALL.encode():
        raise PublishError(f"request {INSTALL} is another word", remedy=f"send {INSTALL}, or ask for rebuild")
    return Requested(INSTALL, None, reply_to=reply_to(received, INSTALL, topics))


def _object(content: bytes, verb: str) -> dict[str, Any]:
    try:
        told = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise PublishError(f"request {verb} is not JSON: {error}", remedy='send {"transaction": "..."}') from error
    if not isinstance(told, dict):
        raise PublishError(f"request {verb} is not a JSON object", remedy='send {"transaction": "..."}')
    return told


def _signed(told: Mapping[str, Any], verb: str) -> SignedText:
    request, signature = told.get("request"), told["signature"]
    if set(told) != {"request", "signature"} or not isinstance(request, str) or not isinstance(signature, str):
        remedy = 'send {"request": "...", "signature": "..."}, two texts and nothing else'
        raise PublishError(f"the signed request {verb} is not of its form", remedy=remedy)
    try:
        return SignedText(request.encode(), minisign.parse_signature(signature.encode(), any_comment=True))
    except BundleError as error:
        remedy = "sign the request's text with minisign -S, and send its file as it is"
        raise PublishError(f"request {verb}: {error.message}", remedy=remedy) from error


def _transaction(told: object, verb: str) -> str | None:
    transaction = _text(told, "transaction", verb)
    if transaction is not None and not (0 < len(transaction) <= _MAX_TRANSACTION_CHARS and transaction.isprintable()):
        raise PublishError(
            f"transaction of request {verb} is not a text of 1 to {_MAX_TRANSACTION_CHARS} printable characters",
            remedy="send a UUID, for one",
        )
    return transaction


def _text(told: object, name: str, verb: str) -> str | None:
    if told is not None and not isinstance(told, str):
        raise PublishError(f"{name} of request {verb} is not a text: {clipped(told)}", remedy="put it in quotes")
    return told


def _time(told: object, verb: str) -> datetime | None:
    text = _text(told, "at", verb)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)
        if at.tzinfo is not None:
            return at
    except ValueError:
        pass
    remedy = "send UTC like 2026-11-28T09:00:00Z"
    raise PublishError(f"at of request {verb} is no time with its zone: {clipped(text)}", remedy=remedy)


def _require_ours(told: dict[str, Any], verb: str, topics: Topics, *, signed: bool) -> None:
    """A signature would hold for every device and verb, did the text not name them."""
    for name, ours in (("device", topics.device), ("verb", verb)):
        named = told.pop(name, None)
        if named is None and signed:
            raise PublishError(f"the signed request {verb} names no {name}", remedy=f'sign "{name}": "{ours}" in it')
        if named is not None and named != ours:
            raise PublishError(f"request {verb} is for {name} {clipped(named)}, not {ours!r}", remedy="send it there")


def _require_known(told: Mapping[str, Any], verb: str) -> None:
    if unknown := sorted(set(told) - set(FIELDS[verb])):
        takes = ", ".join(FIELDS[verb]) or "none"
        raise PublishError(f"request {verb} knows no field {clipped(unknown[0])}", remedy=f"it takes {takes}")


def _may_answer_to(path: str, topics: Topics) -> bool:
    """A caller must not make the daemon write where only the daemon may: its own states, or the broker's."""
    inside = path.startswith(f"{topics.root}/") and not path.startswith(f"{topics.root}/{topics.device}/response/")
    legal = 0 < len(path) <= _MAX_TOPIC_CHARS and not any(char in path for char in "+#\0")
    return legal and not inside and not path.startswith("$")
