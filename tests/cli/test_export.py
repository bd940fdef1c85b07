from __future__ import annotations

import json

import pytest
from desk import SIDE_PX, desk

from vajra_edge.__main__ import main


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return desk(tmp_path / "files")


def test_json_is_one_document_on_one_line(weights, capsys):
    words = [f"model={weights}", "format=onnx", f"img_size={SIDE_PX},{SIDE_PX}", "half=True", "--json"]
    assert main(["export", *words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    made = json.loads(line)
    assert {"path", "precision", "target", "seconds", "verify"} <= set(made)
    assert made["path"] == str(weights.with_name("tiny.fp16.onnx"))
    assert (made["precision"], made["target"]) == ("fp16", "cpu")
    assert made["verify"]["passed"]
    assert made["seconds"] > 0


def test_people_are_told_what_was_made_and_what_to_do_next(weights, capsys):
    assert main(["export", "--model", str(weights), "--format", "onnx", "--img_size", str(SIDE_PX)]) == 0
    said = capsys.readouterr().out
    assert "tiny.fp32.onnx" in said
    assert "check: " in said
    assert "vajra-edge predict model=" in said


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["format=onx"], 1, "format 'onx' is not known; use engine or onnx"),
        (["fromat=onnx"], 2, "did you mean format?"),
        (["img_size=abc"], 2, "img_size=abc is not a size"),
        (["format=onnx", "img_size=640"], 1, "pass img_size=256,256"),
        (["format=engine", "device=cpu"], 1, "use format=onnx"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(weights, words, code, told, capsys):
    assert main(["export", f"model={weights}", *words]) == code
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert [path.name for path in weights.parent.glob("tiny*")] == ["tiny.onnx"]


def test_help_names_each_argument(capsys):
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    for name in ("format", "img_size", "half", "int8", "dynamic", "simplify", "workspace", "nms", "batch", "data"):
        assert f"--{name}" in said
    assert "key=value" in said
