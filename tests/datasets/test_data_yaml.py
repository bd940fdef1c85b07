from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{'0': person, \"1\": car}", ("person", "car")),
        ("{1: car, 0: person}", ("person", "car")),
        ("{0.0: person, 01: car}", ("person", "car")),
        ("[no, on]", ("no", "on")),
        ("{0: off, 1: Yes}", ("off", "Yes")),
        ("[1e3, 007]", ("1e3", "007")),
        ("[2024-01-01, 12:30]", ("2024-01-01", "12:30")),
        ("[null, ~]", ("null", "~")),
        ("[ 'traffic light ', \u00e9t\u00e9]", ("traffic light", "\u00e9t\u00e9")),
        ("\n  - person\n  - car  # of any kind", ("person", "car")),
    ],
)
@pytest.mark.parametrize("nc", ["", "nc: 2\n", "nc: '2'\n", "nc: 2.0\n"])
def test_names_are_what_is_written(tmp_path: Path, names: str, expected: tuple[str, ...], nc: str) -> None:
    found = read(tmp_path, f"val: images\n{nc}names: {names}\n")
    assert (found.class_names, found.classes) == (expected, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: {0: a, 2: c}", "not 0, 1, 2, ...: 1 is not there; number them from 0, without gaps"),
        ("names: {a: 0, b: 1}", "not 0, 1, 2"),
        ("names: {0: a, 0: b}", r"data.yaml:2: '0' is there twice; keep one"),
        ("val: other", r"data.yaml:2: 'val' is there twice"),
        ("names: [a, [b]]", "data.yaml:2: in 'names' is what is no name"),
        ("names: {0: {name: a}}", "data.yaml:2: in 'names' is what is no name"),
        ("names: [a, '']", "class 1 has no name"),
        ("names:\n - a\n -\n", "class 1 has no name"),
        ("names: {}", "'names' is neither a list nor a mapping"),
        ("names: coco.names", "'names' is neither a list nor a mapping"),
        ("nc: many", "nc is 'many'; write how many"),
        ("nc: true", "nc is True"),
        ("nc: 0", "nc is 0"),
        ("nc: -1", "nc is -1"),
        ("? [a]\n: b", "."),
    ],
)
def test_what_cannot_be_names_is_told_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    if words == ".":
        with contextlib.suppress(DatasetError):
            read(tmp_path, f"val: images\n{text}\n")
        return
    with pytest.raises(DatasetError, match=words) as raised:
        read(tmp_path, f"val: images\n{text}\n")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [("[17, 3]", 51), ("[17,2]", 34), ("'[4, 3]'", 12), ("(4, 3)", 12), ("[17]", None), ("[17, 9]", None), ("x", None)],
)
def test_the_shape_of_keypoints_tells_how_long_a_line_of_labels_is(
    tmp_path: Path, shape: str, numbers: int | None
) -> None:
    assert read(tmp_path, f"val: images\nkpt_shape: {shape}\n").keypoints == numbers


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("val: images\\val", "set/images/val"),
        ("val: ../images/val", "set/images/val"),
        ("val: set/images/val", "set/images/val"),
        ("path: gone\nval: images/val", "set/images/val"),
        ("path: data\nval: val", "data/val"),
        ("path: set\\images\nval: val", "set/images/val"),
        ("val: data/val", "data/val"),
        ("valid: images/val", "set/images/val"),
    ],
)
def test_the_first_of_the_usual_places_that_is_there_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, there: str
) -> None:
    for folder in ("set/images/val", "data/val"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (place,) = read(tmp_path / "set", text + "\n").places
    assert place.resolve() == tmp_path / there


def test_a_place_that_is_found_by_chance_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    read(tmp_path, "path: gone\nval: images\n")
    assert "gone/images does not exist" in caplog.text
    assert str(tmp_path / "images") in caplog.text


VALUE = st.one_of(
    st.sampled_from(
        [
            "images",
            "[images]",
            "no",
            "~",
            "",
            "0",
            "[]",
            "{}",
            "{0: a}",
            "['0', 1]",
            "{a: b, 1: c}",
            "!!python/name:x",
            "*a",
            "&a b",
        ]
    ),
    st.text(max_size=6),
)
KEY = st.sampled_from(["val", "path", "names", "nc", "kpt_shape", "train", "?", "<<", "'val'"])


@given(pairs=st.lists(st.tuples(KEY, VALUE), max_size=6))
def test_any_file_is_places_and_names_or_one_line(tmp_path_factory: pytest.TempPathFactory, pairs: list) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = "val: images\n" + "".join(f"{key}: {value}\n" for key, value in pairs if key != "val")
    path = folder / "data.yaml"
    path.write_bytes(text.encode(errors="replace"))
    try:
        found = data_yaml.read(path, "val")
    except DatasetError as error:
        assert "\n" not in str(error)  # noqa: PT017  either is right
        assert "data.yaml" in str(error)  # noqa: PT017
        return
    assert found.places
    assert found.class_names is None or all(name.strip() for name in found.class_names)


@given(content=st.binary(max_size=80))
def test_any_bytes_are_a_data_yaml_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "data.yaml"
    path.write_bytes(b"val: images\n" + content)
    with contextlib.suppress(DatasetError):
        assert data_yaml.read(path, "val").places
