from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.datasets import data_yaml
from vajra_edge.errors import DatasetError


def read(folder: Path, text: str, split: str = "val") -> data_yaml.DataYaml:
    path = folder / "data.yaml"
    path.write_text(text)
    return data_yaml.read(path, split)


def test_places_are_relative_to_path_and_need_not_be_there(tmp_path: Path) -> None:
    found = read(tmp_path, "path: set\nval: [a, b.txt]\nnames: {0: person, 1: car}\n")
    assert found.root == tmp_path / "set"
    assert found.places == (tmp_path / "set" / "a", tmp_path / "set" / "b.txt")
    assert found.class_names == ("person", "car")


def test_a_split_is_found_under_its_long_name_and_without_names(tmp_path: Path) -> None:
    found = read(tmp_path, "validation: images\n")
    assert (found.places, found.class_names) == ((tmp_path / "images",), None)


def test_a_path_as_roboflow_writes_it_is_mended_where_that_is_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "set" / "valid").mkdir(parents=True)
    text = "path: set\nval: ../valid\n"
    assert read(tmp_path, text).places == (tmp_path / "set" / "valid",)
    (tmp_path / "valid").mkdir()
    assert read(tmp_path, text).places == (tmp_path / "set" / "../valid",)


def test_a_split_that_is_not_there_is_named_with_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"data\.yaml: no 'test'; add 'test: images/test'"):
        read(tmp_path, "val: images\n", "test")
