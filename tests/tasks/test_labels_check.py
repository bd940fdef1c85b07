from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vajra_edge.datasets.account import Account, LeftOut
from vajra_edge.datasets.dataset import Dataset, Entry
from vajra_edge.datasets.labels import Drawn, Truth
from vajra_edge.errors import DatasetError
from vajra_edge.tasks import labels_check

BOX = (0.0, 0.0, 0.5, 0.5)


def dataset(names: tuple[str, ...] | None, *used: int) -> Dataset:
    drawn = Drawn.of([(number, BOX, False) for number in used], is_share=True)
    return Dataset(Path("data.yaml"), (Entry(Path("a.png"), drawn=drawn),), names, labelled=True)


def class_ids(names, theirs, *used, by_number=False, account=None):
    made = labels_check.class_ids(dataset(names, *used), theirs, account or Account(), by_number=by_number)
    return [int(number) for number in made]


@pytest.mark.parametrize(
    ("names", "theirs", "used", "expected"),
    [
        (("part", "part", "nut"), ("part", "part", "nut"), (0, 1, 2), [0, 1, 2]),
        (("car",), ("person", "car"), (0,), [1]),
        (("Car", "Person"), ("person", "car"), (0, 1), [1, 0]),
        (("group", "car"), ("person", "car"), (1,), [-1, 1]),
        (None, ("person", "car"), (1,), [0, 1]),
        (None, ("person", "car"), (), []),
        (("car", "CAR"), ("person", "car"), (0, 1), [1, 1]),
    ],
)
def test_classes_match_by_number_where_the_lists_are_equal_and_else_by_name(names, theirs, used, expected):
    assert class_ids(names, theirs, *used) == expected


def test_all_that_match_nothing_are_named_and_what_the_network_has_left():
    mine, theirs = tuple(f"mine{k}" for k in range(9)), tuple(f"theirs{k}" for k in range(20))
    with pytest.raises(DatasetError) as raised:
        class_ids(mine, theirs, 3)
    assert all(name in str(raised.value) for name in mine)
    assert "the network's that are left: theirs0, " in str(raised.value)
    assert "theirs11 and 8 more" in str(raised.value)
    assert class_ids(mine, theirs, 3, by_number=True)[3] == 3


def test_a_name_that_the_network_has_several_times_is_no_match():
    with pytest.raises(DatasetError, match=r"does not know part \(of part the network has several\)"):
        class_ids(("part", "nut"), ("part", "part", "nut"), 0)
    assert class_ids(("part", "nut"), ("part", "part", "nut"), 1) == [-1, 2]


def test_by_number_ends_where_the_network_does():
    assert class_ids(("a", "b", "c"), ("x", "y"), 0, 1, by_number=True) == [0, 1, -1]
    with pytest.raises(DatasetError, match="classes that the network, with 2, does not have: c; name the dataset"):
        class_ids(("a", "b", "c"), ("x", "y"), 0, 2, by_number=True)


def test_classes_that_are_left_over_or_merged_are_counted():
    account = Account()
    class_ids(("car", "Car", "dog", "cat"), ("car", "person"), 0, account=account)
    assert [(one.count, one.first) for one in account.left_out()] == [(2, ("dog", "cat"))]
    assert [one.first for one in account.read_as()] == [("car and Car as car",)]


def test_labels_without_an_object_are_refused():
    with pytest.raises(DatasetError, match="the labels hold no object"):
        labels_check.require_objects(dataset(None))


def truths(*boxes: tuple[float, ...]) -> list[Truth]:
    return [Truth.of([(0, box, False) for box in boxes])]


def test_labels_of_which_most_leave_their_pictures_are_refused():
    inside, outside = (0, 0, 50, 50), (60, 60, 160, 90)
    pictures = dataset(None)
    labels_check.require_inside(pictures, truths(*[inside] * 5, *[outside] * 5), [(100, 100)])
    labels_check.require_inside(pictures, truths(*[outside] * 3), [(100, 100)])
    labels_check.require_inside(pictures, truths(*[(50, 50, 102, 102)] * 9), [(100, 100)])
    with pytest.raises(DatasetError, match="6 of 11 boxes end outside their pictures; check what the four numbers"):
        labels_check.require_inside(pictures, truths(*[inside] * 5, *[outside] * 6), [(100, 100)])


def test_a_set_of_which_nothing_is_left_says_why():
    account = Account()
    account.add(LeftOut.PICTURE_CUT_SHORT, "a.jpg")
    with pytest.raises(
        DatasetError, match=r"nothing is left to score: pictures that are cut short: 1 \(a\.jpg\); mend"
    ):
        labels_check.require_left(dataset(None), [Truth.of([])], account)
    account.add(LeftOut.PICTURE_TOO_LARGE, "b.jpg")
    with pytest.raises(DatasetError, match="cut it into tiles"):
        labels_check.require_left(dataset(None), [], account)
    crowd = Truth(np.zeros((1, 4), np.float32), np.zeros(1, np.int32), np.ones(1, np.bool_))
    with pytest.raises(DatasetError, match="crowds alone"):
        labels_check.require_left(dataset(None), [crowd], Account())
