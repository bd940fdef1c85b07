from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vajra_edge.datasets import places
from vajra_edge.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("set/images/a.png", "set/images/b.JPG", "set/images/deep/c.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))
    return tmp_path / "set"


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


@pytest.mark.parametrize(
    "companion",
    [
        "._a.png",
        "Thumbs.db",
        ".DS_Store",
        "desktop.ini",
        "__MACOSX/images/a.png",
        "__MACOSX/._a.png",
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
        ".ipynb_checkpoints/a-checkpoint.png",
        "deep/._c.png",
    ],
)
def test_what_desktops_put_beside_pictures_is_passed_over(folder, companion):
    path = folder / "images" / companion
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\5\x16\7")
    assert names(places.images_below(folder / "images")) == ["a.png", "b.JPG", "c.png"]


def test_a_folder_that_a_desktop_made_is_read_where_it_is_itself_named(folder):
    (folder / "images").rename(folder / "__MACOSX")
    assert names(places.images_below(folder / "__MACOSX")) == ["a.png", "b.JPG", "c.png"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("images/a.png", ["a.png"]),
        ("images\\a.png", ["a.png"]),
        ("./images/*.png", ["a.png"]),
        ("images/**/*.png", ["a.png", "c.png"]),
        ("images", ["a.png", "b.JPG", "c.png"]),
        ("images\\deep\\", ["c.png"]),
        ("ima*s", ["a.png", "b.JPG", "c.png"]),
        ("set/images/a.png", ["a.png"]),
        ("'images/a.png'", ["a.png"]),
    ],
)
def test_a_line_of_a_list_is_a_file_a_folder_or_a_pattern(folder, monkeypatch, line, expected):
    monkeypatch.chdir(folder.parent)
    (folder / "val.txt").write_text(f"\n{line}\r\n")
    assert names(list(places.listed(folder / "val.txt", folder))) == expected


def test_a_line_that_names_nothing_is_told_with_its_number(folder):
    (folder / "val.txt").write_text("images/a.png\nimages/z*.png\n")
    with pytest.raises(DatasetError, match=r"val\.txt:2: images/z\*\.png does not exist; mend the list"):
        list(places.listed(folder / "val.txt", folder))


@pytest.mark.parametrize(
    "named", ["/content/datasets/set-3/images/a.png", "C:\\Users\\me\\set\\images\\a.png", "../other/images/a.png"]
)
def test_a_path_of_another_machine_is_told_with_what_to_write_here(folder, named):
    assert "write images/a.png, which is in" in places.elsewhere(named, folder)
    assert places.elsewhere("/content/none/z.png", folder) == ""


def test_labels_without_pictures_are_found_and_lists_of_names_are_none(folder):
    (folder / "labels" / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "deep/c.txt", "gone.txt", "classes.txt", "._a.txt", "notes.json"):
        (folder / "labels" / name).write_text("")
    images = places.images_below(folder / "images")
    assert names(places.labels_without_pictures(folder / "images", images)) == ["gone.txt"]
