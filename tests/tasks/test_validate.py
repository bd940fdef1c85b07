from __future__ import annotations

import json
from contextlib import closing

import cv2
import numpy as np
import pytest
import tiny
from desk import IMAGES, SIDE_PX, desk

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.datasets.dataset import open_dataset
from vajra_edge.errors import DatasetError, NotFinite, VajraError
from vajra_edge.geometry.letterbox import LetterboxTransform
from vajra_edge.graph import signature
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.tasks.val import rounded_up, validate


@pytest.fixture
def runner(tmp_path):
    content = tiny.network(SIDE_PX)
    made = OnnxRuntime().load(content, signature.read(content), EngineSpec())
    yield made
    made.close()


def scored(runner, data):
    done = []
    return validate(runner, open_dataset(data), 0.001, 0.7, 1, done.append), sum(done)


def test_a_coco_file_whose_categories_come_in_another_order_is_matched_by_name(runner, tmp_path):
    desk(tmp_path / "files")
    images, annotations = [], []
    for number in range(IMAGES):
        scene = tiny.scene(SIDE_PX, seed=number)
        images.append({"id": number, "file_name": f"{number}.png"})
        for label, (left, top, right, bottom) in zip(scene.class_id, scene.xyxy.tolist(), strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 9 - int(label), "bbox": box})
    categories = [{"id": 9, "name": "person"}, {"id": 8, "name": "car"}]
    path = tmp_path / "files" / "images" / "instances_val.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    report, done = scored(runner, path)
    assert report.map50_95 == pytest.approx(1.0)
    assert done == IMAGES


def test_a_missed_object_lowers_the_figures(runner, tmp_path):
    desk(tmp_path / "files")
    label = tmp_path / "files" / "labels" / "0.txt"
    label.write_text(label.read_text() + "0 0.02 0.02 0.02 0.02\n")
    report, _ = scored(runner, tmp_path / "files" / "data.yaml")
    assert 0.9 < report.map50_95 < 1.0


def test_other_names_of_as_many_classes_are_matched_by_number_where_that_is_asked_for(runner, tmp_path):
    desk(tmp_path / "files")
    yaml = tmp_path / "files" / "data.yaml"
    yaml.write_text(yaml.read_text().replace("car", "voiture"))
    with pytest.raises(DatasetError, match=r"it does not know voiture; the network's that are left: car; .*by_number"):
        scored(runner, yaml)
    report = validate(runner, open_dataset(yaml), 0.001, 0.7, 1, lambda _: None, by_number=True)
    assert report.map50_95 == pytest.approx(1.0)
    assert "matched by number" in report.notes[0]


@pytest.mark.parametrize("value", ["False", 1, None])
def test_by_number_is_a_switch(runner, tmp_path, value):
    desk(tmp_path / "files")
    with pytest.raises(VajraError, match=f"by_number {value!r} is neither True nor False"):
        validate(runner, open_dataset(tmp_path / "files" / "data.yaml"), 0.001, 0.7, 1, lambda _: None, by_number=value)


def test_what_cannot_be_scored_is_refused(runner, tmp_path):
    desk(tmp_path / "files")
    with pytest.raises(DatasetError, match="no labels; val needs images with labels"):
        scored(runner, tmp_path / "files" / "clip.mp4")


def test_a_class_that_the_network_does_not_have_is_listed_and_costs_nothing_without_objects(runner, tmp_path):
    desk(tmp_path / "files")
    yaml = tmp_path / "files" / "data.yaml"
    yaml.write_text(yaml.read_text().replace("[person, car]", "[person, car, dog]"))
    report, _ = scored(runner, yaml)
    assert report.map50_95 == pytest.approx(1.0)
    assert [(one.reason, one.count, one.first) for one in report.left_out] == [("class_unmatched", 1, ("dog",))]


def test_the_shorter_side_is_rounded_up_as_in_upstreams_val():
    assert LetterboxTransform.of((640, 425), (416, 416)).height_px == 276
    place = rounded_up((640, 425), (416, 416))
    assert (place.width_px, place.height_px, place.top_px) == (416, 277, 69)
    assert rounded_up((100, 200), (416, 416)).width_px == 208
    assert rounded_up((640, 480), (416, 416)) == LetterboxTransform.of((640, 480), (416, 416))


def test_a_picture_whose_scores_are_no_numbers_is_named_and_not_scored_as_missed(tmp_path):
    desk(tmp_path / "files")
    cv2.imwrite(str(tmp_path / "files" / "images" / "0.png"), np.full((SIDE_PX, SIDE_PX, 3), 255, np.uint8))
    content = tiny.dazzled(tiny.network(SIDE_PX))
    dazzled = OnnxRuntime().load(content, signature.read(content), EngineSpec())
    with closing(dazzled), pytest.raises(NotFinite, match=r"scores for '.*0\.png' are not finite"):
        scored(dazzled, tmp_path / "files" / "data.yaml")
