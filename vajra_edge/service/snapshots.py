"""Snapshots: a JPEG of a camera's newest frame now and then, for people and dashboards."""

from __future__ import annotations

from collections.abc import Callable

import cv2

from vajra_edge.errors import VajraError
from vajra_edge.frames import Frame
from vajra_edge.settings import Settings

JPEG_QUALITY = 80
"""Good to look at, and a 1080p frame in some 300 kB."""


class Snapshots:
    """Sends each camera's picture at its own interval.

    Args:
        send: takes the camera's id and the JPEG; only enqueues.
    """

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        self._send = send
        self._every_s: dict[str, float] = {}
        self._sent_s: dict[str, float] = {}

    def apply(self, settings: Settings) -> None:
        """Use these intervals from the next frame on. Called by the supervisor."""
        every = {camera.id: camera.snapshot_every_s for camera in settings.cameras}
        self._every_s = {name: every_s for name, every_s in every.items() if every_s is not None}

    def due(self, camera: str, now_s: float) -> bool:
        """Whether it is time for a picture of this camera. Called by the frame loop, for each frame."""
        every_s = self._every_s.get(camera)
        if every_s is None or now_s < self._sent_s.get(camera, now_s - every_s) + every_s:
            return False
        self._sent_s[camera] = now_s
        return True

    def send(self, frame: Frame) -> None:
        """Encode a frame and hand it on. Takes milliseconds: called on a desk.

        Raises:
            VajraError: the image cannot be encoded.
        """
        encoded, jpeg = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not encoded:
            raise VajraError(f"a frame of camera {frame.camera} cannot be encoded as JPEG", remedy="check its size")
        self._send(frame.camera, jpeg.tobytes())
