from __future__ import annotations

import json

from vajra_edge.datasets.account import Account, LeftOut, ReadAs
from vajra_edge.tasks.val import ClassScore, Scores, ValReport


def test_json_holds_the_figures_unrounded():
    scores = Scores(1 / 3, 2 / 3, 4, 9, (ClassScore("person", 9, 1 / 3, 2 / 3),))
    account = Account()
    for number in range(5):
        account.add(LeftOut.PICTURE_CUT_SHORT, f"{number}.jpg")
    account.add(ReadAs.TURNED, "9.jpg")
    notes = ("scores the best class of an anchor",)
    report = ValReport(scores, {"inference": 0.1 + 0.2}, notes, 2, account.left_out(), account.read_as())
    assert json.loads(json.dumps(report.to_json())) == {
        "map50_95": 1 / 3,
        "map50": 2 / 3,
        "images": 4,
        "objects": 9,
        "per_class": [{"name": "person", "objects": 9, "map50_95": 1 / 3, "map50": 2 / 3}],
        "speed_ms": {"inference": 0.1 + 0.2},
        "notes": ["scores the best class of an anchor"],
        "background": 2,
        "left_out": [{"reason": "picture_cut_short", "count": 5, "first": ["0.jpg", "1.jpg", "2.jpg"]}],
        "read_as": [{"reason": "turned_with_exif", "count": 1, "first": ["9.jpg"]}],
    }
    assert str(report.left_out[0]) == "pictures that are cut short: 5 (0.jpg, 1.jpg, 2.jpg ...)"
