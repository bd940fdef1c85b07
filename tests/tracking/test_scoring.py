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
    assert (scores.hota, scores.deta, scores.assa) == pytest.approx((1.0, 1.0, 1.0))


def test_a_switch_in_the_middle_costs_one_and_half_of_the_identity():
    scoring = Scoring()
    for number in (7, 7, 8, 8):
        scoring.frame({1: HERE}, {number: HERE})
    scores = scoring.scores()
    assert scores.switches == 1
    assert scores.mota == pytest.approx(0.75)
    assert scores.idf1 == pytest.approx(0.5)
    # Each pair has two frames of the four that its person is there.
    assert (scores.deta, scores.assa) == pytest.approx((1.0, 0.5))
    assert scores.hota == pytest.approx(0.5**0.5)


def test_misses_and_false_boxes_are_counted():
    scoring = Scoring()
    scoring.frame({1: HERE}, {})
    scoring.frame({1: HERE}, {7: THERE})
    scores = scoring.scores()
    assert scores.mota == pytest.approx(1 - 3 / 2)
    assert scores.idf1 == scores.hota == 0.0


def test_a_box_that_is_a_little_off_is_found_at_the_lower_alphas_alone():
    scoring = Scoring()
    for _ in range(3):
        scoring.frame({1: HERE}, {7: (0.0, 0.0, 10.0, 6.2)})  # an IoU of 0.62: twelve of the nineteen
    scores = scoring.scores()
    assert (scores.hota, scores.deta, scores.assa) == pytest.approx((12 / 19, 12 / 19, 12 / 19))


def test_of_two_that_claim_one_person_the_one_that_was_there_for_longer_has_it():
    scoring = Scoring()
    for _ in range(3):
        scoring.frame({1: HERE}, {7: HERE})
    scoring.frame({1: HERE}, {7: HERE, 8: HERE})
    scores = scoring.scores()
    assert (scores.deta, scores.assa) == pytest.approx((4 / 5, 1.0))
