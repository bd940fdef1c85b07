"""Inbox: everything that the supervisor may hear, in the one queue that it takes from."""

from __future__ import annotations

import queue
from typing import TypeAlias

from vajra_edge.capture.camera import CameraChanged
from vajra_edge.daemon import build_process, events
from vajra_edge.daemon.background import TaskFailed, TaskMended
from vajra_edge.daemon.calibration_images import ImagesMoved
from vajra_edge.daemon.control.callers import ReloadAsked
from vajra_edge.daemon.control.server import Asked
from vajra_edge.daemon.deployment import Served
from vajra_edge.daemon.file_watcher import FileChanged
from vajra_edge.daemon.missed_precisions import MissedSeen
from vajra_edge.daemon.reconciler import Reconciled
from vajra_edge.daemon.sample_collector import ImagesChanged
from vajra_edge.inference import pipeline
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.publisher import BrokerChanged

BackgroundEvent: TypeAlias = events.Loaded | events.LoadFailed | ImagesMoved | MissedSeen | Reconciled
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
    | ImagesChanged
    | FileChanged
)
"""Of all parts; the supervisor matches each kind."""

Inbox: TypeAlias = "queue.SimpleQueue[Heard]"
