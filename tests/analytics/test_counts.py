"""Counts of lines and zones on scenes whose truth is known, tracked from what a made-up detector finds."""

from __future__ import annotations

import numpy as np
import pytest
from tracking import scenes

from vajra_edge.analytics.places import Line, Zone
from vajra_edge.analytics.totals import What, by_class, counted
from vajra_edge.analytics.watch import Happening, Places, Seen, State, advance
from vajra_edge.tracking.tracker import NO_TRACK, Tracker
from vajra_edge.types import Detections

SIZE = (scenes.WIDTH, scenes.HEIGHT)
LINE = Line("middle", (0.5, 1.0), (0.5, 0.0))
ZONE = Zone("left", np.array([[0.0, 0.0], [0.4, 0.0], [0.4, 1.0], [0.0, 1.0]]))
PLACES = Places((ZONE,), (LINE,))


def feet(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.reshape(-1, 4)
    return np.stack(((boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]), 1) / SIZE


def happened(shown: list[Seen]) -> list[Happening]:
    state, told = State(), []
    for seen in shown:
        state, news = advance(PLACES, state, seen)
        told += news
    return told


def by_truth(pictures: list[scenes.Seen]) -> list[Seen]:
    """As a perfect tracker would show it."""
    return [
        Seen(
            one.now_s,
            np.array(list(one.truth), np.int64),
            ["person"] * len(one.truth),
            feet(np.array(list(one.truth.values()), float)),
        )
        for one in pictures
    ]


def by_tracker(pictures: list[scenes.Seen]) -> list[Seen]:
    tracker, shown = Tracker(), []
    for one in pictures:
        boxes, confidence = one.xyxy.astype(np.float32), one.confidence.astype(np.float32)
        numbers = tracker.update(Detections(boxes, confidence, np.zeros(len(boxes), np.int32)), one.now_s)
        known = numbers != NO_TRACK
        shown.append(Seen(one.now_s, numbers[known], ["person"] * int(known.sum()), feet(one.xyxy[known])))
    return shown


def counts(shown: list[Seen]) -> list[int]:
    news = counted(happened(shown))
    each = ((LINE.name, What.IN), (LINE.name, What.OUT), (ZONE.name, What.ENTERED))
    return [by_class(news, place, what).get("person", 0) for place, what in each]


@pytest.mark.parametrize(("fps", "seconds", "people", "seed"), [(30, 20, 16, 101), (5, 60, 30, 103), (2, 120, 50, 104)])
def test_lines_count_nearly_everybody_who_crosses_and_zones_nearly_everybody_who_comes(
    fps: float, seconds: float, people: int, seed: int
):
    pictures = scenes.scene(fps, seconds, people, seed)
    true_in, true_out, true_entered = counts(by_truth(pictures))
    found_in, found_out, found_entered = counts(by_tracker(pictures))
    told = (
        f"true {true_in} in, {true_out} out, {true_entered} entered; {found_in}, {found_out}, {found_entered} counted"
    )
    assert abs(found_in - true_in) <= 0.25 * true_in + 2, told
    assert abs(found_out - true_out) <= 0.25 * true_out + 2, told
    assert abs(found_entered - true_entered) <= 0.35 * true_entered + 2, told
