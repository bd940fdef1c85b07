"""Told cameras: of which cameras the broker keeps a last word, so that it goes with the camera.

A camera that is removed while the daemon is down, or while the broker is away until it ends, would be shown as
streaming for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.daemon.retained import Retained
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topic, Topics, topics_of

NAME = "told_cameras.json"
_OURS = re.compile(r"camera/[A-Za-z0-9_.-]+/(status|places|totals)")


class ToldCameras:
    """Called by the supervisor.

    Args:
        publisher: keeps the newest value of each topic.
        state_dir: has the file.
        do: performs in the background, where a disk may be slow.
    """

    def __init__(self, publisher: Publisher, state_dir: Path, do: Callable[[str, Callable[[], None]], None]) -> None:
        self._retained = Retained(publisher, state_dir / NAME, _at, do)

    def open(self, settings: Settings) -> None:
        """Begin, with what an earlier process left at the broker."""
        self._retained.open(lambda name: _OURS.fullmatch(name) is not None)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Take off the broker what is said of no camera of these settings."""
        topics = topics_of(settings)
        self._retained.mean({one.name: {} for camera in settings.cameras for one in _said_of(camera, topics)})

    def tell(self) -> None:
        """Forget what the broker was rid of."""
        self._retained.forget()


def _said_of(camera: CameraSettings, topics: Topics) -> tuple[Topic, ...]:
    status = topics.camera_status(camera.id)
    watched = bool(camera.zones or camera.lines)
    return (status, topics.places(camera.id), topics.totals(camera.id)) if watched else (status,)


def _at(name: str) -> Topic:
    """The very topic that the camera's states have: one value, whoever sets it."""
    return Topic(name, 1, retain=True)
