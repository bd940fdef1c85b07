from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.engine import sensitivity
from vajra_edge.engine.drift import Drift
from vajra_edge.engine.sensitivity import AIM, CHEAP_PART, LEAST_PART, LIMIT, choose


class Bench:
    """Layers whose noise adds as squares; each image takes half a second."""

    def __init__(self, noise: dict[str, float]) -> None:
        self.noise = noise
        self.trials: list[frozenset[str]] = []
        self.now_s = 0.0

    def trial(self, on: frozenset[str], images: int) -> Drift:
        assert 1 <= images <= sensitivity.CONFIRM_IMAGES
        self.trials.append(on)
        self.now_s += images / 2
        size = math.sqrt(sum(self.noise[name] ** 2 for name in on))
        return Drift(size / 2, size / 2)

    def clock(self) -> float:
        return self.now_s


def even(count: int, noise: float) -> dict[str, float]:
    return {f"layer{at:03}": noise for at in range(count)}


def test_quiet_networks_are_quantized_whole() -> None:
    bench = Bench(even(20, 1e-4))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 100), 2000, 1000, bench.clock)
    assert found.point.high == frozenset()
    assert found.point.share == 1.0


def test_the_one_loud_layer_leaves_int8() -> None:
    bench = Bench(even(40, 1e-4) | {"layer017": 0.5})
    found = choose(bench.trial, dict.fromkeys(bench.noise, 100), 4000, 1000, bench.clock)
    assert found.point.high == {"layer017"}
    assert found.groups[0].layers == ("layer017",)


def test_where_the_aim_is_out_of_reach_the_cheap_share_is_taken_within_the_limit() -> None:
    bench = Bench(even(100, 0.0030))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 1000, 1000, bench.clock)
    assert not found.point.drift.within(AIM)
    assert found.point.drift.within(LIMIT)
    assert found.point.share == pytest.approx(CHEAP_PART)


def test_beyond_the_limit_more_leaves_int8_until_it_holds() -> None:
    bench = Bench(even(100, 0.0060))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 1000, 1000, bench.clock)
    assert found.point.drift.within(LIMIT)
    assert LEAST_PART <= found.point.share < CHEAP_PART


def test_hopeless_networks_stop_at_the_least_share() -> None:
    bench = Bench(even(50, 1.0))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 500, 1000, bench.clock)
    assert found.point.share == pytest.approx(LEAST_PART, abs=1 / 50)
    assert not found.point.drift.within(LIMIT)


def test_work_that_never_is_int8_counts_in_the_share() -> None:
    bench = Bench(even(10, 1e-4))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 200, 1000, bench.clock)
    assert found.point.share == 0.5


def test_where_no_layer_more_can_leave_the_best_that_was_found_is_kept() -> None:
    """Two layers, one of them nearly all of the work: nothing lies between the cheap and the least share."""
    bench = Bench({"large": 0.052, "small": 0.06})
    found = choose(bench.trial, {"large": 950, "small": 50}, 1000, 1000, bench.clock)
    assert found.point.high == {"small"}
    assert found.point.share == 0.95


@pytest.mark.parametrize("budget_s", [5.0, 30.0, 80.0, 400.0])
def test_time_is_kept_to(budget_s: float) -> None:
    bench = Bench(even(200, 0.01) | {"layer150": 0.5})
    choose(bench.trial, dict.fromkeys(bench.noise, 10), 2000, budget_s, bench.clock)
    assert bench.now_s <= budget_s + sensitivity.CONFIRM_IMAGES / 2


def test_without_time_little_is_measured_and_the_outcome_is_still_a_measured_one() -> None:
    bench = Bench(even(200, 0.01))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 2000, 0.0, bench.clock)
    assert len(bench.trials) <= 4
    assert found.point in found.curve


def test_where_the_static_rules_leave_little_in_int8_precision_is_bought_all_the_same() -> None:
    bench = Bench(even(40, 1e-4) | {"layer017": 0.5})
    found = choose(bench.trial, dict.fromkeys(bench.noise, 100), 10_000, 1000, bench.clock)
    assert found.point.high == {"layer017"}
    assert found.point.share == pytest.approx(0.39)


def test_with_little_time_the_loud_layer_is_still_cornered() -> None:
    bench = Bench(even(256, 1e-5) | {"layer150": 0.5})
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 2560, 60, bench.clock)
    assert "layer150" in found.point.high
    assert len(found.point.high) < 64


def test_the_curve_holds_every_mixture_that_was_measured_once() -> None:
    bench = Bench(even(50, 0.01))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 500, 1000, bench.clock)
    assert len({point.high for point in found.curve}) == len(found.curve)
    shares = [point.share for point in found.curve]
    assert shares == sorted(shares, reverse=True)
    assert found.point in found.curve
    assert set(found.point.to_json()) == {"layers_kept", "int8_share", "score_drift", "box_drift"}


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 1000)), min_size=1, max_size=40))
def test_whatever_the_network_the_share_stays_above_the_least(layers: list[tuple[float, int]]) -> None:
    noise = {f"layer{at}": size for at, (size, _) in enumerate(layers)}
    macs = {f"layer{at}": count for at, (_, count) in enumerate(layers)}
    bench = Bench(noise)
    found = choose(bench.trial, macs, sum(macs.values()), 1000, bench.clock)
    assert found.point.share >= LEAST_PART
    assert found.point.drift == bench.trial(frozenset(noise) - found.point.high, sensitivity.COST_IMAGES)
