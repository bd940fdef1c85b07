"""Nested phases become a share that never falls; nothing that a report raises reaches the builder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.backends.tensorrt.progress import BuildPhases, BuildWatch
from vajra_edge.errors import BuildCancelled
from vajra_edge.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_share_of_a_nested_phase_counts_within_its_parent_s_step() -> None:
    phases = BuildPhases()
    phases.start("build", None, 4)
    phases.start("clone", "build", 10)
    phases.step("clone", 4)
    assert phases.share == pytest.approx(0.125)
    phases.finish("clone")
    phases.step("build", 0)
    phases.start("time", "build", 2)
    phases.start("nodes", "time", 4)
    phases.step("nodes", 1)
    assert phases.share == pytest.approx(0.25 + 0.25 * 0.5 * 0.5)
    phases.finish("nodes")
    phases.finish("time")
    phases.finish("build")
    assert phases.share == 1.0


@given(st.lists(st.tuples(st.sampled_from(["start", "step", "finish"]), st.sampled_from("abc"), st.integers(0, 5))))
def test_whatever_the_library_calls_the_share_stays_between_0_and_1_and_never_falls(
    calls: list[tuple[str, str, int]],
) -> None:
    phases, before = BuildPhases(), 0.0
    phases.start("root", None, 3)
    for call, name, number in calls:
        if call == "start":
            phases.start(name, "root", number)
        elif call == "step":
            phases.step(name, number)
        else:
            phases.finish(name)
        assert before <= phases.share <= 1.0
        before = phases.share


def test_an_unknown_phase_is_ignored() -> None:
    phases = BuildPhases()
    phases.step("never started", 3)
    phases.finish("never started")
    assert phases.share == 0.0


def test_equal_percents_are_told_once_a_second() -> None:
    clock, seen = Clock(), list[Progress]()
    watch = BuildWatch(seen.append, clock=clock)
    watch.start("build", None, 10_000)
    for step in range(50):
        watch.step("build", step)
    assert len(seen) == 1
    clock.now_s += 1.0
    watch.step("build", 50)
    assert len(seen) == 2


def test_the_time_left_follows_the_pace_of_the_last_half_minute() -> None:
    clock, seen = Clock(), list[Progress]()
    watch = BuildWatch(seen.append, clock=clock)
    watch.start("build", None, 100)
    watch.step("build", 49)  # half of the work in no time: cloning and fusing
    for step in range(50, 60):
        clock.now_s += 10.0
        watch.step("build", step)
    assert seen[-1].eta_s == pytest.approx(400, rel=0.35)  # 40 steps of 10 s


def test_the_time_left_follows_the_earlier_build_while_that_holds() -> None:
    clock, seen = Clock(), list[Progress]()
    watch = BuildWatch(seen.append, expected_s=300.0, clock=clock)
    watch.start("build", None, 100)
    clock.now_s += 60.0
    watch.step("build", 0)
    assert seen[-1].eta_s == pytest.approx(240.0)
    clock.now_s += 300.0
    watch.step("build", 49)
    assert seen[-1].eta_s != pytest.approx(-60.0)


@pytest.mark.parametrize("error", [BuildCancelled("stop"), BrokenPipeError("the parent is gone"), KeyboardInterrupt()])
def test_what_a_report_raises_stops_the_builder_and_comes_out_afterwards(error: BaseException) -> None:
    calls = 0

    def report(_: Progress) -> None:
        nonlocal calls
        calls += 1
        raise error

    watch = BuildWatch(report)
    watch.start("build", None, 2)
    assert watch.step("build", 0) is False
    watch.finish("build")
    assert calls == 1
    with pytest.raises(type(error)):
        watch.settle()
