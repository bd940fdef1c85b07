from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.datasets import coco
from vajra_edge.datasets.account import Account
from vajra_edge.datasets.labels import Drawn
from vajra_edge.errors import DatasetError


def content(**changes: object) -> dict[str, object]:
    return {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 5.5, 5], "iscrowd": 1},
        ],
        **changes,
    }


def one(**entry: object) -> dict[str, object]:
    """A file of one annotation."""
    usual = {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 9, 9]}
    return content(annotations=[{**usual, **entry}])


def opened(folder: Path, made: object, names: tuple[str, ...] | None = None) -> coco.CocoFile:
    path = folder / "instances.json"
    path.write_text(made if isinstance(made, str) else json.dumps(made))
    return coco.read(path, names)


def objects(folder: Path, made: object, names: tuple[str, ...] | None = None, account: Account | None = None):
    return opened(folder, made, names).objects(account if account is not None else Account())


def counts(account: Account) -> dict[str, int]:
    return {one.reason: one.count for one in (*account.left_out(), *account.read_as())}


def test_categories_become_ids_in_their_order(tmp_path):
    assert opened(tmp_path, content()).class_names == ("person", "dog")
    found = objects(tmp_path, content())
    assert [len(found[name]) for name in ("a.jpg", "b.jpg")] == [0, 2]
    np.testing.assert_array_equal(found["b.jpg"].xyxy, [[1, 2, 11, 22], [0, 0, 5.5, 5]])
    np.testing.assert_array_equal(found["b.jpg"].class_id, [1, 0])
    np.testing.assert_array_equal(found["b.jpg"].crowd, [False, True])


def test_names_of_the_yaml_decide_the_ids_however_they_are_spelled(tmp_path):
    found = objects(tmp_path, content(), ("cat", "Dog", "PERSON"))
    np.testing.assert_array_equal(found["b.jpg"].class_id, [1, 2])


@pytest.mark.parametrize(
    "changes",
    [
        {"images": [{"id": "7", "file_name": "a.jpg"}, {"id": "9", "file_name": "b.jpg"}]},
        {"images": [{"id": 7.0, "file_name": "./a.jpg"}, {"id": 9.0, "file_name": ".\\b.jpg"}]},
        {"categories": [{"id": "18", "name": "dog"}, {"id": "1", "name": "person"}]},
        {"categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 5, "name": "never used"}]},
        {"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}, {"id": 9, "file_name": "b.jpg"}]},
        {"info": None, "licenses": []},
    ],
)
def test_ids_and_names_are_read_as_programs_write_them(tmp_path, changes):
    found = objects(tmp_path, content(**changes))
    assert len(found["b.jpg"]) == 2
    np.testing.assert_array_equal(found["b.jpg"].xyxy[0], [1, 2, 11, 22])


def test_where_no_file_is_named_the_address_tells_folder_and_name(tmp_path):
    made = content(images=[{"id": 9, "coco_url": "http://images.cocodataset.org/val2017/b.jpg?size=full"}])
    assert [image.file_name for image in opened(tmp_path, made).images] == ["val2017/b.jpg"]


@pytest.mark.parametrize(
    ("entry", "box"),
    [
        ({"bbox": ["1.5", "2", "3", "4"]}, (1.5, 2, 4.5, 6)),
        ({"image_id": "9", "category_id": "1", "bbox": [1, 2, 3, 4]}, (1, 2, 4, 6)),
        ({"bbox": [], "segmentation": [[1, 2, 9, 2, 9, 8], [4, 4, 12, 4, 12, 5]]}, (1, 2, 12, 8)),
        ({"bbox": None, "segmentation": [["1", "2", "9", "2", "9", "8"]]}, (1, 2, 9, 8)),
    ],
)
def test_boxes_are_read_as_programs_write_them(tmp_path, entry, box):
    np.testing.assert_array_equal(objects(tmp_path, one(**entry))["b.jpg"].xyxy, [box])


@pytest.mark.parametrize(("crowd", "is_crowd"), [("0", False), ("1", True), (None, False), (True, True), (0.0, False)])
def test_a_crowd_is_one_however_it_is_written(tmp_path, crowd, is_crowd):
    assert objects(tmp_path, one(iscrowd=crowd))["b.jpg"].crowd[0] == is_crowd


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("packed", [True, False])
def test_the_box_around_a_mask_is_pycocotools(tmp_path, seed, packed):
    mask = pytest.importorskip("pycocotools.mask", reason="absent here: pycocotools")
    rng = np.random.default_rng(seed)
    drawn = np.zeros((30, 40), np.uint8, order="F")
    top, left = rng.integers(0, 20, 2)
    drawn[top : top + rng.integers(1, 31 - top), left : left + rng.integers(1, 20)] = 1
    drawn &= rng.integers(0, 2, drawn.shape, np.uint8) | (seed % 2)
    run_lengths = mask.encode(np.asfortranarray(drawn))
    counts_of = run_lengths["counts"].decode()
    if not packed:
        edges = np.flatnonzero(np.diff(drawn.ravel(order="F"), prepend=0))
        counts_of = np.diff([0, *edges.tolist(), drawn.size]).tolist()
    x, y, w, h = mask.toBbox(run_lengths)
    found = objects(tmp_path, one(bbox=[], segmentation={"size": [30, 40], "counts": counts_of}))["b.jpg"]
    np.testing.assert_array_equal(found.xyxy, [[x, y, x + w, y + h]])


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"bbox": [1, 1, 0, 5]}, "box_without_area"),
        ({"bbox": [1, 1, -4, 5]}, "box_without_area"),
        ({"bbox": [1, 1, float("nan"), 5]}, "box_without_area"),
        ({"bbox": [float("inf"), 1, 5, 5]}, "box_without_area"),
        ({"bbox": []}, "object_without_box"),
        ({"bbox": None, "segmentation": [], "keypoints": [1, 2, 2]}, "object_without_box"),
        ({"bbox": None, "segmentation": {"size": [4, 4], "counts": [16]}}, "object_without_box"),
        ({"image_id": 1}, "object_without_picture"),
    ],
)
def test_an_object_that_cannot_be_scored_is_counted_by_reason(tmp_path, entry, reason):
    account = Account()
    found = objects(tmp_path, one(**entry), account=account)
    assert [len(drawn) for drawn in found.values()] == [0, 0]
    assert counts(account) == {reason: 1}
    assert account.left_out()[0].first == ("annotation 3",)


