"""A daemon whose state directory holds what no daemon wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from odd_files import ODD_FILES, put
from station import Station

ASKED_FOR = {"store.key", "build.lock", "history.lock"}
"""What an operator is asked to remove: without its key nothing of a device is believed, and locks keep others out."""


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@pytest.mark.parametrize("form", ODD_FILES)
def test_whatever_lies_in_the_place_of_its_files_it_builds_anew_serves_and_stops(rebooted: Station, form: str):
    """A pipe in the place of one of them held the daemon for ever; an endless device took all memory."""
    state = rebooted.state_dir
    (state / "totals").mkdir()
    made = ("charges.json", "rollback.json", "broker.json", "told_cameras.json", "totals/gate.json")
    for name in (*made, "history.jsonl", "running.held"):
        (state / name).touch()
    replaced = [path for path in files(state) if path.name not in ASKED_FOR]
    assert {"manifest.json", "plan", "running"} <= {path.name for path in replaced}
    for path in replaced:
        put(form, path)
    rebooted.spawn()
    assert rebooted.serving()
    assert rebooted.until(lambda status: status["cameras"][0]["published"])["engine"]["serving"]
    assert rebooted.stop() == 0


def test_a_lock_that_is_no_file_is_named_and_serves_once_it_is_removed(rebooted: Station):
    lock = rebooted.state_dir / "build.lock"
    put("a folder", lock)
    rebooted.write_weights(tiny.network(gain=1.5))
    rebooted.spawn()
    told = rebooted.until(lambda status: "no file" in status["reason"])["reason"]
    assert str(lock) in told
    assert "remove it" in told
    shutil.rmtree(lock)
    assert rebooted.serving()
