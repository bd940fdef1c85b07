"""Commands: what a subscriber may ask over MQTT, checked before anybody acts on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from vajra_edge.errors import PublishError
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.topics import VERBS, Topics

MAX_REQUEST_BYTES = 16 * 1024
_MAX_TRANSACTION_CHARS = 256
_MAX_TOPIC_CHARS = 512


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
class Requested:
    """Event: somebody asks for a verb over MQTT.

    Attributes:
        verb: one of ``topics.VERBS``.
        transaction: the caller's own, to be echoed; None where it gave none.
        payload: the JSON object that was sent, without the transaction.
        reply_to: for ``Publisher.respond``.
    """

    verb: str
    transaction: str | None
    payload: Mapping[str, object] = field(default_factory=dict)
    reply_to: ReplyTo = ReplyTo("")


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
        PublishError: it is too large, not a JSON object, or its transaction is not a short text.
    """
    size_bytes = len(received.payload)
    if size_bytes > MAX_REQUEST_BYTES:
        raise PublishError(f"request {verb} has {size_bytes} bytes", remedy=f"send at most {MAX_REQUEST_BYTES}")
    try:
        payload = orjson.loads(received.payload or b"{}")
    except orjson.JSONDecodeError as error:
        raise PublishError(f"request {verb} is not JSON: {error}", remedy='send {"transaction": "..."}') from error
    if not isinstance(payload, dict):
        raise PublishError(f"request {verb} is not a JSON object", remedy='send {"transaction": "..."}')
    transaction = payload.pop("transaction", None)
    if transaction is not None and not (isinstance(transaction, str) and len(transaction) <= _MAX_TRANSACTION_CHARS):
        raise PublishError(
            f"transaction of request {verb} is not a text of {_MAX_TRANSACTION_CHARS} characters or less"
        )
    return Requested(verb, transaction, payload, reply_to(received, verb, topics))


def _may_answer_to(path: str, topics: Topics) -> bool:
    """A caller must not make the daemon write where only the daemon may: its own states, or the broker's."""
    inside = path.startswith(f"{topics.root}/") and not path.startswith(f"{topics.root}/{topics.device}/response/")
    legal = 0 < len(path) <= _MAX_TOPIC_CHARS and not any(char in path for char in "+#\0")
    return legal and not inside and not path.startswith("$")
