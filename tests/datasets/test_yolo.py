from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.datasets import yolo
from vajra_edge.datasets.account import Account
from vajra_edge.datasets.labels import Truth
from vajra_edge.errors import DatasetError

BOX = "0.5 0.5 0.2 0.4"


def written(folder: Path, text: str | bytes, name: str = "labels.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(
    folder: Path,
    text: str | bytes,
    resolution_wh: tuple[int, int] = (200, 100),
    classes: int | None = None,
    keypoints: int | None = None,
    account: Account | None = None,
) -> Truth:
    known = yolo.Known(classes, keypoints)
    (drawn,) = yolo.read([written(folder, text)], known, account if account is not None else Account())
    return drawn.truth(resolution_wh)


def counts(account: Account) -> dict[str, int]:
    return {one.reason: one.count for one in (*account.left_out(), *account.read_as())}


def test_boxes_and_polygons_become_pixels(tmp_path):
    truth = read(tmp_path, "\ufeff0 0.5 0.5 0.2 0.4\n\n1 0.1 0.2 0.3 0.2 0.2 0.8\n", classes=2)
    np.testing.assert_allclose(truth.xyxy, [[80, 30, 120, 70], [20, 20, 60, 80]], rtol=1e-6)
    np.testing.assert_array_equal(truth.class_id, [0, 1])
    assert not truth.crowd.any()
    assert (truth.xyxy.dtype, truth.class_id.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    "text",
    [
        "0.0 0.5 0.5 0.2 0.4",
        "0\t0.5\t0.5\t0.2\t0.4  \r\n\r\n",
        "  0 .5 5e-1 0.20000 0.4\n \n",
        b"\xff\xfe" + f"0 {BOX}".encode("utf-16-le"),
        f"0 {BOX} 0.87",
        f"0 {BOX} 0.87 12",
        f"0 {BOX} 0.87 1",
        "0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7",
        "0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7 0.93",
        "0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7 0.93 4",
        "0 0.4 0.3 0.5 0.3 0.6 0.5 0.6 0.7 0.4 0.7 0.5",
        f"0 {BOX} 0.1 0.2 2 0.3 0.4 1 0.9 0.9 0",
        f"0 {BOX} 0.1 0.2 2 0.3 0.4 0",
        f"0 {BOX} 0.1 0.2 1",
    ],
)
def test_one_box_however_it_is_written(tmp_path, text):
    np.testing.assert_allclose(read(tmp_path, text).xyxy, [[80, 30, 120, 70]], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "keypoints", "expected"),
    [
        (f"0 {BOX} 0.5\n0 {BOX}", None, {"confidence_ignored": 1, "equal_object": 1}),
        (
            "0 0.4 0.3 0.6 0.3 0.6 0.7\n0 0.1 0.1 0.2 0.1 0.2 0.3 0.5",
            None,
            {"polygon_as_box": 2, "confidence_ignored": 1},
        ),
        (f"0 {BOX} 0.5 3\n0 0.2 0.2 0.1 0.1 0.5 1", None, {"confidence_ignored": 2, "track_id_ignored": 2}),
        (f"0 {BOX} 0.1 0.2 0.3 0.4\n0 0.2 0.2 0.1 0.1", 4, {"pose_as_box": 1}),
        (f"0 {BOX} 9.1 -4 2 0.3 0.4 0 0.77", 6, {"pose_as_box": 1, "confidence_ignored": 1}),
        (
            "0 0.5 0.5 0 0.2\n0 0.5 0.5 0.2 0.0\n0 0.4 0.4 0.4 0.4 0.4 0.5",
            None,
            {"box_without_area": 3, "polygon_as_box": 1},
        ),
        ("0 1.005 0.5 0.005 0.1", None, {"box_outside_picture": 1}),
        (f"0 {BOX}\n" * 3, None, {"equal_object": 2}),
    ],
)
def test_what_is_left_out_or_read_otherwise_is_counted_by_reason(tmp_path, text, keypoints, expected):
    account = Account()
    read(tmp_path, text, keypoints=keypoints, account=account)
    assert counts(account) == expected
    assert "labels.txt:" in str((*account.left_out(), *account.read_as())[0])


def test_a_pose_is_never_taken_for_a_polygon(tmp_path):
    seventeen = " ".join("0.01 0.01" for _ in range(17))
    truth = read(tmp_path, f"0 {BOX} {seventeen}", keypoints=34)
    np.testing.assert_allclose(truth.xyxy, [[80, 30, 120, 70]], rtol=1e-5)


def test_what_may_be_a_pose_or_an_outline_is_asked_back(tmp_path):
    with pytest.raises(DatasetError, match=r"labels.txt:1: 11 numbers may be .*kpt_shape: \[2, 3\]"):
        read(tmp_path, f"0 {BOX} 0.1 0.2 1 0.3 0.4 1")


