from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vajra_edge import durable
from vajra_edge.engine import leftovers
from vajra_edge.engine.refusals import KEPT, LONGEST, MOST_BYTES, Cause, Refusals
from vajra_edge.engine.rung import Rung
from vajra_edge.engine.spec import Precision

QDQ = Rung(Precision.INT8, "qdq")
PLAN, LIBRARY = "a" * 64, "TensorRT 10.3.0"


def refusals(folder: Path, library: str = LIBRARY) -> Refusals:
    return Refusals(folder, PLAN, library, now_s=lambda: 1_764_000_000.0)


def test_what_was_refused_is_known_after_a_restart_until_it_is_good_or_somebody_insists(tmp_path: Path):
    refusals(tmp_path).add(QDQ, Cause.LIBRARY, "no tactic", 257.04, ("conv1",))
    refusals(tmp_path).add(Rung(Precision.FP16), Cause.CHECK, "it finds other boxes", 9.0)
    found = refusals(tmp_path).all()
    assert found[QDQ].line == "refused on 2025-11-24: no tactic"
    assert (found[QDQ].seconds, found[QDQ].cause, found[QDQ].layers) == (257.0, Cause.LIBRARY, ("conv1",))
    refusals(tmp_path).remove(QDQ)
    assert list(refusals(tmp_path).all()) == [Rung(Precision.FP16)]
    refusals(tmp_path).clear()
    assert refusals(tmp_path).all() == {}


def test_a_rung_is_kept_once_and_only_the_newest_are(tmp_path: Path):
    for number in range(KEPT + 3):
        rung = Rung(Precision.INT8, "qdq", high=frozenset({str(number)}))
        refusals(tmp_path).add(rung, Cause.LIBRARY, "first", 1.0)
        refusals(tmp_path).add(rung, Cause.LIBRARY, "x" * 10_000, 1.0)
    found = refusals(tmp_path).all()
    assert len(found) == KEPT
    assert {len(one.reason) for one in found.values()} == {LONGEST}
    assert Rung(Precision.INT8, "qdq", high=frozenset({str(KEPT + 2)})) in found


def test_another_library_release_has_refused_nothing(tmp_path: Path):
    refusals(tmp_path).add(QDQ, Cause.LIBRARY, "no tactic", 1.0)
    assert refusals(tmp_path, "TensorRT 10.4.0").all() == {}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"\xff", b"{}", b"[" * 100_000, b"x" * (MOST_BYTES + 1), b'{"library": "TensorRT 10.3.0"}',
        b'{"library": "TensorRT 10.3.0", "refused": [{"rung": {}}]}',
        b'{"library": "TensorRT 10.3.0", "refused": 3}',
    ],
)  # fmt: skip
def test_a_file_that_is_not_ours_is_as_good_as_none_and_is_written_anew(tmp_path: Path, content: bytes):
    kept = refusals(tmp_path)
    kept.path.parent.mkdir()
    kept.path.write_bytes(content)
    assert kept.all() == {}
    kept.add(QDQ, Cause.SPEED, "slower", 1.0)
    assert list(refusals(tmp_path).all()) == [QDQ]
    assert [path.name for path in kept.path.parent.iterdir()] == [f"{PLAN}.json"]


def test_a_disk_that_refuses_does_not_end_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write", full)
    refusals(tmp_path).add(QDQ, Cause.LIBRARY, "no tactic", 1.0)
    assert "what was refused is not remembered" in caplog.text
    assert "No space left on device" in caplog.text


def test_files_of_other_plans_are_pruned_as_new_ones_are_written(tmp_path: Path):
    folder = tmp_path / leftovers.REFUSALS.path
    folder.mkdir()
    for number in range(leftovers.REFUSALS.kept + 5):
        path = folder / f"{number:064x}.json"
        path.write_text("{}")
        os.utime(path, (1000.0 + number, 1000.0 + number))
    refusals(tmp_path).add(QDQ, Cause.LIBRARY, "no tactic", 1.0)
    assert len(list(folder.iterdir())) == leftovers.REFUSALS.kept
    assert json.loads((folder / f"{PLAN}.json").read_bytes())["library"] == LIBRARY
