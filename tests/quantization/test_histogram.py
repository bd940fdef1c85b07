from __future__ import annotations

import numpy as np
import pytest

from vajra_edge.quantization.observer import BINS, limit


def counts(values: np.ndarray, amax: float) -> np.ndarray:
    return np.histogram(np.abs(values), bins=BINS, range=(0, amax))[0].astype(np.int64)


@pytest.fixture(scope="module")
def bell() -> np.ndarray:
    return np.append(np.random.default_rng(0).normal(0, 1, 200_000), 50.0)


def test_minmax_holds_everything(bell) -> None:
    assert limit(counts(bell, 50.0), 50.0, "minmax") == 50.0


@pytest.mark.parametrize(("algorithm", "most"), [("percentile", 10), ("entropy", 10), ("mse", 30)])
def test_one_outlier_is_clipped(bell, algorithm: str, most: float) -> None:
    assert 2.5 < limit(counts(bell, 50.0), 50.0, algorithm) < most


def test_percentile_clips_one_value_in_ten_thousand(bell) -> None:
    most = limit(counts(bell, 50.0), 50.0, "percentile")
    assert np.mean(np.abs(bell) > most) == pytest.approx(1e-4, abs=2e-5)


def test_least_squared_error_beats_its_neighbours(bell) -> None:
    def error(most: float) -> float:
        step = most / 127
        return float(np.mean((np.clip(np.rint(bell / step), -127, 127) * step - bell) ** 2))

    best = limit(counts(bell, 50.0), 50.0, "mse")
    assert error(best) <= min(error(best * 0.8), error(best * 1.25), error(50.0))


@pytest.mark.parametrize("algorithm", ["percentile", "entropy", "mse"])
def test_an_even_spread_is_hardly_clipped(algorithm: str) -> None:
    assert limit(counts(np.linspace(0, 1, 100_000), 1.0), 1.0, algorithm) > 0.95


@pytest.mark.parametrize("algorithm", ["minmax", "percentile", "entropy", "mse"])
def test_a_tensor_of_zeros_keeps_its_range(algorithm: str) -> None:
    assert limit(np.zeros(BINS, np.int64), 0.0, algorithm) == 0.0
