"""Snapshots: what some frames become beside detections: JPEGs for the broker, calibration images for INT8.

The frame loop only asks whether one is due; encoding and writing happen in a thread of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import cv2

from vajra_edge.build.accuracy_check import counted
from vajra_edge.config.settings import Settings
from vajra_edge.daemon.background import Background, TaskFailed, TaskMended
from vajra_edge.daemon.sample_collector import Collector, ImagesChanged
from vajra_edge.daemon.watchdog import PICTURES, Beats
from vajra_edge.errors import VajraError
from vajra_edge.media.bgr import bgr_of
from vajra_edge.mqtt.picture import Receipt, Snapshot
from vajra_edge.quantization.collection import Collected
from vajra_edge.types import Detections, Frame

_SNAPSHOT = "publish a snapshot"

JPEG_QUALITY = 80
"""Good to look at, and a 1080p frame in some 300 kB."""


class Snapshots:
    """Sends each camera's picture at its own interval.

    Args:
        send: takes the picture; only enqueues.
    """

    def __init__(self, send: Callable[[Snapshot], None]) -> None:
        self._send = send
        self._every_s: dict[str, float] = {}
        self._sent_s: dict[str, float] = {}
        self._asked: set[str] = set()

    def apply(self, settings: Settings) -> None:
        """Use these intervals from the next frame on. Called by the supervisor."""
        every = {camera.id: camera.snapshot_every_s for camera in settings.cameras}
        self._every_s = {name: every_s for name, every_s in every.items() if every_s is not None}

    def ask(self, camera: str) -> None:
        """Somebody wants the next picture of this camera. Called by the supervisor."""
        self._asked.add(camera)

    def is_asked(self, camera: str) -> bool:
        """Whether somebody wants a picture of this camera. Called by the frame loop, for each frame."""
        return camera in self._asked

    def done(self, camera: str) -> None:
        """What was asked for is being made, or nobody wants it any more."""
        self._asked.discard(camera)

    def due(self, camera: str, now_s: float) -> bool:
        """Whether it is time for a picture of this camera. Called by the frame loop, for each frame."""
        every_s = self._every_s.get(camera)
        if every_s is None or now_s < self._sent_s.get(camera, now_s - every_s) + every_s:
            return False
        self._sent_s[camera] = now_s
        return True

    def send(self, frame: Frame, receipt: Receipt, *, asked: bool = False) -> None:
        """Encode a frame and hand it on. Takes milliseconds: called in the background.

        Args:
            frame: that was inferred.
            receipt: of the message that says what was found in it.
            asked: somebody asked for it.

        Raises:
            VajraError: the image cannot be encoded.
        """
        encoded, jpeg = cv2.imencode(".jpg", bgr_of(frame), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not encoded:
            raise VajraError(f"a frame of camera {frame.camera} cannot be encoded as JPEG", remedy="check its size")
        known = frame.clock_synchronised
        self._send(Snapshot(frame.camera, frame.taken_at, frame.seq, receipt, jpeg.tobytes(), asked, known))


class Pictures:
    """Sees every frame that was inferred.

    Args:
        collector: of calibration images.
        snapshots: for the broker.
        post: takes ``ImagesChanged``, ``TaskFailed`` and ``TaskMended``; only enqueues.
        settings: what both work for.
        beats: watches the thread.
    """

    def __init__(
        self,
        collector: Collector,
        snapshots: Snapshots,
        post: Callable[[ImagesChanged | TaskFailed | TaskMended], None],
        settings: Settings,
        beats: Beats,
    ) -> None:
        self._collector, self._snapshots = collector, snapshots
        self._background: Background[ImagesChanged] = Background(post, beats, PICTURES)
        self._waiting: set[tuple[str, str]] = set()
        self.apply(settings)

    def start(self) -> None:
        """Begin."""
        self._background.start()

    def apply(self, settings: Settings) -> None:
        """Work for these settings from now on. Called by the supervisor."""
        self._collector.apply(settings)
        self._snapshots.apply(settings)

    def ask(self, camera: str) -> None:
        """Have the next frame of this camera become a snapshot. Called by the supervisor."""
        self._snapshots.ask(camera)

    def withdraw(self, camera: str) -> None:
        """Nobody waits for it any more. Called by the supervisor."""
        self._snapshots.done(camera)

    @property
    def collected(self) -> Collected | None:
        """How far the calibration images got; None where the cameras are not asked for any."""
        return self._collector.collected

    def see(self, frame: Frame, unfiltered: Detections, receipt: Receipt) -> None:
        """Look whether the frame is due for anything. Called by the frame loop; microseconds, and a copy if it is.

        Args:
            frame: that was inferred.
            unfiltered: everything found in it, whatever its camera wants to hear of.
            receipt: of its detection message.
        """
        now_s = time.monotonic()
        asked = self._snapshots.is_asked(frame.camera)
        if self._snapshots.due(frame.camera, now_s) or asked:
            taken = self._do(_SNAPSHOT, frame, lambda own: self._snapshots.send(own, receipt, asked=asked))
            if taken and asked:
                self._snapshots.done(frame.camera)
        if self._collector.due(frame.camera, now_s):
            self._do("keep a calibration image", frame, lambda own: self._collector.keep(own, counted(unfiltered)))

    def tick(self) -> None:
        """Beat for the thread while it gets anywhere. Called by the supervisor."""
        self._background.tick()

    def close(self, timeout_s: float) -> bool:
        """Finish what waits; whether that was done in time."""
        return self._background.close(timeout_s)

    def _do(self, name: str, frame: Frame, task: Callable[[Frame], ImagesChanged | None]) -> bool:
        """One frame a camera and purpose waits at the most: a slow disk must not gather frames in memory.

        Returns:
            Whether this one is it.
        """
        key = (name, frame.camera)
        if key in self._waiting:
            return False
        self._waiting.add(key)
        # Its place in the shared memory is wanted for the next ones.
        own = replace(frame, image=frame.image.copy(), memory=None)

        def then() -> ImagesChanged | None:
            try:
                return task(own)
            finally:
                self._waiting.discard(key)

        self._background.do(name, then)
        return True