BOXES = {"one": [0, 0, 9, 9], "other": [20, 20, 9, 9], "near_one": [0, 0, 9, 10]}


def two_ids(first: list[str], second: list[str]) -> dict[str, object]:
    entries = [(7, name) for name in first] + [(9, name) for name in second]
    return content(
        images=[{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "./a.jpg"}],
        annotations=[
            {"id": number, "image_id": image, "category_id": 1, "bbox": BOXES[name]}
            for number, (image, name) in enumerate(entries)
        ],
    )


@pytest.mark.parametrize(
    ("first", "second", "boxes", "expected"),
    [
        (["one"], ["other"], 2, {"picture_ids_joined": 1}),
        (["one", "other"], ["one"], 2, {"picture_ids_joined": 1, "equal_object": 1}),
        (["one"], [], 1, {"picture_ids_joined": 1}),
    ],
)
def test_objects_of_one_file_under_two_ids_are_joined(tmp_path, first, second, boxes, expected):
    account = Account()
    found = objects(tmp_path, two_ids(first, second), account=account)
    assert [len(drawn) for drawn in found.values()] == [boxes]
    assert counts(account) == expected


def test_two_drawings_of_the_same_objects_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.jpg is there under ids 7, 9, with the same objects .*keep the annot"):
        objects(tmp_path, two_ids(["one"], ["near_one"]))


