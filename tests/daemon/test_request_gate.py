"""Who is let in over MQTT, with a publisher that only keeps what it is told to say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="absent here: cryptography")

from signed import Signer, make_key

from vajra_edge.bundles import minisign
from vajra_edge.clock import Moment
from vajra_edge.config.settings import Settings, load
from vajra_edge.daemon.control.callers import MqttCaller
from vajra_edge.daemon.request_gate import RequestGate, SignatureChecked
from vajra_edge.mqtt.commands import Requested, SignedText

NOON = Moment("b1", 5000.0, 1_795_860_000.0, True)
LATER = Moment("b1", 8600.0, 1_795_863_600.0, True)


class Publisher:
    def __init__(self) -> None:
        self.said: list[tuple[str | None, dict[str, Any], str]] = []

    def respond(self, request: Requested, content: dict[str, Any], error: str = "") -> None:
        self.said.append((request.transaction, content, error))


class Gate:
    """The gate, and what waits for the background thread."""

    def __init__(self, folder: Path) -> None:
        self.publisher, self.tasks, moments = Publisher(), list[Callable[[], SignatureChecked]](), [NOON]
        self.gate = RequestGate(self.publisher, lambda _, task: self.tasks.append(task), lambda: moments[-1])
        moments.append(LATER)
        self.signer = Signer(folder)

    def settings(self, *, signed: bool = False) -> Settings:
        weights = {"path": "x.onnx", "keys": str(self.signer.keys)}
        return load(None, {"weights": weights, "mqtt": {"commands": True, "signed_commands": signed}}, {})

    def take(self, request: Requested, *, signed: bool = False) -> MqttCaller | None:
        """Also what comes of a task."""
        caller = self.gate.take(request, self.settings(signed=signed))
        if self.tasks:
            caller = self.gate.checked(self.tasks.pop()())
        return caller

    @property
    def refusal(self) -> str:
        return self.publisher.said[-1][2]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "signer")


def asked(transaction: str = "t1", key: Any = None, text: bytes = b"text") -> Requested:
    at = datetime.fromtimestamp(LATER.unix_s, timezone.utc)
    signed = None
    if key is not None:
        signed = SignedText(text, minisign.parse_signature(minisign.sign(b"text", key, "x")))
    return Requested("rebuild", transaction, at=at, signed=signed)


def test_who_asks_now_and_for_the_first_time_is_let_in_under_his_transaction(gate: Gate):
    caller = gate.take(asked())
    assert caller is not None
    assert (caller.who, caller.may_adopt) == ("MQTT, transaction t1", False)
    assert gate.publisher.said == []
    assert gate.take(asked()) is None
    assert "'t1' was used before" in gate.refusal
    assert gate.gate.refused == 1


def test_a_refusal_says_what_another_try_needs(gate: Gate):
    assert gate.take(Requested("rebuild", "t1")) is None
    ((transaction, content, error),) = gate.publisher.said
    assert (transaction, set(content)) == ("t1", {"now", "clock_synchronised", "window_s", "challenge"})
    assert "does not say when it was asked" in error
    assert gate.take(Requested("rebuild", "t2", challenge=content["challenge"])) is not None


def test_a_signature_is_looked_at_before_the_transaction_counts(gate: Gate):
    stranger = asked(key=make_key())
    assert gate.take(stranger) is None
    assert "which is not trusted here" in gate.refusal
    assert gate.take(asked(key=gate.signer.key, text=b"other")) is None
    assert "it was changed after it was signed" in gate.refusal
    caller = gate.take(asked(key=gate.signer.key), signed=True)
    assert caller is not None
    assert caller.who == f"MQTT, transaction t1, key {gate.signer.key.public.name}"
    assert gate.take(asked(key=gate.signer.key), signed=True) is None
    assert "was used before" in gate.refusal


def test_what_nobody_signed_is_refused_where_the_settings_ask_for_it_with_both_ways_out(gate: Gate):
    assert gate.take(asked(), signed=True) is None
    assert f"sign it with a key of {gate.signer.keys}, or set [mqtt] signed_commands = false" in gate.refusal
    assert gate.take(Requested("status", "t2"), signed=True) is None, "that one is no exception"


def test_a_folder_of_keys_that_cannot_be_read_lets_nobody_in(gate: Gate):
    (gate.signer.keys / "damaged.pub").write_text("no key")
    assert gate.take(asked(key=gate.signer.key)) is None
    assert "damaged.pub" in gate.refusal


def test_whoever_is_refused_all_the_time_does_not_fill_the_log(gate: Gate, caplog: pytest.LogCaptureFixture):
    for number in range(200):
        gate.take(Requested("rebuild", str(number)))
    assert len(gate.publisher.said) == gate.gate.refused == 200
    assert 1 <= len(caplog.records) <= 15
