"""What users bring to predict, val and export as datasets and labels, with networks whose boxes are known."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from fixed import SIDE_PX, Row, network
from photos import cut, encoded, texture

from vajra_edge import Vajra
from vajra_edge.errors import CalibrationError, DatasetError, SourceError
from vajra_edge.quantization.calibration_set import CalibrationSet

BLACK = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
FIRST, SECOND, THIRD = (16, 16, 19.2, 19.2), (48, 48, 19.2, 19.2), (16, 48, 19.2, 19.2)
"""Boxes of the networks, and of the labels that they get all right: cx, cy, w, h in pixels."""
LINES = ("0 0.25 0.25 0.3 0.3", "1 0.75 0.75 0.3 0.3", "2 0.25 0.75 0.3 0.3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), BLACK)
    return tmp_path


def found(folder: Path, names: list[str], *boxes: tuple[float, ...]) -> Vajra:
    """A network that finds the n-th box as class n."""
    rows: list[Row] = [(at % len(names), 0.9, *box) for at, box in enumerate(boxes)]
    return Vajra(network(folder / "network.onnx", names, rows))


def labelled(folder: Path, *lines: str, yaml: str = "val: images\n") -> Path:
    (folder / "labels" / "a.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(yaml)
    return folder / "data.yaml"


def counted(report) -> dict[str, int]:
    return {one.reason: one.count for one in (*report.left_out, *report.read_as)}


@pytest.mark.parametrize(
    ("network_names", "yaml_names", "lines"),
    [
        (["part", "part", "washer"], ["part", "part", "washer"], LINES),
        (["part", "part", "washer"], None, LINES),
        (["bolt", "nut", "washer"], ["Bolt", "NUT", " washer"], LINES),
        (["traffic light", "stop sign", "car"], ["Traffic_Light", "stop  sign", "Car"], LINES),
        (
            ["bolt", "nut", "washer"],
            ["washer", "bolt", "nut"],
            ("1 .25 .25 .3 .3", "2 .75 .75 .3 .3", "0 .25 .75 .3 .3"),
        ),
        (["no", "yes", "1e3"], ["no", "yes", "1e3"], LINES),
    ],
)
def test_a_network_that_is_right_scores_one_however_its_classes_are_named(folder, network_names, yaml_names, lines):
    names = "" if yaml_names is None else "names:\n" + "".join(f"  - {name}\n" for name in yaml_names)
    data = labelled(folder, *lines, yaml=f"val: images\n{names}")
    report = found(folder, network_names, FIRST, SECOND, THIRD).val(data)
    assert report.map50_95 == pytest.approx(1.0)
    assert [one.name for one in report.per_class] == network_names


def test_classes_of_other_names_are_scored_only_where_somebody_says_by_number(folder):
    data = labelled(folder, *LINES, yaml="val: images\nnames: [vis, mutter, washer]\n")
    net = found(folder, ["bolt", "nut", "washer"], FIRST, SECOND, THIRD)
    with pytest.raises(DatasetError, match=r"does not know vis, mutter; .*left: bolt, nut; .*pass by_number=True"):
        net.val(data)
    assert net.val(data, by_number=True).map50_95 == pytest.approx(1.0)


def coco_file(
    folder: Path, images: list[tuple[int, str, int, int]], boxes: list[tuple[int, list[int]]], **more
) -> Path:
    content = {
        "images": [{"id": i, "file_name": name, "width": w, "height": h} for i, name, w, h in images],
        "annotations": [
            {"id": at, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0} for at, (i, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "a"}],
        **more,
    }
    path = folder / "images" / "a.json"
    path.write_text(json.dumps(content))
    return path


UPPER, LOWER = [8, 8, 16, 16], [40, 40, 16, 16]


@pytest.fixture
def pair(folder: Path) -> Vajra:
    """Two pictures in a folder, and a network that finds two objects in each."""
    cv2.imwrite(str(folder / "images" / "b.png"), BLACK)
    return Vajra(network(folder / "n.onnx", ["a"], [(0, 0.9, 16, 16, 16, 16), (0, 0.8, 48, 48, 16, 16)]))


def test_objects_of_one_picture_under_two_ids_are_joined(folder, pair):
    images = [(1, "a.png", 64, 64), (2, "a.png", 64, 64)]
    report = pair.val(coco_file(folder, images, [(1, UPPER), (1, LOWER), (2, UPPER)]))
    assert report.map50_95 == pytest.approx(1.0)
    assert (report.scores.images, report.scores.objects) == (1, 2)
    assert counted(report) == {"equal_object": 1, "picture_ids_joined": 1}


def test_one_id_for_two_pictures_is_refused(folder, pair):
    with pytest.raises(DatasetError, match=r"image id 1 is there twice, for a\.png and b\.png"):
        pair.val(coco_file(folder, [(1, "a.png", 64, 64), (1, "b.png", 64, 64)], [(1, UPPER)]))


def test_a_picture_that_was_shrunk_after_it_was_labelled_is_refused(folder, pair):
    with pytest.raises(DatasetError, match=r"a\.png \(128 x 128 in the labels, 64 x 64 in the file\)"):
        pair.val(coco_file(folder, [(1, "a.png", 128, 128)], [(1, [16, 16, 32, 32])]))


def test_a_photo_that_was_labelled_lying_is_scored_as_it_is_shown(folder, pair):
    (folder / "images" / "e.jpg").write_bytes(encoded(np.zeros((64, 64, 3), np.uint8)[:48], orientation=6))
    upright = [(0, 8, 16, 16), (32, 40, 16, 16)]  # where the network finds something in 48 x 64 pixels
    lying = [(1, [y, 48 - x - w, h, w]) for x, y, w, h in upright]
    report = pair.val(coco_file(folder, [(1, "e.jpg", 64, 48)], lying))
    assert report.map50_95 == pytest.approx(1.0)
    assert counted(report) == {"turned_with_exif": 1}


def test_a_category_that_only_groups_the_others_needs_no_class(folder, pair):
    categories = [{"id": 0, "name": "all", "supercategory": "none"}, {"id": 1, "name": "a", "supercategory": "all"}]
    report = pair.val(coco_file(folder, [(1, "a.png", 64, 64)], [(1, UPPER), (1, LOWER)], categories=categories))
    assert report.map50_95 == pytest.approx(1.0)
    assert not report.left_out


def test_boxes_that_are_corners_are_refused_though_the_numbers_fit(folder, pair):
    corners = [(1, [20 + k, 30 + k, 60, 60]) for k in range(4)]
    with pytest.raises(DatasetError, match="4 of 4 boxes end outside their pictures"):
        pair.val(coco_file(folder, [(1, "a.png", 64, 64)], corners))


@pytest.mark.parametrize(
    ("lines", "yaml", "read"),
    [
        ([f"{line} 0.1 0.2 0.3 0.4" for line in LINES], "kpt_shape: [2, 2]\n", {"pose_as_box": 3}),
        ([f"{line} 0.1 0.2 2 0.9 0.9 0" for line in LINES], "", {"pose_as_box": 3}),
        (["0 0.1 0.1 0.4 0.1 0.4 0.4 0.1 0.4", *LINES[1:]], "", {"polygon_as_box": 1}),
        ([f"{line} 0.93" for line in LINES], "", {"confidence_ignored": 3}),
        ([f"{LINES[0]} 0.93 7", *LINES[1:]], "", {"confidence_ignored": 1, "track_id_ignored": 1}),
    ],
)
def test_labels_of_another_task_give_their_boxes_and_are_named(folder, lines, yaml, read):
    data = labelled(folder, *lines, yaml=f"val: images\n{yaml}")
    report = found(folder, ["bolt", "nut", "washer"], FIRST, SECOND, THIRD).val(data)
    assert report.map50_95 == pytest.approx(1.0)
    assert counted(report) == read


def test_what_is_left_out_is_counted_in_report_and_json(folder):
    for name in ("b.jpg", "c.jpg"):
        (folder / "images" / name).write_bytes(encoded(texture()))
        cut(folder / "images" / name, 0.6)
    (folder / "images" / "d.png").write_bytes(b"")
    (folder / "images" / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / "images" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    cv2.imwrite(str(folder / "images" / "e.png"), BLACK)
    (folder / "labels" / "gone.txt").write_text(LINES[0])
    data = labelled(folder, *LINES, LINES[0], "1 0.5 0.5 0 0.1")
    report = found(folder, ["bolt", "nut", "washer"], FIRST, SECOND, THIRD).val(data)
    assert report.background == 1
    assert (report.scores.images, report.scores.objects) == (2, 3)
    expected = {
        "picture_cut_short": 2,
        "picture_unreadable": 1,
        "labels_without_picture": 1,
        "equal_object": 1,
        "box_without_area": 1,
    }
    assert counted(report) == expected
    told = json.loads(json.dumps(report.to_json()))
    assert {one["reason"]: one["count"] for one in told["left_out"]} == expected
    assert told["left_out"][0]["first"] == [str(folder / "images" / name) for name in ("b.jpg", "c.jpg")]


def test_a_class_id_that_the_network_lacks_is_told_with_file_and_line_before_anything_runs(folder):
    net = found(folder, ["a", "b"], FIRST, SECOND)
    for number in range(3):
        (folder / "images" / f"never-read{number}.jpg").write_bytes(b"no picture")
    for yaml in ("val: images\nnames: [a, b]\n", "val: images\nnc: 2\n", "val: images\n"):
        with pytest.raises(DatasetError, match=r"a\.txt:2: class 7, known are 0 to 1"):
            net.val(labelled(folder, LINES[0], "7 .5 .5 .1 .1", yaml=yaml))
    with pytest.raises(DatasetError, match=r"a\.txt:2: class 7"):
        net.val(folder / "images")


@pytest.mark.parametrize("line", ["7 .5 .5 .1 .1 .9", "nonsense", "0 " + "0.5 " * 55])
def test_calibration_reads_no_labels(folder, line):
    data = labelled(folder, line, yaml="val: images\nnames: [a, b]\n")
    assert len(list(CalibrationSet.collect(data).inputs((64, 64)))) == 1


def test_a_photo_whose_end_is_missing_is_left_out_of_calibration_by_name(folder, caplog):
    photo = folder / "images" / "b.jpg"
    photo.write_bytes(encoded(texture()))
    assert len(CalibrationSet.collect(folder / "images")) == 2
    cut(photo, 0.5)
    images = CalibrationSet.collect(folder / "images")
    assert len(list(images.inputs((64, 64)))) == len(images) == 1
    assert f"{photo}: the end of the file is missing" in caplog.text
    (folder / "images" / "a.png").unlink()
    with pytest.raises(CalibrationError, match="the end of every picture is missing; copy them again"):
        CalibrationSet.collect(folder / "images")


def test_predict_says_that_the_end_of_a_photo_is_missing(folder, caplog):
    photo = folder / "images" / "b.jpg"
    photo.write_bytes(encoded(texture()))
    cut(photo, 1 / 3)
    net = found(folder, ["a"], FIRST)
    (one,) = net.predict(photo)
    assert one.image.shape == (300, 400, 3)
    assert one.cut_short
    assert one.to_json()["cut_short"]
    assert f"{photo}: the end of the file is missing" in caplog.text
    caplog.clear()
    assert [found.cut_short for found in net.predict(folder / "images")] == [False, True]
    assert "b.jpg" in caplog.text


def test_predict_and_val_agree_on_pictures_that_no_camera_sends(folder):
    width, height = 30000, 2400  # a panorama of more pixels than a frame may have
    (folder / "images" / "a.png").unlink()
    cv2.imwrite(str(folder / "images" / "a.jpg"), np.zeros((height, width, 3), np.uint8))
    data = labelled(folder, "0 .25 .25 .3 .3")
    net = found(folder, ["a"], FIRST)
    assert len(net.predict(folder / "images" / "a.jpg")[0]) == 1
    assert net.val(data).scores.images == 1
    assert len(net.predict(np.zeros((height, width, 3), np.uint8))[0]) == 1


def test_a_picture_that_is_too_large_is_one_line_everywhere(folder, monkeypatch):
    monkeypatch.setattr("vajra_edge.media.image_file.MAX_PICTURE_PX", 4000)
    data = labelled(folder, LINES[0])
    net = found(folder, ["a"], FIRST)
    for call in (
        lambda: net.predict(folder / "images" / "a.png"),
        lambda: net.predict(BLACK),
        lambda: net.val(data),
        lambda: list(CalibrationSet.collect(data).inputs((64, 64))),
    ):
        with pytest.raises((SourceError, DatasetError, CalibrationError), match="cut it into tiles"):
            call()


def test_a_data_yaml_is_read_alike_from_where_it_lies_and_by_its_full_path(folder, monkeypatch):
    (folder / "images" / "val").mkdir()
    (folder / "labels" / "val").mkdir()
    (folder / "images" / "a.png").rename(folder / "images" / "val" / "a.png")
    (folder / "labels" / "val" / "a.txt").write_text(LINES[0])
    (folder / "images" / "data.yaml").write_text("val: val\nnames: {'0': a}\nnc: '1'\n")
    net = found(folder, ["a"], FIRST)
    monkeypatch.chdir(folder / "images")
    assert net.val("data.yaml").map50_95 == pytest.approx(1.0)
    monkeypatch.chdir(folder)
    assert net.val(folder / "images" / "data.yaml").map50_95 == pytest.approx(1.0)


@pytest.mark.parametrize("line", ["images/*.png", "images", "./images/a.png", ".\\images\\a.png", "set/images/a.png"])
def test_a_list_holds_files_folders_and_patterns(folder, monkeypatch, line):
    labelled(folder, LINES[0], yaml="val: val.txt\n")
    (folder / "val.txt").write_text(line + "\n")
    (folder.parent / "set").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    net = found(folder, ["a"], FIRST)
    try:
        assert net.val(folder / "data.yaml").map50_95 == pytest.approx(1.0)
        assert len(net.predict(folder / "val.txt")) == 1
    finally:
        os.unlink(folder.parent / "set")  # noqa: PTH108  the link, not the folder
