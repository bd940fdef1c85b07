"""Lent: one runner for several detectors at a time, so that predict may be called inside a loop over predict."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vajra_edge.engine.backend import Runner


class Lent:
    """A Runner over another's: calls take turns, outputs are copies, and closing it leaves the other open.

    Args:
        runner: stays its owner's.
        turn: held during each call.
    """

    def __init__(self, runner: Runner, turn: Lock) -> None:
        self.signature = runner.signature
        self._runner = runner
        self._turn = turn

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Runner.infer``; valid for good."""
        with self._turn:
            return self._runner.infer(batch).copy()

    def close(self) -> None:
        """Nothing: the owner closes."""
