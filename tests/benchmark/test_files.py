from __future__ import annotations

import json

import pytest
from benchmark.known import figures

from vajra_edge.__main__ import main
from vajra_edge.benchmark import files
from vajra_edge.errors import VajraError

STEADY = [20.0, 20.2, 19.9, 20.1, 20.0, 19.8]


@pytest.fixture
def two(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, by in zip(paths, (1.0, 0.8), strict=True):
        path.write_bytes(files.written(figures([one * by for one in STEADY])))
    return paths


def test_what_was_written_is_read_again(two):
    assert files.read(two[0]) == figures(STEADY)


def test_a_field_of_a_later_release_is_passed_over(two):
    content = json.loads(two[0].read_bytes()) | {"later": 1}
    two[0].write_text(json.dumps(content))
    assert files.read(two[0]) == figures(STEADY)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"[]", "holds no figures of bench; write it with bench --json"),
        (b'{"frame_ms": 1}', "holds no figures of bench; write it with bench --json"),
        (b'{"schema": 99}', "has figures of schema 99, and this release reads 1; measure again"),
        (b'{"schema": 1}', "holds no figures of bench: version: Field required; write it"),
    ],
)
def test_what_is_no_figures_is_told_in_one_line(two, content, told):
    two[0].write_bytes(content)
    with pytest.raises(VajraError) as refused:
        files.read(two[0])
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_is_huge(tmp_path, monkeypatch, two):
    with pytest.raises(VajraError, match=r"absent\.json cannot be read: No such file or directory; check the path"):
        files.read(tmp_path / "absent.json")
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    with pytest.raises(VajraError, match="too large to be figures"):
        files.read(two[0])


def test_two_files_are_compared_for_a_person(two, capsys):
    assert main(["bench", "--compare", *map(str, two)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "B is faster than A: -20.0 % of frame_ms" in out
    assert "two runs at two times" in out


def test_two_files_are_compared_for_a_program(two, capsys):
    assert main(["bench", "--json", "--compare", *map(str, two)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"].startswith("B is faster than A")
    assert told["by_turns"] is False
    assert told["figures"][0]["figure"] == "frame_ms"
    assert told["a"]["schema"] == 1


def test_files_of_two_machines_are_refused_by_name_unless_somebody_insists(two, capsys):
    content = json.loads(two[1].read_bytes())
    content["host"]["cpu"] = "Cortex-A78AE"
    two[1].write_text(json.dumps(content))
    assert main(["bench", "--compare", *map(str, two)]) == 1
    told = capsys.readouterr().err
    assert "cpu: Xeon and Cortex-A78AE; measure both alike, or add --anyway" in told
    assert main(["bench", "--anyway", "--compare", *map(str, two)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not alike: cpu: Xeon and Cortex-A78AE" in out
    assert "B is faster than A: -20.0 %" in out


def test_the_schema_names_every_field():
    schema = files.json_schema()
    assert set(schema["properties"]) == set(vars(figures(STEADY)))
