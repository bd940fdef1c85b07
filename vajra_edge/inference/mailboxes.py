"""One-slot mailboxes between the cameras and the pipeline: the newest frame wins, what it displaces is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vajra_edge.types import Frame

_NAP_S = 0.25  # a writer that waits for its slot looks up this often to beat and to see that it shall stop


def _nothing() -> None:
    """A beat that nobody listens to."""


class Mailboxes:
    """A slot for each camera; any number of writers, one reader.

    A frame is handed on as it is, never copied and never written to again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slots: dict[str, Frame | None] = {}  # in the order of their turns: the longest unserved camera first
        self._dropped: dict[str, int] = {}
        self._awake: set[str] = set()
        self._closed = False

    def add(self, camera: str) -> None:
        """Give ``camera`` a slot; a second time changes nothing, so that its drops are counted over a reopening."""
        with self._changed:
            self._slots.setdefault(camera, None)
            self._dropped.setdefault(camera, 0)

    def remove(self, camera: str) -> None:
        """Forget ``camera``, its waiting frame and its count; a late ``put`` for it is ignored."""
        with self._changed:
            self._slots.pop(camera, None)
            self._dropped.pop(camera, None)
            self._awake.discard(camera)
            self._changed.notify_all()

    def put(self, frame: Frame) -> None:
        """Leave the frame, in place of an unread one."""
        with self._changed:
            if self._closed or frame.camera not in self._slots:
                return
            displaced = self._slots[frame.camera]
            self._dropped[frame.camera] += displaced is not None
            self._fill(frame)
        del displaced  # its memory goes back to whom it belongs, which nobody here need wait for

    def put_wait(self, frame: Frame, stop: threading.Event, beat: Callable[[], None] = _nothing) -> bool:
        """Leave the frame once the slot is free: back-pressure for sources that would rather wait than lose a frame.

        Args:
            frame: what to leave.
            stop: gives up once set.
            beat: called while waiting, which is on purpose.

        Returns:
            False where ``stop``, ``close`` or ``remove`` came first; the frame was not taken then.
        """
        with self._changed:
            while True:
                if self._closed or stop.is_set() or frame.camera not in self._slots:
                    return False
                if self._slots[frame.camera] is None:
                    self._fill(frame)
                    return True
                self._changed.wait(_NAP_S)
                beat()

    def rest(self, camera: str, *, discard: bool) -> None:
        """No more frames of ``camera`` for now: batches do not wait for it.

        Args:
            camera: whose source was lost or has ended.
            discard: drop (and count) its unread frame, so that nothing of a lost camera follows the news of the loss.
        """
        with self._changed:
            self._awake.discard(camera)
            if discard and self._slots.get(camera) is not None:
                self._slots[camera] = None
                self._dropped[camera] += 1
            self._changed.notify_all()

    def take(self, limit: int, timeout_s: float, gather_s: float = 0.0) -> list[Frame]:
        """The newest frames of up to ``limit`` cameras, at most one of each, the longest unserved camera first.

        Args:
            limit: most frames wanted, at least 1.
            timeout_s: longest wait for the first frame.
            gather_s: once a frame is there, longest wait for other streaming cameras to fill the batch.

        Returns:
            The frames; empty after ``timeout_s`` without one, or after ``close``.
        """
        with self._changed:
            if not self._wait_for(lambda: self._waiting() > 0, timeout_s):
                return []
            self._wait_for(lambda: self._waiting() >= min(limit, len(self._awake)), gather_s)
            ready = [camera for camera, frame in self._slots.items() if frame is not None][:limit]
            frames = [self._empty(camera) for camera in ready]
            self._changed.notify_all()
            return frames

    def dropped(self, camera: str) -> int:
        """Frames of ``camera`` that were displaced or discarded unread."""
        with self._changed:
            return self._dropped.get(camera, 0)

    def close(self) -> None:
        """Wake everybody: ``take`` returns nothing from now on and ``put`` keeps nothing."""
        with self._changed:
            self._closed = True
            self._slots = dict.fromkeys(self._slots)
            self._changed.notify_all()

    def _fill(self, frame: Frame) -> None:
        self._slots[frame.camera] = frame
        self._awake.add(frame.camera)
        self._changed.notify_all()

    def _empty(self, camera: str) -> Frame:
        frame = self._slots.pop(camera)
        self._slots[camera] = None  # and to the end of the queue of turns
        if frame is None:
            raise AssertionError(f"slot of {camera} was emptied under the lock")
        return frame

    def _waiting(self) -> int:
        return sum(frame is not None for frame in self._slots.values())

    def _wait_for(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Whether ``ready`` holds within ``timeout_s`` and nobody closed meanwhile."""
        until_s = time.monotonic() + timeout_s
        while not self._closed and not ready():
            left_s = until_s - time.monotonic()
            if left_s <= 0.0:
                return False
            self._changed.wait(left_s)
        return not self._closed
