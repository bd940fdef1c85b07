from __future__ import annotations

import pytest

from vajra_edge.daemon.probation import FRAMES, Figures, Tally, unfit

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
        tally.add(float(age_ms), age_ms % 2)
    assert tally.figures() == Figures(100, 99.0, 0.5)
