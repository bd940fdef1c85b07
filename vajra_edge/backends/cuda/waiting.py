"""How a thread waits for the GPU: asleep where that costs little, polling where it does not.

Polling keeps a core busy for as long as the network takes, which on a board of six cores is a sixth of it; sleeping
costs an interrupt and a wake-up. How much that is depends on the kernel, so that it is measured with the work itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from vajra_edge.backends.cuda.resources import Event, Resource, Stream

ROUNDS = 9
"""Each way is tried as often, in turn; the median is what counts."""

SLEEP_MOST_S = 50e-6
"""What sleeping may cost a frame; of an engine of 4 ms on an Orin that is 1.3 %."""


@dataclass(frozen=True)
class WaitCost:
    """How long one piece of work takes with each way of waiting, in seconds."""

    polling_s: float
    sleeping_s: float

    @property
    def sleeps(self) -> bool:
        """Whether sleeping is cheap enough."""
        return self.sleeping_s - self.polling_s < SLEEP_MOST_S

    def __str__(self) -> str:
        cost_us = (self.sleeping_s - self.polling_s) * 1e6
        way = "asleep, which leaves its core to others" if self.sleeps else "polling"
        return f"waits for the GPU {way}: sleeping costs {cost_us:+.0f} us a frame of {self.polling_s * 1e3:.2f} ms"


class Waiter(Resource):
    """Waits for one stream, polling until ``measure`` found that sleeping is cheap.

    Args:
        stream: which one; whoever owns it closes it after this.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._event = Event()
        self._sleeps = False

    def measure(self, work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> WaitCost:
        """Take the better way from now on.

        Args:
            work: queues a frame's work, and calls ``wait`` of this.
            clock: in seconds.

        Raises:
            CudaRefused: the work failed.
        """
        taken: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for sleeps, seconds in taken.items():
                self._sleeps = sleeps
                began_s = clock()
                work()
                seconds.append(clock() - began_s)
        cost = WaitCost(median(taken[False]), median(taken[True]))
        self._sleeps = cost.sleeps
        return cost

    def wait(self) -> None:
        """Until everything queued now is done.

        Raises:
            CudaRefused: some queued work failed.
        """
        if not self._sleeps:
            self._stream.synchronize()
            return
        self._event.record(self._stream)
        self._event.synchronize()

    def close(self) -> None:
        """Give the event back; a second call does nothing."""
        self._event.close()
