"""Told cameras: of which cameras the broker keeps a last word, so that it goes with the camera.

What was said outlives the process at the broker. A camera that is removed while the daemon is down, or while the broker
is away until it ends, would be shown as streaming for ever. So a file tells what was said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vajra_edge import durable
from vajra_edge.config import text_file
from vajra_edge.config.settings import CameraSettings, Settings
from vajra_edge.config.text_file import Unreadable
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topic, Topics, topics_of

NAME = "told_cameras.json"
_MOST_BYTES = 1024 * 1024
_READ = TypeAdapter(frozenset[str])
_OURS = re.compile(r"camera/[A-Za-z0-9_.-]+/(status|places|totals)")
"""Names of such topics: whatever else the file may hold by now is nothing to take off a broker."""


class ToldCameras:
    """Called by the supervisor.

    Args:
        publisher: keeps the newest value of each topic.
        state_dir: has the file.
        do: performs in the background, where a disk may be slow.
    """

    def __init__(self, publisher: Publisher, state_dir: Path, do: Callable[[str, Callable[[], None]], None]) -> None:
        self._publisher, self._state_dir, self._do = publisher, state_dir, do
        self._known: frozenset[str] = frozenset()
        self._leaving: frozenset[str] = frozenset()

    def open(self, settings: Settings) -> None:
        """Begin, with what an earlier process left at the broker."""
        self._known = _recall(self._state_dir)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Take off the broker what is said of no camera of these settings."""
        topics = topics_of(settings)
        now = frozenset(one.name for camera in settings.cameras for one in _said_of(camera, topics))
        leaving = self._known - now
        for name in sorted(leaving - self._leaving):
            self._publisher.state(_at(name), b"")
        self._leaving = leaving
        self._remember(now | leaving)

    def tell(self) -> None:
        """Forget what the broker was rid of."""
        if left := {name for name in self._leaving if not self._publisher.holds(_at(name))}:
            self._leaving -= left
            self._remember(self._known - left)

    def _remember(self, known: frozenset[str]) -> None:
        if known != self._known:
            self._known = known
            content = _READ.dump_json(known)
            self._do("keep which cameras were told of", lambda: _keep(self._state_dir, content))


def _said_of(camera: CameraSettings, topics: Topics) -> tuple[Topic, ...]:
    status = topics.camera_status(camera.id)
    watched = bool(camera.zones or camera.lines)
    return (status, topics.places(camera.id), topics.totals(camera.id)) if watched else (status,)


def _at(name: str) -> Topic:
    """The very topic that the camera's states have: one value, whoever sets it."""
    return Topic(name, 1, retain=True)


def _keep(state_dir: Path, content: bytes) -> None:
    with durable.reported(state_dir, "written"):
        durable.make_folder(state_dir)
        durable.replace(state_dir / NAME, content, state_dir)


def _recall(state_dir: Path) -> frozenset[str]:
    """What was kept; nothing where nothing can be read: then only what is said from now on is ever taken back."""
    text = text_file.read(state_dir / NAME, _MOST_BYTES)
    try:
        kept = frozenset() if isinstance(text, Unreadable) else _READ.validate_json(text)
    except ValidationError:
        return frozenset()
    return frozenset(name for name in kept if _OURS.fullmatch(name))
