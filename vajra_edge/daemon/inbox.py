"""Inbox: everything that the supervisor may hear, in the one queue that it takes from.

It is bounded:

* News that replaces older news of the same thing (a camera's state, the broker's, a build's percents, a file's digest)
  waits once, in its newest form.
* What ends a task (a load, a build, a swap, a look at the disk) comes once for each task that the supervisor began.
* Requests of strangers are admitted before they come here, see ``admission``; at most a few wait.

So nothing that must not be lost is ever refused, and nobody outside can make the queue grow.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from vajra_edge.capture.camera import CameraChanged
from vajra_edge.daemon import build_process, events
from vajra_edge.daemon.adoption import Chosen, Settled
from vajra_edge.daemon.background import TaskFailed, TaskMended
from vajra_edge.daemon.calibration_images import ImagesMoved
from vajra_edge.daemon.control.callers import ReloadAsked
from vajra_edge.daemon.control.server import Asked
from vajra_edge.daemon.deployment import Served
from vajra_edge.daemon.file_watcher import FileChanged
from vajra_edge.daemon.missed_precisions import MissedSeen
from vajra_edge.daemon.override_desk import Overridden
from vajra_edge.daemon.reconciler import Reconciled
from vajra_edge.daemon.request_gate import SignatureChecked
from vajra_edge.daemon.sample_collector import ImagesChanged
from vajra_edge.inference import pipeline
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.picture import SnapshotSent
from vajra_edge.mqtt.publisher import BrokerChanged

BackgroundEvent: TypeAlias = (
    events.Loaded
    | events.LoadFailed
    | ImagesMoved
    | MissedSeen
    | Reconciled
    | Chosen
    | Settled
    | SignatureChecked
    | Overridden
)
"""What the tasks of the supervisor's background thread end with."""

Heard: TypeAlias = (
    events.Event
    | BackgroundEvent
    | TaskFailed
    | TaskMended
    | ReloadAsked
    | Asked
    | Requested
    | build_process.BuildEvent
    | pipeline.Swapped[Served]
    | pipeline.LoopFailed[Served]
    | pipeline.Exhausted
    | CameraChanged
    | BrokerChanged
    | SnapshotSent
    | ImagesChanged
    | FileChanged
)
"""Of all parts; the supervisor matches each kind."""


@dataclass(frozen=True)
class _Newest:
    """Stands in the queue for the newest news of this subject."""

    subject: tuple[str, object]


class Inbox:
    """Many put, one gets. ``put`` may be called from any thread and from a signal handler: it takes no lock."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Heard | _Newest] = queue.SimpleQueue()
        self._newest: dict[tuple[str, object], list[Heard]] = {}

    def put(self, heard: Heard) -> None:
        """Leave an event; news of a subject that waits already takes the older one's place."""
        subject = _subject(heard)
        if subject is None:
            self._queue.put(heard)
            return
        while True:
            cell = [heard]
            waits = self._newest.setdefault(subject, cell)
            if waits is cell:
                self._queue.put(_Newest(subject))
                return
            waits[0] = heard
            if self._newest.get(subject) is waits:
                return
            # it was taken meanwhile, perhaps with the older news: once more, for the same news twice does no harm

    def get(self, timeout_s: float) -> Heard | None:
        """The next event; None after ``timeout_s`` without one."""
        try:
            item = self._queue.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None
        return self._newest.pop(item.subject)[0] if isinstance(item, _Newest) else item

    def __len__(self) -> int:
        """Events that wait."""
        return self._queue.qsize()


_SUBJECTS: Mapping[type, Callable[[Any], tuple[str, object] | None]] = {
    CameraChanged: lambda heard: ("camera", heard.camera),
    BrokerChanged: lambda _: ("broker", None),
    build_process.BuildProgressed: lambda heard: ("build", heard.job_id),
    FileChanged: lambda heard: ("file", heard.name),
    TaskFailed: lambda heard: ("task", heard.name),
    TaskMended: lambda heard: ("task", heard.name),
    ImagesChanged: lambda heard: ("images", heard.frozen),
    ReloadAsked: lambda heard: None if heard.caller else ("reload", heard.look),
}
"""What an event is news of, where a newer one makes it worthless."""


def _subject(heard: Heard) -> tuple[str, object] | None:
    subject_of = _SUBJECTS.get(type(heard))
    return subject_of(heard) if subject_of else None
