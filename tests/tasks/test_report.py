from __future__ import annotations

import json

from vajra_edge.tasks.val import ClassScore, Scores, ValReport


def test_json_holds_the_figures_unrounded():
    scores = Scores(1 / 3, 2 / 3, 4, 9, (ClassScore("person", 9, 1 / 3, 2 / 3),))
    report = ValReport(scores, {"inference": 0.1 + 0.2}, ("scores the best class of an anchor",))
    assert json.loads(json.dumps(report.to_json())) == {
        "map50_95": 1 / 3,
        "map50": 2 / 3,
        "images": 4,
        "objects": 9,
        "per_class": [{"name": "person", "objects": 9, "map50_95": 1 / 3, "map50": 2 / 3}],
        "speed_ms": {"inference": 0.1 + 0.2},
        "notes": ["scores the best class of an anchor"],
    }
