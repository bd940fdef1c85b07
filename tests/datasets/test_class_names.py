from __future__ import annotations

import pytest

from vajra_edge.datasets import class_names


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (["a", "b"], ["a", "b"], (0, 1)),
        (["part", "part", "nut"], ["part", "part", "nut"], (0, 1, 2)),
        (["Part", "part ", "NUT"], ["part", "part", "nut"], (0, 1, 2)),
        (["b", "a"], ["a", "b"], (1, 0)),
        (["car"], ["person", "car"], (1,)),
        (["Car", "PERSON"], ["person", "car"], (1, 0)),
        (["traffic_light", "Stop  Sign", "hard-hat"], ["hard hat", "traffic light", "stop sign"], (1, 2, 0)),
        (["car", "Car"], ["person", "car"], (1, 1)),
        (["car"], ["Car", "car"], (1,)),
        (["CAR"], ["Car", "car"], (None,)),
        (["nut", "part"], ["part", "part", "nut"], (2, None)),
        (["part", "part"], ["part", "nut"], (0, 0)),
        (["-5", "5"], ["5", "-5"], (1, 0)),
        (["voiture", "car"], ["car", "person"], (None, 0)),
        (["caf\u00e9", "stra\u00dfe"], ["STRASSE", "cafe\u0301"], (1, 0)),
        ([], ["car"], ()),
    ],
)
def test_equal_lists_match_by_number_and_others_by_name(mine, theirs, expected):
    assert class_names.match(mine, theirs) == expected


def test_a_name_means_every_class_that_is_called_so():
    names = ["part", "Part", "part", "nut"]
    assert class_names.called("part", names) == (0, 2)
    assert class_names.called("PART", names) == (0, 1, 2)
    assert class_names.called("bolt", names) == ()
