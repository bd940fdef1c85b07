from __future__ import annotations

import errno
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from vajra_edge.errors import StoreError
from vajra_edge.quantization.camera_samples import Kept, listed

NOON = datetime(2026, 11, 23, 12, 0, 1, 250_000, tzinfo=timezone.utc)


def test_a_name_says_everything_and_is_read_back():
    one = Kept(7, "front-door", NOON, 12)
    assert one.name == "00000007-front-door-20261123T120001250Z-12.jpg"
    assert Kept.parse(one.name) == one


def test_another_time_zone_is_written_as_utc():
    there = NOON.astimezone(timezone(timedelta(hours=5)))
    assert Kept.parse(Kept(1, "gate", there, 0).name) == Kept(1, "gate", NOON, 0)


@pytest.mark.parametrize(
    "name", ["frozen.json", "00001-gate-0123456789abcdef.jpg", "00000001-gate-20261323T120001250Z-12.jpg", "x.jpg"]
)
def test_other_files_are_nobodys_picture(name: str):
    assert Kept.parse(name) is None


def test_a_folder_is_listed_in_the_order_of_collecting(tmp_path: Path):
    many = [Kept(number, camera, NOON, 0) for number, camera in ((99_999_999, "a"), (100_000_000, "a"), (3, "z"))]
    for one in many:
        (tmp_path / one.name).write_bytes(b"")
    (tmp_path / "frozen.json").write_bytes(b"")
    assert [one.number for one in listed(tmp_path)] == [3, 99_999_999, 100_000_000]
    assert listed(tmp_path / "none") == ()


@pytest.mark.parametrize(("code", "remedy"), [(errno.EACCES, "give the folder to"), (errno.EIO, "check that disk")])
def test_a_folder_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch, code: int, remedy: str):
    def refuse(path: Path) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StoreError, match=f"{tmp_path} cannot be read: {os.strerror(code)}.*; {remedy}"):
        listed(tmp_path)
