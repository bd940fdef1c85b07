"""A kill before any touch of the disk: a whole bundle is in force afterwards, and the next try ends as it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from signed import Signer

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.long("kills an adoption before each touch of the disk: two minutes; what is damaged is refused always")
@pytest.mark.parametrize(("adopted", "ends_with"), [("serving", 2), ("rolled back", 1)])
def test_a_kill_at_any_moment_of_an_adoption_leaves_a_whole_bundle_in_force(tmp_path, adopted, ends_with):
    signer = Signer(tmp_path / "signer")
    old, new = signer.make(b"old weights" * 99, 1), signer.make(b"new weights" * 99, 2)
    command = [sys.executable, str(TESTS / "bundles" / "shelf_kill_matrix.py"), str(tmp_path / "shelves")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))}
    told = subprocess.run(
        [*command, str(old), str(new), str(signer.keys), adopted],
        capture_output=True, text=True, check=True, env=environ,
    )  # fmt: skip
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(rows) > 20
    assert rows[-1]["completed"]
    assert not any(row["completed"] for row in rows[:-1])
    for row in rows:
        assert row["after"]["whole"], row
        assert row["after"]["serial"] in (1, 2), row
        assert row["again"] == {"serial": ends_with, "whole": True, "tried": False, "folders": 1}, row
    if adopted == "rolled back":
        assert {row["after"]["tried"] for row in rows} == {False, True}
