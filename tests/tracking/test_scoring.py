"""The scores that the tracker is held to, on cases whose answer is plain."""

from __future__ import annotations

import pytest
from tracking.scoring import Scoring

HERE, THERE = (0.0, 0.0, 10.0, 10.0), (100.0, 0.0, 110.0, 10.0)


def test_a_perfect_tracker():
    scoring = Scoring()
    for _ in range(4):
        scoring.frame({1: HERE, 2: THERE}, {7: HERE, 8: THERE})
    scores = scoring.scores()
    assert (scores.mota, scores.idf1, scores.switches) == (1.0, 1.0, 0)


def test_a_switch_in_the_middle_costs_one_and_half_of_the_identity():
    scoring = Scoring()
    for number in (7, 7, 8, 8):
        scoring.frame({1: HERE}, {number: HERE})
    scores = scoring.scores()
    assert scores.switches == 1
    assert scores.mota == pytest.approx(0.75)
    assert scores.idf1 == pytest.approx(0.5)


def test_misses_and_false_boxes_are_counted():
    scoring = Scoring()
    scoring.frame({1: HERE}, {})
    scoring.frame({1: HERE}, {7: THERE})
    scores = scoring.scores()
    assert scores.mota == pytest.approx(1 - 3 / 2)
    assert scores.idf1 == 0.0
