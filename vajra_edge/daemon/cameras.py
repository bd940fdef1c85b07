"""Cameras: one grabber and one process for each enabled camera; a change touches only the cameras that it names."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from vajra_edge.capture.camera import CameraChanged, Grabber, comes_live
from vajra_edge.capture.children import Children
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.config.changes import Changes
from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.daemon.watchdog import Beats
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.telemetry.status import CameraView, StuckView

log = logging.getLogger(__name__)

DEADLINE_S = 10.0
"""Grabbers beat every second, and wait for nothing without a deadline: what they hear of may be late, they are not."""

LEAVE_S = 0.2
"""A process that says goodbye to its camera may take longer; its grabber ends it, and nobody waits for that."""


class Cameras:
    """All grabbers. Called by the supervisor alone.

    Files and folders start with ``release``, once there is a plan to see their frames: they have a first frame to lose.

    Args:
        mailboxes: where frames go.
        post: takes ``CameraChanged``; only enqueues.
        beats: watches each grabber.
    """

    def __init__(self, mailboxes: Mailboxes, post: Callable[[CameraChanged], None], beats: Beats) -> None:
        self._mailboxes, self._post, self._beats = mailboxes, post, beats
        self._children = Children()
        self._settings: dict[str, CameraSettings] = {}
        self._grabbers: dict[str, Grabber] = {}
        self._phases: dict[str, CameraChanged] = {}
        self._released = False
        self.ids: tuple[str, ...] = ()

    def open(self, settings: Settings) -> None:
        """Start every enabled camera."""
        self._settings = {camera.id: camera for camera in settings.cameras}
        self.ids = tuple(self._settings)
        for camera in settings.cameras:
            self._start(camera)

    def change(self, settings: Settings, changes: Changes) -> None:
        """Start what was added, stop what was removed, reopen what changed; nothing else is touched."""
        for name in (*changes.removed, *changes.reopened):
            self._stop(name)
        for name in changes.removed:
            self._mailboxes.remove(name)
        self._settings = {camera.id: camera for camera in settings.cameras}
        self.ids = tuple(self._settings)
        for name in (*changes.added, *changes.reopened):
            self._start(self._settings[name])

    def release(self) -> None:
        """There is a plan: files and folders may start."""
        if not self._released:
            self._released = True
            for name in self.ids:
                if name not in self._grabbers:
                    self._start(self._settings[name])

    def changed(self, event: CameraChanged) -> None:
        """Note a phase; late news of a camera that is gone is nothing."""
        if event.camera in self._grabbers:
            self._phases[event.camera] = event

    def stuck(self) -> tuple[StuckView, ...]:
        """Processes that were killed and are there still, also of cameras that the settings name no more."""
        return tuple(StuckView(name, pid) for name, pid in self._children.stuck().items())

    def exhausted(self, published: Mapping[str, int]) -> bool:
        """Whether every camera was a file that has ended, and each of its frames was published or displaced."""
        if not self._grabbers:
            return False
        counters = [grabber.counters() for grabber in self._grabbers.values()]
        return all(
            one.phase is CameraPhase.ENDED and published.get(one.camera, 0) + one.frames_dropped >= one.frames_read
            for one in counters
        )

    def views(self, published: Mapping[str, int]) -> tuple[CameraView, ...]:
        """Each camera in the order of the settings."""
        return tuple(self._view(name, published.get(name, 0)) for name in self.ids)

    def stop(self, timeout_s: float) -> bool:
        """Stop every grabber and end every process; whether all ended in time."""
        until_s = time.monotonic() + timeout_s
        for grabber in self._grabbers.values():
            grabber.stop(0.0)
        ended = [grabber.stop(max(until_s - time.monotonic(), 0.0)) for grabber in self._grabbers.values()]
        for name in tuple(self._grabbers):
            self._beats.forget(_beat_name(name))
        self._children.close()
        return all(ended)

    def _start(self, camera: CameraSettings) -> None:
        if not camera.enabled or not (self._released or comes_live(camera)):
            return
        beat = self._beats.expect(_beat_name(camera.id), DEADLINE_S)
        grabber = Grabber(camera, self._mailboxes, self._post, beat, self._children)
        self._grabbers[camera.id] = grabber
        grabber.start()

    def _stop(self, name: str) -> None:
        grabber = self._grabbers.pop(name, None)
        self._phases.pop(name, None)
        if grabber is not None:
            self._beats.forget(_beat_name(name))
            if not grabber.stop(LEAVE_S):
                log.info("camera %s: the old connection is being ended", name)

    def _view(self, name: str, published: int) -> CameraView:
        grabber, told = self._grabbers.get(name), self._phases.get(name)
        if grabber is None:
            reason = "it starts once an engine is ready" if self._settings[name].enabled else ""
            return CameraView(name, "off", reason, published=published)
        told = told or CameraChanged(name, CameraPhase.OPENING, "", attempts=0, retry_in_s=None)
        return CameraView.of(told, grabber.counters(), published)


def _beat_name(camera: str) -> str:
    return f"camera {camera}"