def test_an_annotation_that_is_there_twice_counts_once_and_an_id_that_is_used_anew_does_not_matter(tmp_path):
    entry = {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 9, 9]}
    account = Account()
    found = objects(tmp_path, content(annotations=[entry, entry, {**entry, "bbox": [5, 5, 9, 9]}]), account=account)
    assert (len(found["b.jpg"]), counts(account)) == (2, {"equal_object": 1})


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        ([(0, "creatures", "none"), (1, "person", "creatures"), (18, "dog", "creatures")], ("person", "dog")),
        ([(0, "dog", "none"), (18, "dog", "dog"), (1, "person", "dog")], ("person", "dog")),
        ([(0, "none", "none"), (18, "dog", "none"), (1, "person", "none")], ("person", "dog")),
        ([(0, "animal", None), (18, "dog", "animal"), (1, "person", None)], ("person", "dog")),
        ([(0, "cat", "animal"), (18, "dog", "animal"), (1, "person", "person")], ("cat", "person", "dog")),
    ],
)
def test_a_category_that_only_groups_others_is_passed_over(tmp_path, categories, names):
    entries = [{"id": number, "name": name, "supercategory": group} for number, name, group in categories]
    assert opened(tmp_path, content(categories=entries)).class_names == names


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("images:", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "not a COCO annotation file; it needs images, annotations, categories"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}], "a list of detections"),
        ({"images": []}, "not a COCO annotation file: no 'annotations'"),
        ({"images": [], "categories": []}, "no 'annotations'"),
        ({"shapes": [], "imagePath": "a.jpg"}, "a LabelMe file .*; convert it"),
        (content(images=5), "not a COCO annotation file: TypeError"),
        (content(images=[{"id": 1}]), "image 1 has no file_name"),
        (content(images=[{"id": None, "file_name": "a"}]), "None is no id"),
        (content(categories=[{"id": 1}]), "KeyError 'name'"),
        (content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "category id 1 is there twice, for 'a'"),
        (
            content(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]),
            "image id 1 is there twice, for a.jpg and b.jpg",
        ),
        (
            content(images=[{"id": k, "file_name": "a.jpg", "width": k, "height": 9} for k in (1, 2)]),
            r"a\.jpg is there with \(1, 9\) and with \(2, 9\) pixels",
        ),
        (one(bbox=[0, 0, 1]), "annotation 3 has a bbox of 3 numbers"),
        (one(bbox=[0, 0, 9, 9, 45]), "annotation 3 has a bbox of 5 numbers"),
        (one(bbox=[0, 0, "wide", 9]), "ValueError"),
        (one(bbox=[0.1, 0.1, 0.5, 0.25]), "all boxes lie between 0 and 1, COCO's are in pixels"),
        (one(category_id=5), "annotation 3 has category 5, which 'categories' lacks"),
        (one(category_id=None), "None is no id"),
        (one(bbox=None, segmentation={"size": [2, 2], "counts": [1, 99]}), "run lengths are longer than the mask"),
        (one(bbox=None, segmentation={"size": [2, 2], "counts": "\u00ff"}), "not a COCO annotation file"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, made, words):
    with pytest.raises(DatasetError, match=words) as raised:
        objects(tmp_path, made)
    assert "\n" not in str(raised.value)
    assert "instances.json" in str(raised.value)


def test_a_category_that_the_names_lack_is_named_once_an_object_has_it(tmp_path):
    with pytest.raises(DatasetError, match="annotation 1 has category 'dog', which the names lack"):
        objects(tmp_path, content(), ("person",))
    assert len(objects(tmp_path, one(), ("person",))["b.jpg"]) == 1


@pytest.mark.parametrize("made", [content(annotations=[{}]), content(annotations=5)])
def test_images_are_known_without_a_look_at_annotations(tmp_path, made):
    if made["annotations"] == 5:
        with pytest.raises(DatasetError):
            opened(tmp_path, made)
    else:
        assert [image.file_name for image in opened(tmp_path, made).images] == ["a.jpg", "b.jpg"]


SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70), st.floats(), st.sampled_from(["", "1", "a.jpg", "\0", "9" * 400])
)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PLACES = ["images", "categories", "annotations", "info"]
KEYS = [
    "id",
    "file_name",
    "width",
    "height",
    "name",
    "supercategory",
    "image_id",
    "category_id",
    "bbox",
    "iscrowd",
    "segmentation",
]


@given(
    changes=st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 2), st.sampled_from(KEYS), JSON), max_size=4),
    whole=st.one_of(st.none(), st.tuples(st.sampled_from(PLACES), JSON)),
)
def test_any_change_of_a_file_is_boxes_with_an_area_or_one_error(tmp_path_factory, changes, whole):
    made = content()
    for place, number, key, value in changes:
        entries = made.get(place)
        if isinstance(entries, list) and number < len(entries):
            entries[number][key] = value
    if whole is not None:
        made[whole[0]] = whole[1]
    try:
        found = objects(tmp_path_factory.getbasetemp(), made)
    except DatasetError as error:
        assert "\n" not in str(error)  # noqa: PT017  either is right
        return
    for drawn in found.values():
        assert isinstance(drawn, Drawn)
        assert np.isfinite(drawn.xyxy).all()
        assert (drawn.xyxy[:, 2:] > drawn.xyxy[:, :2]).all()
