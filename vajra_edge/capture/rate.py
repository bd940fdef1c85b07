"""Rates: when a clip's frame is due, which frames a cap lets through, how many there were. Pure."""

from __future__ import annotations

from collections import deque

from vajra_edge.config.settings import CameraSettings

_LATE_S = 1.0  # later than this, the clip goes on from now instead of hurrying after the clock
_EARLY = 0.2  # share of the interval by which a frame may come early: rounding and jitter make the punctual early
_WINDOW_S = 5.0
_WINDOW_FRAMES = 512
_SLOW_FRAMES = 2.0  # of a camera that is asked for less than one frame in ``stall_s``, so many may be due at a time


def patience_s(camera: CameraSettings) -> float:
    """How long a live camera may give no frame: ``stall_s``, and longer where its ``fps`` asks for fewer than that."""
    return camera.stall_s if camera.fps is None else max(camera.stall_s, _SLOW_FRAMES / camera.fps)


class Pace:
    """Maps a clip's own time line onto the monotonic clock."""

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def delay_s(self, position_s: float, now_s: float) -> float:
        """How long to wait until the frame at ``position_s`` is due; 0 when it is late.

        The first frame is due at once. After a pause of more than a second (a suspended machine, a slow disk) the
        clip continues from where it stands, without a burst.
        """
        if self._offset_s is None or now_s - (position_s + self._offset_s) > _LATE_S:
            self._offset_s = now_s - position_s
        return max(0.0, position_s + self._offset_s - now_s)


class RateCap:
    """Lets through at most ``fps`` frames of each second of a time line.

    Args:
        fps: frames a second; None lets everything through.
    """

    def __init__(self, fps: float | None) -> None:
        self._interval_s = 1.0 / fps if fps is not None else None
        self._due_s: float | None = None

    def admits(self, at_s: float) -> bool:
        """Whether the frame at ``at_s`` goes through; the average rate stays below the cap in spite of jitter."""
        if self._interval_s is None:
            return True
        if self._due_s is not None and at_s < self._due_s - _EARLY * self._interval_s:
            return False
        behind = self._due_s is None or at_s - self._due_s > self._interval_s
        self._due_s = (at_s if behind or self._due_s is None else self._due_s) + self._interval_s
        return True


class Rate:
    """Frames a second over the last five seconds; of a slower camera, from its last two frames."""

    def __init__(self) -> None:
        self._stamps_s: deque[float] = deque(maxlen=_WINDOW_FRAMES)

    def count(self, now_s: float) -> None:
        """A frame came."""
        self._stamps_s.append(now_s)

    def per_second(self, now_s: float) -> float:
        """The rate; 0 with less than two frames. It falls with each moment that the next frame is late."""
        stamps_s = list(self._stamps_s)
        recent = [stamp_s for stamp_s in stamps_s if now_s - stamp_s <= _WINDOW_S]
        if len(recent) < 2:  # noqa: PLR2004  a rate needs an interval
            recent = stamps_s[-2:]
        if len(recent) < 2 or recent[-1] == recent[0]:  # noqa: PLR2004
            return 0.0
        usual_s = (recent[-1] - recent[0]) / (len(recent) - 1)
        return 1.0 / max(usual_s, now_s - recent[-1])
