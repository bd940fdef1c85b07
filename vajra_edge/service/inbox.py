"""Inbox: everything that the supervisor may hear, in the one queue that it takes from."""

from __future__ import annotations

import queue
from typing import TypeAlias

from vajra_edge import pipeline
from vajra_edge.capture.grabber import CameraChanged
from vajra_edge.publish.mqtt import BrokerChanged
from vajra_edge.publish.requests import Requested
from vajra_edge.service import builder, events
from vajra_edge.service.callers import ReloadAsked
from vajra_edge.service.collector import ImagesChanged
from vajra_edge.service.control import Asked
from vajra_edge.service.desk import TaskFailed, TaskMended
from vajra_edge.service.images import ImagesMoved
from vajra_edge.service.missed import MissedSeen
from vajra_edge.service.serving import Served
from vajra_edge.service.watch import FileChanged
from vajra_edge.service.wishing import Wished

DeskEvent: TypeAlias = events.Loaded | events.LoadFailed | ImagesMoved | MissedSeen | Wished
"""What the tasks of the supervisor's desk end with."""

Heard: TypeAlias = (
    events.Event
    | DeskEvent
    | TaskFailed
    | TaskMended
    | ReloadAsked
    | Asked
    | Requested
    | builder.BuildEvent
    | pipeline.Swapped[Served]
    | pipeline.InferFailed[Served]
    | pipeline.Exhausted
    | CameraChanged
    | BrokerChanged
    | ImagesChanged
    | FileChanged
)
"""Of all parts; the supervisor matches each kind."""

Inbox: TypeAlias = "queue.SimpleQueue[Heard]"
