from __future__ import annotations

import json

import pytest
from desk import IMAGES, desk

from vajra_edge.__main__ import main


@pytest.fixture
def weights(tmp_path):
    return desk(tmp_path / "files")


def test_json_is_one_document_on_one_line(weights, capsys):
    assert main(["val", f"model={weights}", f"data={weights.parent / 'data.yaml'}", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    made = json.loads(line)
    assert made["map50_95"] == pytest.approx(1.0)
    assert made["map50"] == pytest.approx(1.0)
    assert made["images"] == IMAGES
    assert set(made["speed_ms"]) == {"preprocess", "inference", "postprocess"}
    assert [one["name"] for one in made["per_class"]] == ["person", "car"]


def test_people_see_a_table_by_class(weights, capsys):
    assert main(["val", "--model", str(weights), "--data", str(weights.parent / "data.yaml"), "--half"]) == 0
    said = capsys.readouterr().out
    assert "person" in said
    assert "1.000" in said
    assert f"{IMAGES} images" in said


def test_mistakes_are_one_line(weights, capsys):
    assert main(["val", f"model={weights}", "data=none.yaml"]) == 1
    assert main(["val", f"model={weights}", f"data={weights.parent / 'images' / '0.png'}", "batch=3"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "none.yaml" in said[0]
    assert "batch 3 is above the 1" in said[1]
