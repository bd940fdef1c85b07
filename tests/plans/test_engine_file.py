"""``.engine`` files: upstream's header, read with limits and written in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.errors import PlanError
from vajra_edge.plans import engine_file
from vajra_edge.plans.engine_file import EngineFile, plan_header

PLAN = b"ftrt" + bytes(20) + bytes([10, 3, 0, 26]) + bytes(100)
METADATA = {
    "names": {"0": "person", "1": "Fußgänger"},
    "stride": 32,
    "img_size": [640, 640],
    "batch": 8,
    "task": "detect",
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "nano.engine"
    engine_file.write(path, EngineFile(METADATA, PLAN))
    content = path.read_bytes()
    length = int.from_bytes(content[:4], "little")
    assert content[4 : 4 + length].startswith(b'{"names"')
    assert content[4 + length :] == PLAN
    assert engine_file.read(path) == EngineFile(METADATA, PLAN)
    assert list(tmp_path.iterdir()) == [path]


def test_a_plan_without_a_header_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "plain.engine"
    path.write_bytes(PLAN)
    assert engine_file.read(path) == EngineFile({}, PLAN)


@pytest.mark.parametrize(
    ("plan", "text"),
    [(PLAN, "TensorRT 10.3.0.26"), (b"v" + PLAN[1:24] + bytes([1, 7, 1, 116]), "TensorRT-RTX 1.7.1.116")],
)
def test_a_plan_names_its_builder(plan: bytes, text: str) -> None:
    assert str(plan_header(plan)) == text


@pytest.mark.parametrize(
    ("version", "same"),
    [("10.3.0", True), ("10.3.0.26", True), ("10.3.0.27", False), ("10.3.1", False), ("10.30.0", False), ("", False)],
)
def test_a_release_is_compared_in_the_parts_that_both_name(version: str, same: bool) -> None:
    assert plan_header(PLAN).same_release(version) is same


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "metadata of 0 bytes in a file of 0"),
        (b"\x10\x00", "metadata of 16 bytes in a file of 2"),
        ((1 << 21).to_bytes(4, "little") + bytes(1 << 21), "metadata of 2097152 bytes"),
        (b"\xff\xff\xff\xff" + PLAN, "metadata of 4294967295 bytes"),
        (b"\x02\x00\x00\x00[]" + PLAN, "the metadata is a list, not an object"),
        (b"\x05\x00\x00\x00{'a'}" + PLAN, "the metadata is not JSON"),
        (b"\x14\x00\x00\x00" + b"[" * 20 + PLAN, "the metadata is not JSON"),
        ((200_000).to_bytes(4, "little") + b"[" * 200_000 + PLAN, "the metadata is not JSON"),
        (b"\x02\x00\x00\x00{}" + b"PK\x03\x04" + PLAN, "not a TensorRT plan: 132 bytes that begin with 50 4b 03 04"),
        (b"\x02\x00\x00\x00{}", "not a TensorRT plan: 0 bytes that begin with nothing"),
        (b"ftrt" + bytes(10), "not a TensorRT plan: 14 bytes"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "damaged.engine"
    path.write_bytes(content)
    with pytest.raises(PlanError) as raised:
        engine_file.read(path)
    assert reason in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        found = engine_file.parse(content)
    except PlanError:
        return
    assert found.plan[:4] in engine_file.MAGIC


def test_an_absent_file_and_a_huge_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        engine_file.read(tmp_path / "absent.engine")
    huge = tmp_path / "huge.engine"
    with huge.open("wb") as file:
        os.truncate(file.fileno(), engine_file.MAX_FILE_BYTES + 1)
    with pytest.raises(PlanError, match="more than the limit"):
        engine_file.read(huge)


def test_an_old_file_survives_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "nano.engine"
    engine_file.write(path, EngineFile(METADATA, PLAN))
    for bad in (EngineFile({"x": object()}, PLAN), EngineFile({"x": float("nan")}, PLAN), EngineFile({}, b"no plan")):
        with pytest.raises(PlanError):
            engine_file.write(path, bad)
    with pytest.raises(PlanError, match="more than the limit"):
        engine_file.write(path, EngineFile({"x": "y" * (1 << 20)}, PLAN))
    with pytest.raises(PlanError, match="cannot be written: No such file"):
        engine_file.write(tmp_path / "absent" / "nano.engine", EngineFile({}, PLAN))
    assert engine_file.read(path) == EngineFile(METADATA, PLAN)
