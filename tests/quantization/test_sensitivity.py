from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.quantization import layer_search
from vajra_edge.quantization.layer_search import AIM, CHEAP_PART, LEAST_PART, LIMIT, Drift, choose


class Bench:
    """Layers whose noise adds as squares."""

    def __init__(self, noise: dict[str, float]) -> None:
        self.noise = noise
        self.trials: list[frozenset[str]] = []
        self.images = 0

    def trial(self, on: frozenset[str], images: int) -> Drift:
        assert 1 <= images <= layer_search.CONFIRM_IMAGES
        self.trials.append(on)
        self.images += images
        size = math.sqrt(sum(self.noise[name] ** 2 for name in on))
        return Drift(size / 2, size / 2)


def even(count: int, noise: float) -> dict[str, float]:
    return {f"layer{at:03}": noise for at in range(count)}


def test_quiet_networks_are_quantized_whole() -> None:
    bench = Bench(even(20, 1e-4))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 100), 2000)
    assert found.point.high == frozenset()
    assert found.point.share == 1.0


def test_the_one_loud_layer_leaves_int8() -> None:
    bench = Bench(even(40, 1e-4) | {"layer017": 0.5})
    found = choose(bench.trial, dict.fromkeys(bench.noise, 100), 4000)
    assert found.point.high == {"layer017"}
    assert found.groups[0].layers == ("layer017",)


def test_where_the_aim_is_out_of_reach_the_cheap_share_is_taken_within_the_limit() -> None:
    bench = Bench(even(100, 0.0030))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 1000)
    assert not found.point.drift.within(AIM)
    assert found.point.drift.within(LIMIT)
    assert found.point.share == pytest.approx(CHEAP_PART)


def test_beyond_the_limit_more_leaves_int8_until_it_holds() -> None:
    bench = Bench(even(100, 0.0060))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 1000)
    assert found.point.drift.within(LIMIT)
    assert LEAST_PART <= found.point.share < CHEAP_PART


def test_hopeless_networks_stop_at_the_least_share() -> None:
    bench = Bench(even(50, 1.0))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 500)
    assert found.point.share == pytest.approx(LEAST_PART, abs=1 / 50)
    assert not found.point.drift.within(LIMIT)


def test_work_that_never_is_int8_counts_in_the_share() -> None:
    bench = Bench(even(10, 1e-4))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 200)
    assert found.point.share == 0.5


def test_where_no_layer_more_can_leave_the_best_that_was_found_is_kept() -> None:
    """Two layers, one of them nearly all of the work: nothing lies between the cheap and the least share."""
    bench = Bench({"large": 0.052, "small": 0.06})
    found = choose(bench.trial, {"large": 950, "small": 50}, 1000)
    assert found.point.high == {"small"}
    assert found.point.share == 0.95


def test_where_the_static_rules_leave_little_in_int8_precision_is_bought_all_the_same() -> None:
    bench = Bench(even(40, 1e-4) | {"layer017": 0.5})
    found = choose(bench.trial, dict.fromkeys(bench.noise, 100), 10_000)
    assert found.point.high == {"layer017"}
    assert found.point.share == pytest.approx(0.39)


@pytest.mark.parametrize("noise", [1e-5, 0.002, 0.006, 1.0])
def test_inferences_are_counted_before_they_are_made(noise: float) -> None:
    bench = Bench(even(200, noise) | {"layer150": 0.5})
    layers = dict.fromkeys(bench.noise, 10)
    choose(bench.trial, layers, 2000)
    assert bench.images <= layer_search.most_images(layers)


def test_small_layers_are_measured_together_and_large_ones_alone() -> None:
    bench = Bench(even(20, 0.01))
    layers = {name: 1000 if at % 2 else 10 for at, name in enumerate(bench.noise)}
    found = choose(bench.trial, layers, sum(layers.values()))
    assert sorted(len(group.layers) for group in found.groups) == [1] * 10 + [10]


def test_layers_of_other_size_are_not_measured_together() -> None:
    bench = Bench(even(30, 0.01))
    layers = {name: (1000, 1, 8)[at % 3] for at, name in enumerate(bench.noise)}
    found = choose(bench.trial, layers, sum(layers.values()))
    assert all(len({layers[name] for name in group.layers}) == 1 for group in found.groups)


