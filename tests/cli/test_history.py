"""``history`` and ``rebuild --rollback`` without a daemon."""

from __future__ import annotations

import json

import tiny

from vajra_edge.__main__ import main
from vajra_edge.plans.audit_log import NAME
from vajra_edge.plans.store import EngineStore


def said(capsys):
    return json.loads(capsys.readouterr().out)


def ask(place, *words):
    return main([*words, "--config", str(place.config)])


def test_builds_in_place_are_in_the_history_and_a_changed_line_is_told(place, capsys):
    assert ask(place, "history", "--json") == 0
    assert said(capsys) == {"entries": [], "doubts": []}
    assert ask(place, "rebuild", "--json") == 0
    built = said(capsys)
    assert ask(place, "history", "--json") == 0
    (entry,) = said(capsys)["entries"]
    assert (entry["happened"], entry["fingerprint"]) == ("built", built["fingerprint"])
    assert entry["duration_s"] > 0.0
    assert entry["asked_by"].startswith("rebuild, user ")
    assert ask(place, "history") == 0
    assert built["fingerprint"][:12] in capsys.readouterr().out
    path = place.folder / "state" / NAME
    path.write_bytes(path.read_bytes().replace(b"built", b"faked"))
    assert ask(place, "history") == 1
    assert "was not written by this device" in capsys.readouterr().err


def test_a_rollback_without_a_daemon_is_noted_for_the_next_start(place, capsys):
    assert ask(place, "rebuild", "--json") == 0
    old = said(capsys)["fingerprint"]
    assert ask(place, "rebuild", "--rollback") == 1
    assert "nothing to go back to" in capsys.readouterr().err
    place.weights.write_bytes(tiny.network(gain=30.0))
    assert ask(place, "rebuild", "--json") == 0
    new = said(capsys)["fingerprint"]
    store = EngineStore(place.folder / "state", 10**9)
    store.mark_good(old)
    store.mark_good(new)
    assert ask(place, "rebuild", "--rollback", "--json") == 0
    assert said(capsys)["fingerprint"] == old
    assert ask(place, "rebuild", "--rollback") == 1
    assert "gone back to already" in capsys.readouterr().err
    assert ask(place, "rebuild", "--rollback", "--force") == 2
