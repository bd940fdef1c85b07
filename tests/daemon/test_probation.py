from __future__ import annotations

import pytest

from vajra_edge.daemon.probation import FEW, FRAMES, SCENE_S, CameraFigures, Figures, Tally, unfit

GOOD = Figures(300, 40.0, 2.0)


@pytest.mark.parametrize(
    ("before", "after", "ratio", "same", "expected"),
    [
        (GOOD, Figures(300, 45.0, 1.8), 1.0, True, ""),
        (GOOD, Figures(300, 900.0, 2.0), 1.0, True, "p99 of frame age is 900 ms, with the plan before 40 ms"),
        (GOOD, Figures(300, 900.0, 2.0), 8.0, True, ""),  # a network that the gate measured eight times slower
        (GOOD, Figures(300, 900.0, 2.0), None, True, ""),  # not measured: not judged
        (GOOD, Figures(300, 290.0, 2.0), 0.1, True, ""),  # five times older, within the grace
        (GOOD, Figures(300, 40.0, 0.0), 1.0, True, "it found nothing in 300 frames, the plan before 2.0 objects"),
        (GOOD, Figures(300, 40.0, 0.0), 1.0, False, ""),  # other classes
        (Figures(300, 40.0, 0.1), Figures(300, 40.0, 0.0), 1.0, True, ""),  # an empty scene
        (GOOD, Figures(FRAMES - 1, 9000.0, 0.0), 1.0, True, ""),  # too early
        (Figures(0, 0.0, 0.0), GOOD, 1.0, True, ""),  # nothing to compare with
    ],
)
def test_verdicts(before, after, ratio, same, expected):
    assert unfit(before, after, ratio, same_classes=same).startswith(expected)
    assert bool(unfit(before, after, ratio, same_classes=same)) == bool(expected)


def test_a_tally_tells_the_worst_of_a_hundred_and_the_mean():
    tally = Tally()
    assert tally.figures() == Figures(0, 0.0, 0.0)
    for age_ms in range(1, 101):
        tally.add("gate", float(age_ms), age_ms % 2)
    assert tally.figures() == Figures(100, 99.0, 0.5, {"gate": CameraFigures(100, 0.5)})


def of_two(gate: float, yard: float) -> Figures:
    return Figures(300, 40.0, (gate + yard) / 2, {"gate": CameraFigures(150, gate), "yard": CameraFigures(150, yard)})


@pytest.mark.parametrize(
    ("before", "after", "served_s", "expected"),
    [
        (of_two(2.0, 2.0), of_two(2.0, 0.0), SCENE_S, "camera yard: it found 0.00 objects a frame"),
        (of_two(2.0, 2.0), of_two(0.1, 2.0), SCENE_S, "camera gate: it found 0.10 objects a frame"),
        (of_two(2.0, 2.0), of_two(2.0, 0.0), SCENE_S - 1.0, ""),  # what left the scene may come back
        (of_two(2.0, 2.0), of_two(2.0, 0.5), SCENE_S, ""),  # fewer, and some
        (of_two(2.0, 0.1), of_two(2.0, 0.0), SCENE_S, ""),  # an empty yard
        (of_two(2.0, 2.0), Figures(300, 40.0, 2.0, {"gate": CameraFigures(300, 2.0)}), SCENE_S, ""),  # yard is off
    ],
)
def test_each_camera_is_judged_by_itself_once_its_scene_was_watched(before, after, served_s, expected):
    told = unfit(before, after, 1.0, same_classes=True, served_s=served_s)
    assert told.startswith(expected)
    assert bool(told) == bool(expected)
    assert not unfit(before, after, 1.0, same_classes=False, served_s=served_s)


def test_a_plan_so_slow_that_it_serves_few_frames_is_judged_by_those():
    slow = Figures(FEW, 3000.0, 2.0)
    assert "p99 of frame age is 3000 ms" in unfit(GOOD, slow, 1.0, same_classes=True, served_s=SCENE_S)
    assert not unfit(GOOD, slow, 1.0, same_classes=True, served_s=SCENE_S - 1.0)
    assert not unfit(GOOD, Figures(FEW - 1, 3000.0, 2.0), 1.0, same_classes=True, served_s=SCENE_S)
