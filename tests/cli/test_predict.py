from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import tiny
from desk import CLIP_FRAMES, desk
from fixed import network

from vajra_edge.__main__ import main


@pytest.fixture
def weights(tmp_path, monkeypatch):
    made = desk(tmp_path / "files")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made


def test_json_is_one_document_on_one_line_and_writes_no_files(weights, capsys, tmp_path):
    assert main(["predict", f"model={weights}", f"source={weights.parent / 'images' / '0.png'}", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    (image,) = json.loads(line)["images"]
    assert image["path"].endswith("0.png")
    assert len(image["detections"]) == 6
    assert {"class_id", "class", "confidence", "xyxy"} <= set(image["detections"][0])
    confidence = image["detections"][0]["confidence"]
    assert confidence != round(confidence, 4)
    assert list((tmp_path / "work").iterdir()) == []


def test_people_see_a_line_for_each_image_and_where_copies_lie(weights, capsys, tmp_path):
    words = [f"source={weights.parent / 'clip.mp4'}", "classes=person", "conf=0.5"]
    assert main(["predict", "--model", str(weights), *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sum(" frame " in line for line in said) == CLIP_FRAMES
    assert any("2 person" in line and "car" not in line for line in said)
    assert "saved in runs/predict" in said[-1]
    assert (tmp_path / "work" / "runs" / "predict" / "clip.mp4").is_file()


def test_save_can_be_refused_and_json_can_save(weights, tmp_path, capsys):
    source = f"source={weights.parent / 'images' / '0.png'}"
    assert main(["predict", f"model={weights}", source, "save=False"]) == 0
    assert not (tmp_path / "work" / "runs").exists()
    assert main(["predict", f"model={weights}", source, "save=True", "--json"]) == 0
    assert (tmp_path / "work" / "runs" / "predict" / "0.png").is_file()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["images"]


def test_mistakes_are_one_line(weights, capsys):
    for words in (["source=none.jpg"], ["source=."], ["source=x", "iou=2"], ["source=x", "clases=0"]):
        assert main(["predict", f"model={weights}", *words]) in {1, 2}
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("1", "classes=1 is both class id 1 (90) and the name of class 0; type 0 for the name, or 90 for id 1"),
        ("7", "classes: '7' is not one"),
    ],
)
def test_a_class_that_may_be_an_id_or_a_name_is_asked_back(tmp_path, capsys, classes, told):
    net = network(tmp_path / "n.onnx", ["1", "90"], [(0, 0.9, 16, 16, 16, 16), (1, 0.9, 48, 48, 16, 16)])
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    words = ["predict", f"model={net}", f"source={tmp_path / 'a.png'}", "save=False"]
    assert main([*words, "classes=0,90"]) == 0
    assert "1 1, 1 90" in capsys.readouterr().out
    assert main([*words, f"classes={classes}"]) == 1
    assert told in capsys.readouterr().err


def test_a_picture_whose_scores_are_no_numbers_is_one_line_and_no_empty_scene(weights, capsys, tmp_path):
    dazzled, picture = tmp_path / "dazzled.onnx", tmp_path / "white.png"
    dazzled.write_bytes(tiny.dazzled(weights.read_bytes()))
    cv2.imwrite(str(picture), np.full((64, 64, 3), 255, np.uint8))
    assert main(["predict", f"model={dazzled}", f"source={picture}", "save=False"]) == 1
    said = capsys.readouterr()
    assert "white.png' are not finite; choose a higher precision" in said.err
    assert said.err.count("\n") == 1
    assert "nothing" not in said.out
