"""Trackers: one for each camera whose objects are to be numbered, between the frame loop and the supervisor."""

from __future__ import annotations

from vajra_edge.capture.camera import CameraChanged
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.config.settings import Settings, is_tracked
from vajra_edge.tracking.tracker import Numbers, Tracker
from vajra_edge.types import Detections, Frame


class Trackers:
    """Sees every frame that was inferred.

    A tracker stays when its camera does not ask for it any more, so that no number comes twice while the daemon runs.

    Args:
        settings: which cameras ask for one.
    """

    def __init__(self, settings: Settings) -> None:
        self._wanted: frozenset[str] = frozenset()
        self._broken: set[str] = set()
        self._trackers: dict[str, Tracker] = {}
        self._sizes_wh: dict[str, tuple[int, int]] = {}
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Track these cameras from the next frame on. Called by the supervisor."""
        wanted = frozenset(camera.id for camera in settings.cameras if is_tracked(camera))
        self._broken |= self._wanted - wanted
        self._wanted = wanted

    def changed(self, event: CameraChanged) -> None:
        """A camera that does not deliver shows another scene when it does again. Called by the supervisor.

        The last frames of a clip that has ended may be on their way still, and are part of the same scene.
        """
        if event.phase not in (CameraPhase.STREAMING, CameraPhase.ENDED):
            self._broken.add(event.camera)

    def see(self, frame: Frame, found: Detections) -> Numbers | None:
        """The track of each detection, see ``Tracker.update``; None where the camera does not ask.

        Called by the frame loop.
        """
        if frame.camera not in self._wanted:
            return None
        tracker = self._trackers.setdefault(frame.camera, Tracker())
        if frame.camera in self._broken or self._sizes_wh.get(frame.camera) != frame.resolution_wh:
            self._broken.discard(frame.camera)
            tracker.reset()
        self._sizes_wh[frame.camera] = frame.resolution_wh
        return tracker.update(found, frame.captured_ns / 1e9)
