from __future__ import annotations

import json
import os

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
    assert (made["background"], made["left_out"], made["read_as"]) == (0, [], [])


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


def test_what_is_left_out_or_read_otherwise_is_told_by_reason(weights, capsys):
    folder = weights.parent
    (folder / "images" / "0.png").write_bytes(b"")
    (folder / "labels" / "1.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n0 0.5 0.5 0 0.1\n")
    (folder / "labels" / "2.txt").unlink()
    assert main(["val", f"model={weights}", f"data={folder / 'data.yaml'}"]) == 0
    said = capsys.readouterr().out
    assert f"left out: pictures that cannot be decoded: 1 ({folder / 'images' / '0.png'})" in said
    assert "left out: boxes without an area: 1 (" in said
    assert "read: label lines with a confidence, which is not used: 1 (" in said
    assert f"{IMAGES - 1} images, 1 without objects" in said
    assert main(["val", f"model={weights}", f"data={folder / 'data.yaml'}", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert {one["reason"]: one["count"] for one in made["left_out"]} == {"picture_unreadable": 1, "box_without_area": 1}
    assert [one["reason"] for one in made["read_as"]] == ["confidence_ignored"]


def test_classes_of_other_names_are_scored_by_number_only_where_that_is_typed(weights, capsys):
    yaml = weights.parent / "data.yaml"
    yaml.write_text(yaml.read_text().replace("car", "voiture"))
    assert main(["val", f"model={weights}", f"data={yaml}"]) == 1
    assert "does not know voiture" in (line := capsys.readouterr().err)
    assert "pass by_number=True" in line
    assert main(["val", f"model={weights}", f"data={yaml}", "by_number=True"]) == 0
    assert "note: classes were matched by number" in capsys.readouterr().out


def test_names_that_are_no_utf8_are_told_in_ascii(weights, capsys):
    folder = weights.parent
    os.rename(folder / "images" / "0.png", os.fsencode(folder / "images") + b"/caf\xe9.png")  # noqa: PTH104  bytes
    (folder / "labels" / "0.txt").unlink()
    with open(os.fsencode(folder / "images") + b"/\xff.png", "wb"):  # noqa: PTH123  bytes
        pass
    assert main(["val", f"model={weights}", f"data={folder / 'data.yaml'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"][0]["first"] == [f"{folder}/images/\\udcff.png"]
    assert main(["predict", f"model={weights}", f"source={folder / 'images'}", "--json"]) == 0
    paths = [image["path"] for image in json.loads(capsys.readouterr().out)["images"]]
    assert f"{folder}/images/caf\\udce9.png" in paths
    assert main(["predict", f"model={weights}", f"source={folder / 'images'}", "save=False"]) == 0
    assert "caf\\udce9.png" in capsys.readouterr().out
