from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.datasets import labels
from vajra_edge.errors import DatasetError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("/d/images/a.jpg", "/d/labels/a.txt"),
        ("/images/train/images/a.b.png", "/images/train/labels/a.b.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
        ("images/images", "labels/images.txt"),
    ],
)
def test_labels_lie_where_upstream_looks_for_them(image, text):
    assert labels.yolo_path(Path(image)) == Path(text)


def test_boxes_and_polygons_become_pixels(tmp_path):
    path = written(tmp_path, "\ufeff0 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.3 0.2 0.2 0.8\n")
    truth = labels.read_yolo(path, (200, 100), 2)
    np.testing.assert_allclose(truth.xyxy, [[80, 30, 120, 70], [20, 20, 60, 80]], rtol=1e-6)
    np.testing.assert_array_equal(truth.class_id, [0, 1])
    assert not truth.crowd.any()
    assert (truth.xyxy.dtype, truth.class_id.dtype) == (np.float32, np.int32)


def test_equal_lines_count_once_and_an_empty_file_is_an_empty_scene(tmp_path):
    assert len(labels.read_yolo(written(tmp_path, "0 .5 .5 .2 .2\n" * 3), (10, 10), None)) == 1
    assert labels.read_yolo(written(tmp_path, "\n"), (10, 10), None).xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2", "4 numbers, expected 5 or a polygon"),
        ("0 0.5 0.5 0.2 0.2 0.9", "6 numbers, expected 5 or a polygon"),
        ("person 0.5 0.5 0.2 0.2", "not numbers: 'person 0.5 0.5 0.2 0.2'"),
        ("2 0.5 0.5 0.2 0.2", "class 2, known are 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "class -1, known are 0 to 1"),
        ("0.5 0.5 0.5 0.2 0.2", r"class 0\.5, known are"),
        ("inf 0.5 0.5 0.2 0.2", "class inf, known are"),
        ("nan 0.5 0.5 0.2 0.2", "class nan, known are"),
        ("0 320 240 64 64", "coordinates outside 0 to 1: '0 320 240 64 64'"),
        ("0 nan 0.5 0.2 0.2", "coordinates outside 0 to 1"),
        ("0 0.5 0.5 -0.2 0.2", "coordinates outside 0 to 1"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_number(tmp_path, line, words):
    path = written(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(DatasetError, match=f"labels.txt:3: {words}"):
        labels.read_yolo(path, (640, 480), 2)


def test_without_names_any_class_is_known_from_zero(tmp_path):
    assert labels.read_yolo(written(tmp_path, "999 .5 .5 .2 .2"), (10, 10), None).class_id[0] == 999
    with pytest.raises(DatasetError, match="known are whole numbers from 0"):
        labels.read_yolo(written(tmp_path, "-1 .5 .5 .2 .2"), (10, 10), None)


@given(text=st.binary(max_size=60))
def test_any_bytes_are_labels_or_one_error(tmp_path_factory, text):
    with contextlib.suppress(DatasetError):
        truth = labels.read_yolo(written(tmp_path_factory.getbasetemp(), text), (64, 64), 3)
        assert np.isfinite(truth.xyxy).all()


def test_files_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        labels.read_text(tmp_path / "absent.txt", 10)
    with pytest.raises(DatasetError, match="11 bytes, the limit is 10"):
        labels.read_text(written(tmp_path, "a" * 11), 10)
    with pytest.raises(DatasetError, match="not UTF-8"):
        labels.read_text(written(tmp_path, b"\xff\xfe"), 10)


def coco(**changes: object) -> dict[str, object]:
    return {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 5.5, 5], "iscrowd": 1},
        ],
        **changes,
    }


def as_file(folder: Path, content: object) -> Path:
    return written(folder, json.dumps(content))


def test_coco_categories_become_ids_in_their_order(tmp_path):
    found = labels.read_coco(as_file(tmp_path, coco()), None)
    assert found.class_names == ("person", "dog")
    assert [len(found.truths[name]) for name in ("a.jpg", "b.jpg")] == [0, 2]
    np.testing.assert_array_equal(found.truths["b.jpg"].xyxy, np.float32([[1, 2, 11, 22], [0, 0, 5.5, 5]]))
    np.testing.assert_array_equal(found.truths["b.jpg"].class_id, [1, 0])
    np.testing.assert_array_equal(found.truths["b.jpg"].crowd, [False, True])


def test_names_of_the_yaml_decide_the_ids(tmp_path):
    found = labels.read_coco(as_file(tmp_path, coco()), ("cat", "dog", "person"))
    np.testing.assert_array_equal(found.truths["b.jpg"].class_id, [1, 2])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not a COCO annotation file"),
        ({"images": []}, "not a COCO annotation file: KeyError 'categories'"),
        (coco(annotations=[{"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]), "KeyError 1"),
        (coco(annotations=[{"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 1]}]), "ValueError"),
        (coco(annotations=[{"id": 3, "image_id": 9, "category_id": 5, "bbox": [0, 0, 1, 1]}]), "KeyError 5"),
    ],
)
def test_a_wrong_coco_file_says_what_is_wrong(tmp_path, content, words):
    with pytest.raises(DatasetError, match=words):
        labels.read_coco(as_file(tmp_path, content), None)


def test_a_coco_category_that_the_names_lack_is_named(tmp_path):
    with pytest.raises(DatasetError, match="annotation 1 has category 'dog', which the names lack"):
        labels.read_coco(as_file(tmp_path, coco()), ("person",))


def test_a_coco_file_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="not JSON"):
        labels.read_coco(written(tmp_path, "images:"), None)
