from __future__ import annotations

from dataclasses import replace

import pytest
from benchmark.known import SUBJECT
from benchmark.test_record import heard, path

from vajra_edge.benchmark import run
from vajra_edge.benchmark.contender import SLICE_S, Contender, bare_ms
from vajra_edge.benchmark.meter import Meter
from vajra_edge.inference.detector import Filter
from vajra_edge.mqtt.messages import EngineTag


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 1.0
        return self.now_s


class Scene:
    def __init__(self):
        self.capture_ms = ()
        self.seen = []
        self.suited_ms = None

    def suit(self, engine_ms):
        self.suited_ms = engine_ms

    def turn(self, contender, meter, seconds):
        self.seen.append(contender.subject.name)
        return path(full=[heard(0), heard(20)], paced=[heard(0)])

    def close(self):
        pass


class Engine:
    """Takes a millisecond a call and keeps how it was called."""

    def __init__(self):
        self.asked = []

    def bare_ms(self, seconds, count):
        self.asked.append((seconds, count))
        return 1.0


def contender(name, engine=None):
    tag = EngineTag("ab", "fp32", "cpu", ())
    return Contender(replace(SUBJECT, name=name), engine or Engine(), tag, Filter())


def test_two_take_turns_in_the_opposite_order_each_time(monkeypatch):
    """The first of a pair meets what the second left: that must not be always the same one."""
    monkeypatch.setattr(run, "TURN_S", 0.001)
    scene, engines = Scene(), (Engine(), Engine())
    both = [contender("a", engines[0]), contender("b", engines[1])]
    records, _ = run.measure(both, scene, 0.0, [Meter(None), Meter(None)], [1, 4], least_turns=4, clock_s=Clock())
    assert "".join(scene.seen) == "ab" + "abbaabba", "a pair to warm up, then pairs"
    assert [set(engine.asked) for engine in engines] == [{(SLICE_S, 1)}, {(SLICE_S, 4)}]
    assert [len(record.turns) for record in records] == [4, 4]


def test_the_source_has_to_suit_the_fastest_engine():
    class Slow(Engine):
        def bare_ms(self, seconds, count):
            return 9.0

    scene, both = Scene(), [contender("a", Slow()), contender("b")]
    run.measure(both, scene, 0.0, [Meter(None)] * 2, [1, 1], clock_s=Clock())
    assert scene.suited_ms == 1.0


def test_it_goes_on_for_as_long_as_was_asked_for_and_takes_enough_turns(monkeypatch):
    monkeypatch.setattr(run, "TURN_S", 0.001)
    long = run.measure([contender("a")], Scene(), 9.0, [Meter(None)], [1], clock_s=Clock())[0]
    short = run.measure([contender("a")], Scene(), 0.0, [Meter(None)], [1], clock_s=Clock())[0]
    assert len(long[0].turns) > len(short[0].turns) == run.LEAST_TURNS


@pytest.mark.parametrize(("engine_ms", "length_s"), [(0.5, 0.75), (125.0, 1.0), (1000.0, 8.0), (60_000.0, 30.0)])
def test_a_turn_holds_several_frames_of_a_slow_engine_and_ends_some_day(engine_ms, length_s):
    assert run.turn_s(engine_ms) == length_s


def test_the_bare_engine_has_a_mean_for_each_slice_and_one_at_the_least():
    engine = Engine()
    assert bare_ms(engine, 2, 0.0, Clock()) == [1.0]
    assert bare_ms(engine, 2, 3.0, Clock()) == [1.0] * 3
    assert set(engine.asked) == {(SLICE_S, 2)}
