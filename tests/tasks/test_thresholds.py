from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.errors import VajraError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.tasks.thresholds import Typed, thresholds

DIALS = ("0", "270", "180", "90", "1")
PARTS = ("part", "nut", "part")


def classes(names: tuple[str, ...], asked: object) -> list[int]:
    signature = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, names)
    return sorted(thresholds(signature, 0.25, None, None, asked).class_ids or ())


@pytest.mark.parametrize(
    ("names", "asked", "expected"),
    [
        (DIALS, 1, [1]),
        (DIALS, [1], [1]),
        (DIALS, [4], [4]),
        (DIALS, "1", [4]),
        (DIALS, ["1", 1], [1, 4]),
        (DIALS, "270", [1]),
        (DIALS, np.int64(3), [3]),
        (DIALS, np.array([0, 3]), [0, 3]),
        (DIALS, range(2), [0, 1]),
        (DIALS, {2}, [2]),
        (PARTS, "part", [0, 2]),
        (PARTS, ("Nut", 0), [0, 1]),
        (PARTS, "2", [2]),
        (DIALS, Typed("270"), [1]),
        (DIALS, Typed("4"), [4]),
        (DIALS, Typed("0"), [0]),
        (PARTS, [Typed("1"), Typed("part")], [0, 1, 2]),
    ],
)
def test_a_number_is_an_id_and_a_text_a_name(names, asked, expected):
    assert classes(names, asked) == expected


@pytest.mark.parametrize(
    ("names", "asked", "told"),
    [
        (DIALS, "4", r"classes: '4' is not one of this network's; a text is a name: pass the number 4"),
        (DIALS, 5, r"classes: 5 is not one .*; there are 0 to 4"),
        (DIALS, -1, "classes: -1 is not one"),
        (DIALS, True, "classes: True is not one .* a class is a whole number"),
        (DIALS, 1.0, "classes: 1.0 is not one .* class ids or names are expected"),
        (DIALS, [1.0], "classes: 1.0 is not one .* a class is a whole number"),
        (DIALS, [None], "a class is a whole number"),
        (PARTS, "prt", "did you mean part"),
        (PARTS, [], "classes names no class; leave classes out for all"),
        (
            DIALS,
            Typed("1"),
            r"classes=1 is both class id 1 \(270\) and the name of class 4; type 4 .*, or 270 for id 1",
        ),
        (("1", "0"), Typed("1"), "is both class id 1 .* and the name of class 0; ask from Python"),
        (DIALS, Typed("x"), "classes: 'x' is not one"),
    ],
)
def test_what_is_no_class_is_told_with_what_would_be(names, asked, told):
    with pytest.raises(VajraError, match=told) as raised:
        classes(names, asked)
    assert "\n" not in str(raised.value)
