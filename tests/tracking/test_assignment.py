"""The choice of pairs, held to every choice there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vajra_edge.tracking.assignment import A_PAIR, assign, heaviest


def most(worth: np.ndarray) -> float:
    """Of all choices, by trying each: a row may stay alone."""
    rows, columns = worth.shape
    wide = np.hstack((worth, np.zeros((rows, rows))))
    return max(float(wide[range(rows), choice].sum()) for choice in itertools.permutations(range(columns + rows), rows))


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_is_worth_more_and_nobody_is_chosen_twice(seed: int):
    rng = np.random.default_rng(seed)
    likeness = rng.uniform(-2, 1, (int(rng.integers(1, 5)), int(rng.integers(1, 5))))
    allowed = rng.random(likeness.shape) < 0.6
    row, column = np.nonzero(allowed)
    chosen = assign(row, column, likeness[row, column].take)
    assert len(set(row[chosen].tolist())) == len(set(column[chosen].tolist())) == len(chosen)
    worth = np.where(allowed, A_PAIR + likeness, 0.0)
    assert worth[row[chosen], column[chosen]].sum() == pytest.approx(most(worth))


def test_two_poor_pairs_are_better_than_a_good_one_that_leaves_two_alone():
    row, column = np.array([0, 0, 1]), np.array([0, 1, 0])
    chosen = assign(row, column, np.array([0.9, 0.1, 0.1]).take)
    assert {(int(row[k]), int(column[k])) for k in chosen} == {(0, 1), (1, 0)}


def test_where_a_pair_alone_is_worth_little_a_good_one_is_better_than_two_poor_ones():
    row, column = np.array([0, 0, 1]), np.array([0, 1, 0])
    chosen = assign(row, column, np.array([0.9, 0.1, -0.2]).take, a_pair=0.4)
    assert [(int(row[k]), int(column[k])) for k in chosen] == [(0, 0)]


def test_without_pairs_nothing_is_chosen():
    nothing = np.zeros(0, np.intp)
    assert len(assign(nothing, nothing, np.zeros(0).take)) == 0
    assert heaviest([]) == []
