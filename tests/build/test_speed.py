from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vajra_edge.build import attempt

BATCH = np.zeros((2, 3, 4, 4), np.float32)


class Timed:
    """A runner whose calls take what a list says, over and over."""

    def __init__(self, name: str, taken_ms: list[float], log: list[str], clock: list[float]) -> None:
        self.name, self.taken_ms, self.log, self.clock = name, taken_ms, log, clock

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        assert batch is BATCH
        self.clock[0] += self.taken_ms[self.log.count(self.name) % len(self.taken_ms)] / 1e3
        self.log.append(self.name)
        return batch


def test_plans_are_timed_by_turns_and_an_odd_call_does_not_count():
    log, clock = [], [0.0]
    first = Timed("first", [2.0, 2.0, 2.0, 2.0, 90.0], log, clock)
    second = Timed("second", [3.0], log, clock)
    times_ms = attempt.by_turns(first, second, BATCH, clock=lambda: clock[0])
    assert np.allclose(times_ms, (2.0, 3.0))
    assert log.count("first") == log.count("second") == attempt.WARM_UP + attempt.CALLS
    assert all(set(log[at : at + 2]) == {"first", "second"} for at in range(0, len(log), 2))
    assert {log[at] for at in range(0, len(log), 2)} == {"first", "second"}, "neither always goes first"