def test_the_loud_one_of_many_small_layers_takes_few_others_with_it() -> None:
    bench = Bench(even(256, 1e-5) | {"layer150": 0.5})
    layers = {name: 1 if at % 2 == 0 else 20 for at, name in enumerate(bench.noise)}
    found = choose(bench.trial, layers, sum(layers.values()))
    assert "layer150" in found.point.high
    assert found.point.share > 0.99


def depthwise(dice: random.Random) -> tuple[dict[str, float], dict[str, int]]:
    """Pairs of a depthwise layer and a pointwise one of many times its work, as in YOLOX-nano."""
    macs = {"stem": 70_000_000}
    for at in range(50):
        work = 2_770_000 * 2 ** dice.randrange(3)
        macs |= {f"thin{at}": work // 7, f"point{at}": work}
    return {name: dice.lognormvariate(0, 1.5) for name in macs}, macs


def blocks(dice: random.Random) -> tuple[dict[str, float], dict[str, int]]:
    """Layers of all sizes, noise growing with work and a tenth of them silent, as in VajraV1-nano."""
    macs = {f"layer{at}": 460_000 * 2 ** dice.randrange(10) for at in range(115)}
    loud = {name: dice.lognormvariate(0, 1.0) * math.sqrt(work) for name, work in macs.items()}
    return {name: noise * (dice.random() > 0.1) for name, noise in loud.items()}, macs


def exhaustive(noise: dict[str, float], macs: dict[str, int]) -> float:
    """INT8 share that is found where every layer is ranked alone and every mixture measured."""
    order = sorted(macs, key=lambda name: -(noise[name] ** 2) / macs[name])
    total = sum(macs.values())

    def largest(bound: Drift, part_to: float) -> tuple[float, float]:
        on = set(macs)
        for name in [None, *order]:
            if name and sum(macs[each] for each in on) - macs[name] >= part_to * total:
                on.remove(name)
            size = math.sqrt(sum(noise[each] ** 2 for each in on))
            if size / 2 <= bound.score:
                break
        return sum(macs[each] for each in on) / total, size / 2

    share, drift = largest(AIM, CHEAP_PART)
    return share if drift <= LIMIT.score else largest(LIMIT, LEAST_PART)[0]


@pytest.mark.parametrize("network", [depthwise, blocks])
@pytest.mark.parametrize("seed", range(40))
def test_the_share_is_near_that_of_measuring_every_layer(network: Callable[..., Any], seed: int) -> None:
    dice = random.Random(seed)
    noise, macs = network(dice)
    quiet = sorted(noise.values())[: int(len(noise) * dice.uniform(0.5, 0.9))]
    scale = 2 * LIMIT.score / math.hypot(*quiet)  # the loud rest has to leave INT8, or about as much work
    noise = {name: scale * size for name, size in noise.items()}
    bench = Bench(noise)
    found = choose(bench.trial, macs, sum(macs.values()))
    assert found.point.share >= exhaustive(noise, macs) - 0.02
    assert bench.images < 2 * len(macs)


def test_the_curve_holds_every_mixture_that_was_measured_once() -> None:
    bench = Bench(even(50, 0.01))
    found = choose(bench.trial, dict.fromkeys(bench.noise, 10), 500)
    assert len({point.high for point in found.curve}) == len(found.curve)
    shares = [point.share for point in found.curve]
    assert shares == sorted(shares, reverse=True)
    assert found.point in found.curve
    assert found.point.mixture().layers_kept == len(found.point.high)


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 1000)), min_size=1, max_size=40))
def test_whatever_the_network_the_share_stays_above_the_least(layers: list[tuple[float, int]]) -> None:
    noise = {f"layer{at}": size for at, (size, _) in enumerate(layers)}
    macs = {f"layer{at}": count for at, (_, count) in enumerate(layers)}
    bench = Bench(noise)
    found = choose(bench.trial, macs, sum(macs.values()))
    assert found.point.share >= LEAST_PART
    assert found.point.drift == bench.trial(frozenset(noise) - found.point.high, layer_search.COST_IMAGES)
