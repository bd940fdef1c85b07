from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vajra_edge import durable


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A folder whose ``old`` lies below an overlay, as all does on a board that protects its disk with one."""
    (tmp_path / "below/old").mkdir(parents=True)
    (tmp_path / "below/old/name").write_text("old")
    memory, shown = tmp_path / "memory", tmp_path / "shown"
    memory.mkdir()
    shown.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(memory)], check=False, capture_output=True).returncode:
        pytest.skip("absent here: the right to mount")
    (memory / "upper").mkdir()
    (memory / "work").mkdir()
    options = f"lowerdir={tmp_path}/below,upperdir={memory}/upper,workdir={memory}/work"
    try:
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(shown)], check=True)
        yield shown
        subprocess.run(["umount", str(shown)], check=True)
    finally:
        subprocess.run(["umount", str(memory)], check=True)


def put_over(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new/name").write_text("new")
    durable.rename_over(folder / "new", folder / "old")
    assert (folder / "old/name").read_text() == "new"
    assert (folder / "new/name").read_text() == "old"
    assert sorted(path.name for path in folder.iterdir()) == ["new", "old"]


def test_a_folder_takes_the_name_of_another_which_lies_where_it_was(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/name").write_text("old")
    put_over(tmp_path)


def test_a_folder_takes_the_name_of_one_below_an_overlay_which_cannot_be_renamed(overlay):
    put_over(overlay)


def test_a_folder_takes_the_name_where_nothing_swaps_two(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/name").write_text("old")
    monkeypatch.setattr(durable, "_exchange", lambda *_: False)
    put_over(tmp_path)
