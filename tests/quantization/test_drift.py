from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.quantization.layer_search import Drift, drift


def output(boxes: list[tuple[float, float, float, float, float]], anchors: int = 50) -> np.ndarray:
    """RAW (6, anchors) with the given cx, cy, w, h, score of class 0; the other anchors score 0."""
    made = np.zeros((6, anchors), np.float32)
    made[2:4] = 10
    for at, row in enumerate(boxes):
        made[:5, at] = row
    return made


ONE = output([(50, 50, 20, 20, 0.9), (20, 20, 10, 10, 0.5)])


def test_equal_outputs_do_not_drift() -> None:
    assert drift([ONE], [ONE.copy()]) == Drift(0.0, 0.0)


def test_a_lost_score_counts_by_its_size() -> None:
    found = drift([ONE], [output([(50, 50, 20, 20, 0.6), (20, 20, 10, 10, 0.5)])])
    assert found.score == pytest.approx(0.3 * 0.9 / 1.4, rel=1e-3)
    assert found.box == 0


def test_a_moved_box_counts_by_its_overlap() -> None:
    found = drift([ONE], [output([(60, 50, 20, 20, 0.9), (20, 20, 10, 10, 0.5)])])
    assert found.box == pytest.approx((2 / 3) * 0.9 / 1.4, rel=1e-3)


def test_what_only_the_plan_finds_counts_too() -> None:
    assert drift([output([])], [output([(50, 50, 20, 20, 0.8)])]).score > 0.5


def test_empty_scenes_are_judged_by_their_best_anchors() -> None:
    quiet = output([(50, 50, 20, 20, 0.01)])
    assert drift([quiet], [output([(50, 50, 20, 20, 0.005)])]).score > 0


def test_scenes_without_any_score_do_not_drift() -> None:
    assert drift([output([])], [output([])]) == Drift(0.0, 0.0)


def test_what_is_not_finite_drifts_entirely() -> None:
    broken = ONE.copy()
    broken[0, 3] = np.nan
    assert drift([ONE], [broken]) == Drift(1.0, 1.0)


def test_a_bound_holds_both_parts() -> None:
    bound = Drift(0.1, 0.1)
    assert Drift(0.1, 0.05).within(bound)
    assert not Drift(0.05, 0.11).within(bound)
    assert Drift(0.25, 0.5).total == 0.75