def test_seven_numbers_are_read_alike_in_all_files_of_a_dataset(tmp_path):
    first = written(tmp_path, "0 0.4 0.3 0.6 0.3 0.6 1\n", "a.txt")
    second = written(tmp_path, f"0 {BOX} 0.9 7\n", "b.txt")
    triangle, *_ = yolo.read([first, written(tmp_path, "0 .1 .1 .2 .2 .3 .3", "c.txt")], yolo.Known(), Account())
    np.testing.assert_allclose(triangle.xyxy, [[0.4, 0.3, 0.6, 1]])
    box, _ = yolo.read([first, second], yolo.Known(), Account())
    np.testing.assert_allclose(box.xyxy, [[0.1, 0.15, 0.7, 0.45]])


def test_equal_lines_count_once_and_an_empty_file_is_an_empty_scene(tmp_path):
    assert len(read(tmp_path, "0 .5 .5 .2 .2\n" * 3)) == 1
    assert read(tmp_path, "\n").xyxy.shape == (0, 4)
    assert [len(drawn) for drawn in yolo.read([None, None], yolo.Known(), Account())] == [0, 0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2", "4 numbers, expected 5 or a polygon"),
        ("0", "1 numbers, expected 5 or a polygon"),
        ("0 0.5 0.5 0.2 0.2 45", "6 numbers, and 45 is no confidence"),
        ("0 0.5 0.5 0.2 0.2 -1.2", "6 numbers, and -1.2 is no confidence"),
        ("person 0.5 0.5 0.2 0.2", "not numbers: 'person 0.5 0.5 0.2 0.2'"),
        ("0,0.5,0.5,0.2,0.2", "not numbers"),
        ("2 0.5 0.5 0.2 0.2", "class 2, known are 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "class -1, known are 0 to 1"),
        ("0.5 0.5 0.5 0.2 0.2", r"class 0\.5, known are"),
        ("inf 0.5 0.5 0.2 0.2", "class inf, known are"),
        ("nan 0.5 0.5 0.2 0.2", "class nan, known are"),
        ("0 320 240 64 64", "coordinates outside 0 to 1: '0 320 240 64 64'; .*look like pixels"),
        ("0 nan 0.5 0.2 0.2", "coordinates outside 0 to 1"),
        ("0 0.5 0.5 -0.2 0.2", "coordinates outside 0 to 1"),
        ("0 10 10 20 10 20 20 10 20", "coordinates outside 0 to 1"),
    ],
)
def test_a_wrong_line_is_named_with_file_and_number(tmp_path, line, words):
    with pytest.raises(DatasetError, match=f"labels.txt:3: {words}"):
        read(tmp_path, f"0 0.5 0.5 0.1 0.1\n\n{line}\n", classes=2)


def test_where_poses_are_told_other_lines_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"labels.txt:1: 9 numbers, expected 5 or 56 of a pose"):
        read(tmp_path, "0 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7", keypoints=51)


def test_without_names_any_class_is_known_from_zero(tmp_path):
    assert read(tmp_path, "999 .5 .5 .2 .2").class_id[0] == 999
    with pytest.raises(DatasetError, match="known are whole numbers from 0"):
        read(tmp_path, "-1 .5 .5 .2 .2")
    with pytest.raises(DatasetError, match="class 9999999999"):
        read(tmp_path, "9999999999 .5 .5 .2 .2")


@given(text=st.binary(max_size=60))
def test_any_bytes_are_labels_or_one_error(tmp_path_factory, text):
    with contextlib.suppress(DatasetError):
        truth = read(tmp_path_factory.getbasetemp(), text, (64, 64), 3)
        assert np.isfinite(truth.xyxy).all()


NUMBER = st.one_of(
    st.floats(-0.02, 1.02).map(lambda share: f"{share:.6f}"),
    st.sampled_from(["0", "1", "2", "0.5", "nan", "-inf", "1e400", "640", "x", "0x1", "1_0", "\u0663"]),
)


@given(lines=st.lists(st.lists(NUMBER, max_size=14).map(" ".join), max_size=6), keypoints=st.sampled_from([None, 4, 6]))
def test_any_numbers_are_boxes_within_reach_or_one_error(tmp_path_factory, lines, keypoints):
    account = Account()
    try:
        truth = read(tmp_path_factory.getbasetemp(), "\n".join(lines), (64, 64), 3, keypoints, account)
    except DatasetError as error:
        assert "\n" not in str(error)  # noqa: PT017  either is right
        assert "labels.txt" in str(error)  # noqa: PT017
        return
    assert (truth.xyxy[:, 2:] > truth.xyxy[:, :2]).all()
    assert (truth.class_id < 3).all()
    left_out = sum(one.count for one in account.left_out())
    assert len(truth) + left_out == sum(bool(line.strip()) for line in lines)
