from __future__ import annotations

import pytest

from vajra_edge.benchmark.spread import Spread


def test_nothing_measured_is_null_and_never_zero():
    assert Spread.of([]) == Spread(0, None, None, None, None)


@pytest.mark.parametrize(("count", "p99", "p99_9"), [(1, False, False), (99, False, False), (100, True, False)])
def test_a_percentile_that_so_few_measurements_cannot_tell_is_null(count, p99, p99_9):
    spread = Spread.of([1.0] * count)
    assert (spread.n, spread.p50, spread.max) == (count, 1.0, 1.0)
    assert (spread.p99 is not None, spread.p99_9 is not None) == (p99, p99_9)


def test_a_thousand_measurements_tell_all_of_them():
    spread = Spread.of([float(one) for one in range(1, 1001)])
    assert spread.p50 == pytest.approx(500.5)
    assert 990 <= spread.p99 <= 991
    assert 999 <= spread.p99_9 <= spread.max == 1000.0
