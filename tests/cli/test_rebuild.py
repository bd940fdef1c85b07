from __future__ import annotations

import hashlib
import json

import pytest
import tiny

from vajra_edge.__main__ import main
from vajra_edge.plans.store import EngineStore


def said(capsys):
    return json.loads(capsys.readouterr().out)


def ask(place, *words):
    return main(["rebuild", "--config", str(place.config), "--json", *words])


def test_without_a_daemon_it_builds_in_place_and_then_finds_nothing_to_do(place, capsys):
    assert ask(place, "--dry-run") == 0
    preview = said(capsys)
    assert preview["needed"]
    assert preview["why"] == ["no wanted plan served on this device yet"]
    assert not (place.folder / "state" / "engines").exists()

    assert ask(place) == 0
    built = said(capsys)
    assert built["built"]
    assert built["fingerprint"] == preview["fingerprint"]
    assert (built["precision"], built["target"], built["by"]) == ("fp32", "cpu", "this command")
    store = EngineStore(place.folder / "state", 10**9)
    assert store.plans() == (built["fingerprint"],)

    assert ask(place) == 0
    assert not said(capsys)["needed"]


def test_other_weights_are_explained_before_and_built_after(place, capsys):
    ask(place)
    first = said(capsys)
    EngineStore(place.folder / "state", 10**9).mark_good(first["fingerprint"])
    place.weights.write_bytes(tiny.network(gain=10.0))
    assert ask(place, "--dry-run") == 0
    preview = said(capsys)
    assert preview["needed"]
    assert any("weights" in reason for reason in preview["why"])
    assert preview["fingerprint"] != first["fingerprint"]


def test_force_builds_what_is_there(place, capsys):
    ask(place)
    first = said(capsys)
    assert ask(place, "--force") == 0
    assert said(capsys)["built"]
    assert EngineStore(place.folder / "state", 10**9).plans() == (first["fingerprint"],)


@pytest.mark.parametrize(
    ("content", "named"), [(b"", "empty"), (b"no network at all" * 99, "tiny.onnx"), (None, "cannot be read")]
)
def test_weights_that_are_no_network_are_one_line_and_leave_nothing(place, capsys, content, named):
    place.weights.unlink()
    if content is not None:
        place.weights.write_bytes(content)
    assert ask(place) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert named in told.err
    assert told.err.strip().count("\n") == 0
    assert EngineStore(place.folder / "state", 10**9).plans() == ()


def test_words_for_a_person(place, capsys):
    assert main(["rebuild", "--config", str(place.config), "--dry-run"]) == 0
    digest = hashlib.sha256(place.weights.read_bytes()).hexdigest()
    expected = f"would be built from weights {digest[:12]}: no wanted plan served on this device yet"
    assert expected in capsys.readouterr().out
