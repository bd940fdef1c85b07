from __future__ import annotations

import pytest

from vajra_edge.build.progress import OutOfTime, WalkProgress
from vajra_edge.progress import Progress


class Watched:
    def __init__(self, until_s: float = 100.0) -> None:
        self.now_s = 0.0
        self.told: list[Progress] = []
        self.pace = WalkProgress(self.told.append, lambda: self.now_s, until_s)

    def build(self, percent: float | None, eta_s: float | None = None, message: str = "tactics") -> Progress:
        self.pace.report(Progress("build", percent, message, eta_s))
        return self.told[-1]


def test_one_build_alone_is_reported_as_it_is_with_its_name():
    watched = Watched()
    watched.pace.begin("fp16", following=0, spared=False)
    assert watched.build(40.0, 30.0) == Progress("build", 40.0, "fp16: tactics", 30.0)
    assert watched.build(None, message="") == Progress("build", 40.0, "fp16", None)


def test_builds_that_follow_count_in_percent_and_in_the_time_that_is_left():
    watched = Watched()
    watched.pace.begin("int8", following=1, spared=True)
    watched.build(0.0)
    watched.now_s = 20.0
    assert watched.build(50.0, 20.0) == Progress("build", 25.0, "int8, 1 of 2: tactics", 60.0)
    watched.pace.begin("fp16 to compare with", following=0, spared=True)
    assert watched.build(50.0, 5.0) == Progress("build", 75.0, "fp16 to compare with, 2 of 2: tactics", 5.0)


def test_percent_never_goes_back_when_a_build_comes_to_nothing():
    watched = Watched()
    watched.pace.begin("int8", following=0, spared=True)
    assert watched.build(90.0).percent == 90.0
    watched.pace.begin("fp16", following=0, spared=False)
    assert watched.build(0.0).percent == 90.0
    assert watched.build(96.0).percent == 98.0


def test_other_stages_are_passed_on():
    watched = Watched()
    watched.pace.begin("int8", following=1, spared=True)
    watched.pace.report(Progress("verify", 10.0, "frame 1"))
    assert watched.told == [Progress("verify", 10.0, "frame 1")]


@pytest.mark.parametrize("stage", ["calibrate", "build"])
def test_when_time_is_up_what_can_be_spared_is_cut_short(stage: str):
    watched = Watched()
    watched.pace.begin("int8", following=0, spared=True)
    watched.now_s = 100.5
    with pytest.raises(OutOfTime, match="build_timeout_s"):
        watched.pace.report(Progress(stage))
    watched.pace.report(Progress("verify"))
    watched.pace.begin("fp16", following=0, spared=False)
    watched.pace.report(Progress(stage))
    assert watched.pace.left_s == -0.5
