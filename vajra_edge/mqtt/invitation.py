"""Invitation: whether requests are asked for, which somebody who sends monsters must not turn into a device offline.

A packet that is larger than any request costs the connection, for there is no other way not to receive it. The broker
may have it again at the next subscription, where it is retained, or its sender may go on. So the device comes back
without asking for requests, for a while that doubles each time.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_OFF_S, LONGEST_OFF_S = 60.0, 3600.0

FORGIVEN_S = 3600.0
"""After this long with requests and without a monster the next one counts as the first."""


class Invitation:
    """Of one broker. Used by one thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times = 0
        self._off_until_s = float("-inf")

    @property
    def stands(self) -> bool:
        """Whether to ask the broker for requests."""
        return self._clock() >= self._off_until_s

    def abused(self) -> float:
        """A monster came; returns for how many seconds no requests are asked for."""
        now_s = self._clock()
        self._times = self._times + 1 if now_s < self._off_until_s + FORGIVEN_S else 1
        off_s = min(FIRST_OFF_S * 2.0 ** min(self._times - 1, 16), LONGEST_OFF_S)
        self._off_until_s = now_s + off_s
        return off_s
