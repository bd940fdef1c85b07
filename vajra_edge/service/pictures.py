"""Pictures: what some frames become beside detections: snapshots for the broker, calibration images for INT8.

The frame loop only asks whether one is due; encoding and writing happen in a thread of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vajra_edge.detections import Detections
from vajra_edge.engine.agreement import counted
from vajra_edge.engine.collected import Collected
from vajra_edge.frames import Frame
from vajra_edge.service.collector import Collector, ImagesChanged
from vajra_edge.service.desk import Desk, TaskFailed, TaskMended
from vajra_edge.service.snapshots import Snapshots
from vajra_edge.settings import Settings


class Pictures:
    """Sees every frame that was inferred.

    Args:
        collector: of calibration images.
        snapshots: for the broker.
        post: takes ``ImagesChanged``, ``TaskFailed`` and ``TaskMended``; only enqueues.
        settings: what both work for.
    """

    def __init__(
        self,
        collector: Collector,
        snapshots: Snapshots,
        post: Callable[[ImagesChanged | TaskFailed | TaskMended], None],
        settings: Settings,
    ) -> None:
        self._collector, self._snapshots = collector, snapshots
        self._desk: Desk[ImagesChanged] = Desk(post, "pictures")
        self._waiting: set[tuple[str, str]] = set()
        self.apply(settings)

    def start(self) -> None:
        """Begin."""
        self._desk.start()

    def apply(self, settings: Settings) -> None:
        """Work for these settings from now on. Called by the supervisor."""
        self._collector.apply(settings)
        self._snapshots.apply(settings)

    @property
    def collected(self) -> Collected | None:
        """How far the calibration images got; None where the cameras are not asked for any."""
        return self._collector.collected

    def see(self, frame: Frame, unfiltered: Detections) -> None:
        """Look whether the frame is due for anything. Called by the frame loop; microseconds.

        Args:
            frame: that was inferred.
            unfiltered: everything found in it, whatever its camera wants to hear of.
        """
        now_s = time.monotonic()
        if self._snapshots.due(frame.camera, now_s):
            self._do("publish a snapshot", frame, lambda: self._snapshots.send(frame))
        if self._collector.due(frame.camera, now_s):
            self._do("keep a calibration image", frame, lambda: self._collector.keep(frame, counted(unfiltered)))

    def close(self, timeout_s: float) -> bool:
        """Finish what waits; whether that was done in time."""
        return self._desk.close(timeout_s)

    def _do(self, name: str, frame: Frame, task: Callable[[], ImagesChanged | None]) -> None:
        """One frame a camera and purpose waits at the most: a slow disk must not gather frames in memory."""
        key = (name, frame.camera)
        if key in self._waiting:
            return
        self._waiting.add(key)

        def then() -> ImagesChanged | None:
            try:
                return task()
            finally:
                self._waiting.discard(key)

        self._desk.do(name, then)
