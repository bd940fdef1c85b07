"""Which boxes overlap, held to the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
from tracking.scoring import ious

from vajra_edge.tracking.pairs import Pairs, overlapping


def among(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) corners."""
    low = rng.uniform(0, 100, (count, 2))
    return np.concatenate((low, low + rng.uniform(5, 60, (count, 2))), 1)


def pairs_of(tracks: np.ndarray, boxes: np.ndarray, growth: np.ndarray) -> Pairs:
    """Of corners, and of (n, 2) pixels that both boxes of a pair grow by."""
    places = np.concatenate((tracks.T, (tracks[:, 2:] - tracks[:, :2]).T, growth.T))
    return overlapping(places, np.concatenate(((boxes[:, 2:] - boxes[:, :2]).T, boxes.T)))


@pytest.mark.parametrize("seed", range(10))
def test_all_that_overlap_are_found_with_their_iou(seed: int):
    rng = np.random.default_rng(seed)
    tracks, boxes, growth = among(rng, 7), among(rng, 9), rng.uniform(0, 20, (7, 2))
    pairs = pairs_of(tracks, boxes, growth)
    expected = np.zeros((7, 9))
    for row, more in enumerate(growth / 2):
        wider = np.array([*-more, *more])
        expected[row] = ious([tuple(tracks[row] + wider)], [tuple(box + wider) for box in boxes])[0]
    heard = np.zeros((7, 9))
    heard[pairs.track, pairs.box] = pairs.iou
    assert heard == pytest.approx(expected)
    assert len(pairs.track) == np.count_nonzero(expected)
    assert (np.diff(pairs.track) >= 0).all()


def test_a_box_whose_edges_are_the_wrong_way_round_has_no_share_in_anything():
    track = np.array([[0.0, 0.0, 10.0, 10.0]])
    pairs = pairs_of(track, np.array([[8.0, 8.0, 2.0, 2.0]]), np.zeros((1, 2)))
    assert not pairs.iou.any()


def test_those_that_are_chosen_are_left():
    pairs = Pairs(np.array([0, 1, 2]), np.array([5, 6, 7]), np.array([0.1, 0.2, 0.3]))
    assert pairs.where(np.array([True, False, True])).box.tolist() == [5, 7]
    assert pairs.where(np.ones(3, bool)) is pairs
