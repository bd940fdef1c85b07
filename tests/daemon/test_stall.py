from __future__ import annotations

import math

import pytest

from vajra_edge.daemon.stall import STILL_S, Clocks, Stillness
from vajra_edge.daemon.systemd import Notify
from vajra_edge.daemon.watchdog import Beats, Watchdog


class World:
    """Clocks that go on as told."""

    def __init__(self) -> None:
        self.now = Clocks(100.0, 100.0, 0.0)

    def __call__(self) -> Clocks:
        return self.now

    def passes(self, monotonic_s: float, asleep_s: float = 0.0, cpu_s: float = 0.0) -> float:
        before = self.now
        self.now = Clocks(
            before.monotonic_s + monotonic_s, before.boot_s + monotonic_s + asleep_s, before.cpu_s + cpu_s
        )
        return self.now.monotonic_s


CASES = {
    "nobody moves": ((22.0, 0.0, 0.0), 22.0, "the board stood still for 22 s"),
    "a library holds all threads": (
        (22.0, 0.0, 21.0),
        22.0,
        "a library kept every thread of the daemon waiting for 22 s",
    ),
    "the board sleeps": ((1.5, 3600.0, 0.0), 0.0, "the board slept for 3600 s"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_gap_between_all_signs_of_life_is_a_stall_by_its_kind(name: str):
    passed, gap_s, line = CASES[name]
    world, stillness = World(), Stillness(STILL_S, lambda: world.now)
    for _ in range(20):
        assert stillness.alive(world.passes(0.25)) == 0.0
    assert stillness.alive(world.passes(*passed)) == pytest.approx(gap_s, abs=0.01)
    (stall,) = stillness.stalls
    assert stall.line == line
    assert stillness.alive(world.passes(0.25)) == 0.0


def test_signs_of_one_loop_alone_are_enough_against_a_stall():
    world, stillness = World(), Stillness(STILL_S, lambda: world.now)
    for _ in range(30):
        stillness.alive(world.passes(1.0))
    assert not stillness.stalls


def test_who_wants_no_stalls_has_none():
    world, stillness = World(), Stillness(math.inf, lambda: world.now)
    stillness.alive(world.passes(1.0))
    assert stillness.alive(world.passes(3600.0, 7200.0)) == 0.0
    assert not stillness.stalls


class Hand:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def run(clock: Hand, beats: Beats, seconds: float, *loops: object) -> None:
    """Each loop beats twice a second, and somebody looks."""
    for _ in range(int(2 * seconds)):
        clock.now_s += 0.5
        for loop in loops:
            loop()
        beats.late()


@pytest.mark.parametrize("first", ["a look", "a beat"])
def test_after_everything_stood_still_each_loop_gets_the_rest_of_its_time_whoever_moves_first(first: str):
    clock, sent = Hand(), []
    beats = Beats(clock, still_s=STILL_S)
    pipeline, mqtt = beats.expect("pipeline", 10.0), beats.expect("mqtt", 10.0)
    watchdog = Watchdog(Notify(sent.append, watchdog_s=30.0), beats)
    run(clock, beats, 20, pipeline, mqtt)
    clock.now_s += 60.0
    if first == "a beat":
        mqtt()
    assert watchdog.tick(clock.now_s, serving=True) == ()
    assert sent == ["WATCHDOG=1"]
    assert [stall.line for stall in beats.stalls()] == ["the board stood still for 60 s"]
    run(clock, beats, 9.0, mqtt)
    assert beats.late() == ()
    run(clock, beats, 2.0, mqtt)
    assert [late.name for late in beats.late()] == ["pipeline"], "one that does not come back is late in the end"


def test_a_loop_that_hangs_by_itself_is_late_while_the_others_go_on():
    clock = Hand()
    beats = Beats(clock, still_s=STILL_S)
    beats.expect("camera gate", 10.0)
    mqtt = beats.expect("mqtt", 10.0)
    run(clock, beats, 11, mqtt)
    assert [late.name for late in beats.late()] == ["camera gate"]
    assert beats.stalls() == ()
