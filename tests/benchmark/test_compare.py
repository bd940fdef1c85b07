from __future__ import annotations

import random
from dataclasses import replace

import pytest
from benchmark.known import HOST, L4, SETUP, SUBJECT, figures

from vajra_edge.benchmark.compare import LEAST_TURNS, compare

STEADY = [20.0, 20.2, 19.9, 20.1, 20.0, 19.8, 20.1, 20.0]
"""Milliseconds a frame, turn by turn."""


def faster(turns, by=0.9):
    return [one * by for one in turns]


@pytest.mark.parametrize("by_turns", [True, False])
@pytest.mark.parametrize(("by", "word"), [(0.9, "faster"), (1.1, "slower")])
def test_a_clear_difference_is_told_with_its_interval(by_turns, by, word):
    told = compare(figures(STEADY), figures(faster(STEADY, by)), by_turns=by_turns)
    decides = told.figures[0]
    assert decides.figure == "frame_ms"
    assert decides.low <= decides.percent <= decides.high
    assert decides.percent == pytest.approx(100 * (by - 1), abs=0.5)
    assert told.verdict.startswith(f"B is {word} than A: ")
    assert f"({decides.low:+.1f} to {decides.high:+.1f} %)" in told.verdict


@pytest.mark.parametrize("by_turns", [True, False])
def test_the_same_again_is_no_difference(by_turns):
    told = compare(figures(STEADY), figures(STEADY[::-1]), by_turns=by_turns)
    assert told.verdict.startswith("no difference that this run can tell (")
    assert not told.differences
    assert not told.plans


@pytest.mark.parametrize("by_turns", [True, False])
def test_too_few_turns_decide_nothing_however_far_they_are_apart(by_turns):
    few = STEADY[: LEAST_TURNS - 1]
    told = compare(figures(few), figures(faster(few, 0.5)), by_turns=by_turns)
    assert told.verdict == (
        "no difference that this run can tell (there are 5 turns, and 6 are needed: measure for longer)"
    )
    assert told.figures[0].percent is None
    assert told.figures[0].b == pytest.approx(10.0)


def test_turns_side_by_side_tell_through_a_machine_whose_mood_changes():
    """Both get slower together; their quotient stays."""
    moods = [1.0, 1.4, 1.1, 2.0, 1.7, 1.3, 1.0, 1.6]
    ours = [20.0 * mood for mood in moods]
    told = compare(figures(ours), figures(faster(ours, 0.97)), by_turns=True)
    assert told.verdict.startswith("B is faster than A: -3.0 %")
    apart = compare(figures(ours), figures(faster(ours, 0.97)), by_turns=False)
    assert apart.verdict.startswith("no difference that this run can tell")


def test_a_run_that_drifts_widens_the_interval_of_files():
    drifting = [20.0, 20.1, 20.0, 20.1, 24.0, 24.1, 24.0, 24.1]
    told = compare(figures(STEADY), figures(drifting), by_turns=False)
    assert told.figures[0].low < 0.0 < told.figures[0].high


@pytest.mark.parametrize("by_turns", [True, False])
def test_two_runs_of_one_plan_are_seldom_told_apart(by_turns):
    dice = random.Random(1)

    def run():
        return figures([20.0 * dice.lognormvariate(0.0, 0.1) for _ in range(12)])

    wrong = sum("than A" in compare(run(), run(), by_turns=by_turns).verdict for _ in range(200))
    assert wrong <= 20, "one in twenty is allowed to chance"


def test_where_cameras_set_the_pace_the_latency_decides():
    paced = figures([None] * 8)
    slower = replace(paced, turns=tuple(replace(one, latency_p50_ms=45.0) for one in paced.turns))
    told = compare(paced, slower, by_turns=True)
    assert [one.figure for one in told.figures] == ["latency_p50_ms", "engine_ms"]
    assert told.verdict.startswith("B is slower than A: +50.0 % of latency_p50_ms")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"host": replace(HOST, cpu="Cortex-A78AE")}, "cpu: Xeon and Cortex-A78AE"),
        ({"host": replace(HOST, power_mode="15W")}, "power_mode: unknown and 15W"),
        ({"host": replace(HOST, governor="schedutil")}, "governor: unknown and schedutil"),
        ({"setup": replace(SETUP, threads=1)}, "threads: 2 and 1"),
        ({"setup": replace(SETUP, first_picture="0badcafe")}, "first_picture: 00c0ffee and 0badcafe"),
        ({"setup": replace(SETUP, cameras=4, fps=30.0)}, "cameras: unknown and 4"),
    ],
)
def test_another_machine_or_setup_is_named(changed, told):
    assert told in compare(figures(STEADY), figures(STEADY, **changed), by_turns=False).differences


def test_another_card_or_clock_limit_is_named_and_its_clock_of_the_moment_is_not():
    a = figures(STEADY, host=replace(HOST, gpu=L4))
    moved = replace(L4, clock_mhz=300.0)
    assert not compare(a, figures(STEADY, host=replace(HOST, gpu=moved)), by_turns=False).differences
    slowed = replace(L4, max_clock_mhz=1000.0)
    b = figures(STEADY, host=replace(HOST, gpu=slowed))
    assert compare(a, b, by_turns=False).differences == ("gpu.max_clock_mhz: 2040.0 and 1000.0",)


def test_a_plan_on_the_cpu_and_one_on_the_gpu_of_one_machine_are_compared():
    b = figures(STEADY, host=replace(HOST, gpu=L4), subject=replace(SUBJECT, target="gpu:0"))
    told = compare(figures(STEADY), b, by_turns=False)
    assert told.plans == ("target: cpu and gpu:0",)
    assert not told.differences


def test_turns_of_one_run_are_of_one_machine_and_may_have_two_setups():
    b = figures(STEADY, host=replace(HOST, load_1min=9.0, max_cpu_mhz=1.0), setup=replace(SETUP, threads=1))
    assert compare(figures(STEADY), b, by_turns=True).differences == ("threads: 2 and 1",)


def test_what_belongs_to_the_plans_is_what_is_compared():
    b = figures(STEADY, subject=replace(SUBJECT, precision="int8"), version="0.2.0")
    told = compare(figures(STEADY), b, by_turns=False)
    assert told.plans == ("precision: fp32 and int8", "vajra-edge: 0.1.0 and 0.2.0")
    assert not told.differences


def test_the_state_of_the_moment_and_the_length_are_no_other_setup():
    host = replace(HOST, load_1min=2.0, temperature_c=70.0)
    b = figures(STEADY, host=host, setup=replace(SETUP, seconds=60.0, turn_s=1.2))
    assert not compare(figures(STEADY), b, by_turns=False).differences
