"""Assignment: the pairs of rows and columns that are worth most together, each row and column once at most.

Exact, without a library: pairs that nobody contests need no search, and the few others are solved by shortest
augmenting paths, a row at a time (Jonker and Volgenant 1987).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

A_PAIR = 3.0
"""Worth of any pair beside its likeness: two poor pairs are better than a good one that leaves two alone."""
LEAST = 0.01
"""Worth of a pair that is hardly one."""

Indices = NDArray[np.intp]


def assign(
    row: Indices, column: Indices, likeness: Callable[[Indices], NDArray[np.float64]], a_pair: float = A_PAIR
) -> Indices:
    """Choose among pairs.

    Args:
        row: (k,) of each pair that is allowed.
        column: (k,) likewise; no pair is named twice.
        likeness: of the pairs with these indices, more is better; asked only of those that are contested.
        a_pair: worth of any pair beside its likeness; a pair that is worth nothing then is still better than none.

    Returns:
        Indices of the chosen pairs.
    """
    rows, columns = row.tolist(), column.tolist()
    if len(set(rows)) == len(rows) == len(set(columns)):
        return np.arange(len(rows))
    rivals = np.bincount(row)[row] + np.bincount(column)[column] - 2  # pairs that want the same row or column
    contested = rivals.nonzero()[0].tolist()
    worth: dict[int, dict[int, float]] = {}
    place = {}
    for index, like in zip(contested, likeness(np.array(contested)).tolist(), strict=True):
        one = rows[index], columns[index]
        place[one] = index
        worth.setdefault(one[0], {})[one[1]] = max(a_pair + like, LEAST)
    names = list(worth)
    chosen = [place[names[r], c] for r, c in heaviest(list(worth.values()))]
    return np.concatenate(((rivals == 0).nonzero()[0], np.array(chosen, np.intp)))


def heaviest(worth: Sequence[Mapping[int, float]]) -> list[tuple[int, int]]:
    """The (row, column) pairs of the assignment that is worth most; what is worth nothing stays alone.

    Most rows can have what is worth most to them. For the others paths are searched, along which rows change columns.

    Args:
        worth: of each row by column, above 0; a column that is missing cannot be had.
    """
    row_of: dict[int, int] = {}
    left = []
    for row, columns in enumerate(worth):
        best = max(columns, key=columns.__getitem__)
        if row_of.setdefault(best, row) != row:
            left.append(row)
    if left:
        _augment(worth, row_of, left)
    return [(row, column) for column, row in row_of.items() if column >= 0]


def _augment(worth: Sequence[Mapping[int, float]], row_of: dict[int, int], left: Sequence[int]) -> None:
    """Give the rows that are left a column too, where that is worth it.

    Each row has, besides those that it may take, a column of its own that is worth nothing: -1 - row. Prices keep what
    every pair falls short of them at zero or above, so that a path found by Dijkstra's rule is the cheapest.
    """
    price_of_row = [max(columns.values()) for columns in worth]
    price_of_column: dict[int, float] = defaultdict(float)
    column_of = {row: column for column, row in row_of.items()}
    for start in left:
        row, length = start, 0.0
        reached: dict[int, float] = {}
        before: dict[int, int] = {}
        settled: dict[int, float] = {}
        while True:
            so_far = length + price_of_row[row]
            reached[-1 - row], before[-1 - row] = so_far, row
            for column, worthy in worth[row].items():
                through = so_far - worthy + price_of_column[column]
                if column not in settled and through < reached.get(column, math.inf):
                    reached[column], before[column] = through, row
            column = min(reached, key=reached.__getitem__)
            length = reached.pop(column)
            if column not in row_of:
                break
            settled[column], row = length, row_of[column]
        price_of_row[start] -= length
        for passed, at in settled.items():
            price_of_row[row_of[passed]] -= length - at
            price_of_column[passed] += length - at
        while True:  # each row on the path gives its column to the one before it
            row = before[column]
            given = column_of.get(row)
            row_of[column], column_of[row] = row, column
            if given is None:
                break
            column = given
