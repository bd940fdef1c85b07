"""Trial: one picture of a camera, or why there is none, without a daemon; for whoever sets one up."""

from __future__ import annotations

import queue
import time

from vajra_edge.capture.camera import GRACE_S, START_S, CameraChanged, Grabber
from vajra_edge.capture.children import Children
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame

_TURN_S = 0.2
_STOP_S = 5.0


def first_frame(camera: CameraSettings) -> Frame | None:
    """The first frame of a camera, opened as the daemon does, in a process of its own; None: it ended without one.

    Raises:
        SourceError: it cannot be opened or read, does not answer, or crashes its decoder.
    """
    children, mailboxes = Children(), Mailboxes()
    changes: queue.SimpleQueue[CameraChanged] = queue.SimpleQueue()
    grabber = Grabber(camera, mailboxes, changes.put, lambda: None, children)
    until_s = time.monotonic() + START_S + camera.open_timeout_s + camera.stall_s + 2.0 * GRACE_S
    grabber.start()
    try:
        while time.monotonic() < until_s:
            if frames := mailboxes.take(1, _TURN_S):
                return frames[0]
            phases = []
            while not changes.empty():
                change = changes.get()
                phases.append(change.phase)
                if change.phase is CameraPhase.BACKOFF:
                    raise SourceError(change.reason)
            if CameraPhase.ENDED in phases:
                return next(iter(mailboxes.take(1, 0.0)), None)
        raise SourceError(f"camera {camera.id} gives no frame")
    finally:
        mailboxes.close()
        grabber.stop(_STOP_S)
        children.close()
