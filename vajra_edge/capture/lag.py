"""Lag: how far behind its camera a stream is read, told by the time stamps of its frames. Pure."""

from __future__ import annotations

_SHARE = 1.0 / 8.0  # of what a frame that was waited for came late is taken for the camera's clock; eight such are all
_BACK_S, _FORTH_S = 0.5, 2.0  # stamps that step further than that are counted anew by the camera


class StreamLag:
    """Holds the progress of the stamps against the clock.

    From a frame's stamp to now is a distance that means nothing by itself; the least that was seen is that of a frame
    that came at once, and what another one has above it is its lag. A frame that had to be waited for had nothing
    before it in the line, so that a distance which grew then is the camera's clock, and the least follows it. Without a
    wait it only ever falls. So neither a clock that is slow nor stamps at a wrong rate look like a backlog, and a
    backlog is remembered, however slowly it grows.
    """

    def __init__(self) -> None:
        self._least_s: float | None = None
        self._stamp_s = self._now_s = self._lag_s = 0.0  # of the last frame

    def of(self, stamp_s: float | None, now_s: float, *, waited: bool) -> float:
        """How late a frame is that was decoded now, in seconds; never less than 0.

        Args:
            stamp_s: its time by the camera; None: it has none, and is taken for as late as the one before.
            now_s: by the monotonic clock.
            waited: it was not there yet when it was asked for.
        """
        if stamp_s is None:
            self._lag_s *= 1.0 - _SHARE if waited else 1.0
            return self._lag_s
        distance_s = now_s - stamp_s
        if self._least_s is None or self._jumped(stamp_s, now_s):
            self._least_s = distance_s - self._lag_s  # the line is as long as before
        self._least_s = _followed(self._least_s, distance_s, waited=waited)
        self._stamp_s, self._now_s, self._lag_s = stamp_s, now_s, distance_s - self._least_s
        return self._lag_s

    def newest(self, stamp_s: float, now_s: float) -> None:
        """The end of the line, which was waited for, while older frames are still to be decoded."""
        distance_s = now_s - stamp_s
        if self._least_s is not None:
            above_s, most_s = distance_s - self._least_s, self._lag_s + now_s - self._now_s
            if -_FORTH_S <= above_s <= most_s + _BACK_S:  # else the stamps jump somewhere in the line
                self._least_s = _followed(self._least_s, distance_s, waited=True)

    def _jumped(self, stamp_s: float, now_s: float) -> bool:
        step_s = stamp_s - self._stamp_s
        return not -_BACK_S <= step_s <= now_s - self._now_s + self._lag_s + _FORTH_S


def _followed(least_s: float, distance_s: float, *, waited: bool) -> float:
    above_s = distance_s - least_s
    return distance_s if above_s < 0.0 else least_s + (_SHARE * above_s if waited else 0.0)
