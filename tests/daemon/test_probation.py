from __future__ import annotations

import pytest

from vajra_edge.daemon.probation import FEW, FRAMES, SCENE_S, CameraFigures, Figures, Tally, unfit

GOOD = Figures(300, 20.0, 40.0, 2.0)


@pytest.mark.parametrize(
    ("before", "after", "ratio", "same", "expected"),
    [
        (GOOD, Figures(300, 25.0, 45.0, 1.8), 1.0, True, ""),
        (
            GOOD,
            Figures(300, 450.0, 900.0, 2.0),
            1.0,
            True,
            "frame age is 450 ms (p99 900 ms), with the plan before 20 ms",
        ),
        (GOOD, Figures(300, 21.0, 9000.0, 2.0), 1.0, True, ""),  # a neighbour's spike
        (Figures(300, 20.0, 900.0, 2.0), Figures(300, 450.0, 900.0, 2.0), 1.0, True, ""),  # it came before as well
        (GOOD, Figures(300, 450.0, 900.0, 2.0), 8.0, True, ""),  # a network that the gate measured eight times slower
        (GOOD, Figures(300, 450.0, 900.0, 2.0), None, True, ""),  # not measured: not judged
        (GOOD, Figures(300, 190.0, 290.0, 2.0), 0.1, True, ""),  # five times older, within the grace
        (GOOD, Figures(300, 20.0, 40.0, 0.0), 1.0, True, "it found nothing in 300 frames, the plan before 2.0 objects"),
        (GOOD, Figures(300, 20.0, 40.0, 0.0), 1.0, False, ""),  # other classes
        (Figures(300, 20.0, 40.0, 0.1), Figures(300, 20.0, 40.0, 0.0), 1.0, True, ""),  # an empty scene
        (GOOD, Figures(FRAMES - 1, 9000.0, 9000.0, 0.0), 1.0, True, ""),  # too early
        (Figures(0, 0.0, 0.0, 0.0), GOOD, 1.0, True, ""),  # nothing to compare with
    ],
)
def test_verdicts(before, after, ratio, same, expected):
    assert unfit(before, after, ratio, same_classes=same).startswith(expected)
    assert bool(unfit(before, after, ratio, same_classes=same)) == bool(expected)


@pytest.mark.parametrize("cameras", [1, 16])
def test_a_neighbour_s_spike_that_holds_up_two_batches_rolls_no_plan_back(cameras):
    """Of the first frames of a plan it makes two in a hundred late with one camera, and three in ten with sixteen."""
    before, after = Tally(), Tally()
    for turn in range(FRAMES):
        for camera in range(cameras):
            before.add(str(camera), 30.0, 2)
            if turn * cameras < FRAMES:
                after.add(str(camera), 4000.0 if turn in (1, 2) else 30.0, 2)
    assert after.figures().age_p99_ms == 4000.0
    assert unfit(before.figures(), after.figures(), 1.0, same_classes=True) == ""


def test_a_plan_most_of_whose_frames_are_old_is_late():
    before, after = Tally(), Tally()
    for _ in range(FRAMES):
        before.add("gate", 30.0, 2)
        after.add("gate", 260.0, 2)
    told = unfit(before.figures(), after.figures(), 1.0, same_classes=True)
    assert told == "frame age is 260 ms (p99 260 ms), with the plan before 30 ms (30 ms)"


def test_a_tally_tells_the_worst_of_a_hundred_and_the_mean():
    tally = Tally()
    assert tally.figures() == Figures(0, 0.0, 0.0, 0.0)
    for age_ms in range(1, 101):
        tally.add("gate", float(age_ms), age_ms % 2)
    assert tally.figures() == Figures(100, 50.0, 99.0, 0.5, {"gate": CameraFigures(100, 0.5)})


def of_two(gate: float, yard: float) -> Figures:
    return Figures(
        300, 20.0, 40.0, (gate + yard) / 2, {"gate": CameraFigures(150, gate), "yard": CameraFigures(150, yard)}
    )


@pytest.mark.parametrize(
    ("before", "after", "served_s", "expected"),
    [
        (of_two(2.0, 2.0), of_two(2.0, 0.0), SCENE_S, "camera yard: it found 0.00 objects a frame"),
        (of_two(2.0, 2.0), of_two(0.1, 2.0), SCENE_S, "camera gate: it found 0.10 objects a frame"),
        (of_two(2.0, 2.0), of_two(2.0, 0.0), SCENE_S - 1.0, ""),  # what left the scene may come back
        (of_two(2.0, 2.0), of_two(2.0, 0.5), SCENE_S, ""),  # fewer, and some
        (of_two(2.0, 0.1), of_two(2.0, 0.0), SCENE_S, ""),  # an empty yard
        (
            of_two(2.0, 2.0),
            Figures(300, 20.0, 40.0, 2.0, {"gate": CameraFigures(300, 2.0)}),
            SCENE_S,
            "",
        ),  # yard is off
    ],
)
def test_each_camera_is_judged_by_itself_once_its_scene_was_watched(before, after, served_s, expected):
    told = unfit(before, after, 1.0, same_classes=True, served_s=served_s)
    assert told.startswith(expected)
    assert bool(told) == bool(expected)
    assert not unfit(before, after, 1.0, same_classes=False, served_s=served_s)


def test_a_plan_so_slow_that_it_serves_few_frames_is_judged_by_those():
    slow = Figures(FEW, 3000.0, 3000.0, 2.0)
    assert "frame age is 3000 ms" in unfit(GOOD, slow, 1.0, same_classes=True, served_s=SCENE_S)
    assert not unfit(GOOD, slow, 1.0, same_classes=True, served_s=SCENE_S - 1.0)
    assert not unfit(GOOD, Figures(FEW - 1, 3000.0, 3000.0, 2.0), 1.0, same_classes=True, served_s=SCENE_S)
