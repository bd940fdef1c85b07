from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest
import tiny

from vajra_edge.errors import StoreError
from vajra_edge.quantization import collection
from vajra_edge.quantization.camera_samples import Look, Sampler
from vajra_edge.quantization.collection import delete
from vajra_edge.types import Frame


def frame(seed: int) -> Frame:
    return Frame(tiny.scene(seed=seed).image, 0, datetime.now(timezone.utc), seed, "gate")


def filled(folder: Path) -> Sampler:
    """A frozen set of three pictures."""
    sampler = Sampler(folder, most=4)
    for seed in range(3):
        sampler.offer(frame(seed), 5)
    sampler.freeze()
    return sampler


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """The folder of images, as its owner linked it to another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "cameras").symlink_to(tmp_path / "disk")
    return tmp_path / "state" / "cameras"


def test_a_folder_that_is_linked_to_another_disk_is_emptied_and_stays_linked(linked: Path) -> None:
    sampler = filled(linked)
    (linked / "mine.txt").write_text("not the sampler's")
    for _ in range(2):
        delete(linked)
        assert [path.name for path in linked.resolve().iterdir()] == ["mine.txt"]
    assert sampler.offer(frame(9), 5) is Look.KEPT
    assert linked.is_symlink()


def test_pictures_of_the_first_version_go_too(linked: Path) -> None:
    (linked / "00000-gate-0123456789abcdef.jpg").write_text("a picture of somebody")
    delete(linked)
    assert list(linked.resolve().iterdir()) == []


def test_a_link_that_an_earlier_version_moved_aside_is_finished(linked: Path) -> None:
    filled(linked)
    disk = linked.resolve()
    linked.rename(linked.with_name("cameras.deleted-0123"))
    delete(linked)
    assert list(linked.parent.iterdir()) == list(disk.iterdir()) == []


@pytest.mark.parametrize("target", ["nothing", "file"])
def test_a_link_to_no_folder_is_no_trouble(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "cameras").symlink_to(tmp_path / target)
    delete(tmp_path / "cameras")
    assert (tmp_path / "file").exists()


def test_a_mounted_folder_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cameras"
    filled(folder)
    monkeypatch.setattr(collection.os.path, "ismount", lambda path: path == folder)
    delete(folder)
    assert list(folder.iterdir()) == []


def test_several_deletions_at_one_time_leave_nothing_and_do_not_fail(tmp_path: Path) -> None:
    folder = tmp_path / "cameras"
    for _ in range(10):
        folder.mkdir()
        for number in range(200):
            (folder / f"{number}.jpg").touch()
        with ThreadPoolExecutor(4) as people:
            assert list(people.map(delete, [folder] * 4)) == [None] * 4
        assert list(tmp_path.iterdir()) == []


def test_a_refusal_without_a_number_is_said_in_its_own_words(tmp_path: Path, monkeypatch) -> None:
    filled(tmp_path / "cameras")
    monkeypatch.setattr(collection.shutil, "rmtree", refuse_in_words)
    with pytest.raises(StoreError, match="cannot be deleted: not today; check that disk"):
        delete(tmp_path / "cameras")


def refuse_in_words(_: Path) -> None:
    raise OSError("not today")
