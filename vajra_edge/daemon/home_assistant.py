"""Home Assistant: says what appears there, how many objects each camera shows, and takes both back when they end.

What was said outlives the process at the broker. So a file tells what that is: a camera that is removed, or a switch
that is turned off, while the daemon is down goes from Home Assistant at the next start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vajra_edge import durable
from vajra_edge.config import text_file
from vajra_edge.config.settings import Settings
from vajra_edge.config.text_file import Unreadable
from vajra_edge.home_assistant.catalogue import discoveries
from vajra_edge.home_assistant.payloads import Components
from vajra_edge.mqtt.messages import ObjectsStatus, encode
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topic, Topics, topics_of
from vajra_edge.telemetry.status import Status
from vajra_edge.types import Detections

_NAME = "home_assistant.json"
_MOST_BYTES = 1024 * 1024
_READ = TypeAdapter(dict[str, dict[str, str]])


class HomeAssistant:
    """Called by the supervisor, but for ``see``.

    Args:
        publisher: keeps the newest value of each topic.
        state_dir: has the file.
        do: performs in the background, where a disk may be slow.
    """

    def __init__(self, publisher: Publisher, state_dir: Path, do: Callable[[str, Callable[[], None]], None]) -> None:
        self._publisher, self._state_dir, self._do = publisher, state_dir, do
        self._known: Components = {}
        self._said: dict[str, bytes] = {}
        self._leaving: frozenset[str] = frozenset()
        self._topics: Topics | None = None
        self._seen: dict[str, tuple[Sequence[str], list[int]]] = {}
        self._counted: dict[str, ObjectsStatus] = {}

    def open(self, settings: Settings) -> None:
        """Begin, with what an earlier process left at the broker."""
        self._known = _recall(self._state_dir)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Say what these settings ask for, where it is other than before, and take back what they ask for no more."""
        told = discoveries(settings, self._known)
        self._topics = topics = topics_of(settings) if told else None
        now = {one.path: one.components for one in told}
        if topics is not None:
            now |= {topics.path(topics.objects(camera.id)): {} for camera in settings.cameras}
        leaving = self._known.keys() - now.keys()
        for path in sorted(leaving - self._leaving, key=_by_kind):
            self._said.pop(path, None)
            self._publisher.state(_at(path), b"")
        for one in told:
            if self._said.get(one.path) != one.payload:
                self._said[one.path] = one.payload
                self._publisher.state(_at(one.path), one.payload)
        self._leaving, self._counted = frozenset(leaving), {}
        self._remember({**{path: self._known[path] for path in leaving}, **now})

    def see(self, camera: str, found: Detections, names: Sequence[str]) -> None:
        """A frame was inferred; called by the frame loop.

        Args:
            camera: whose frame.
            found: in it.
            names: of the classes, by number.
        """
        if self._topics is not None:
            self._seen[camera] = names, found.class_id.tolist()

    def tell(self, status: Status) -> None:
        """Say what the cameras show now; forget what the broker was rid of."""
        left = {path for path in self._leaving if not self._publisher.holds(_at(path))}
        if left:
            self._leaving -= left
            self._remember({path: kept for path, kept in self._known.items() if path not in left})
        if self._topics is not None:
            for camera in status.cameras:
                known = status.phase == "serving" and camera.state == "streaming"
                self._tell_objects(self._topics, camera.id, known=known)

    def _tell_objects(self, topics: Topics, camera: str, *, known: bool) -> None:
        """Nothing is known where the last frame that was inferred is no longer what the camera sees."""
        if not known:
            self._seen.pop(camera, None)
        seen = self._seen.get(camera)
        total, counts = (None, None) if seen is None else (len(seen[1]), _counts(*seen))
        last = self._counted.get(camera)
        if last is None or (last.total, last.counts) != (total, counts):
            self._counted[camera] = message = ObjectsStatus(topics.device, camera, total, counts)
            self._publisher.state(_at(topics.path(topics.objects(camera))), encode(message))

    def _remember(self, known: Components) -> None:
        if known != self._known:
            self._known = known
            content = _READ.dump_json({path: dict(components) for path, components in known.items()})
            self._do("keep what Home Assistant was told", lambda: _keep(self._state_dir, content))


def _by_kind(path: str) -> tuple[bool, str]:
    """What reads a state goes before it: an empty one is nothing that its template can read."""
    return not path.endswith("/config"), path


def _at(path: str) -> Topic:
    return Topic(path, 1, retain=True, is_path=True)


def _counts(names: Sequence[str], class_ids: list[int]) -> dict[str, int]:
    return dict(Counter(names[index] if 0 <= index < len(names) else str(index) for index in class_ids))


def _keep(state_dir: Path, content: bytes) -> None:
    with durable.reported(state_dir, "written"):
        durable.make_folder(state_dir)
        durable.replace(state_dir / _NAME, content, state_dir)


def _recall(state_dir: Path) -> Components:
    """What was kept; nothing where nothing can be read: then only what is said from now on is ever taken back."""
    text = text_file.read(state_dir / _NAME, _MOST_BYTES)
    try:
        return {} if isinstance(text, Unreadable) else _READ.validate_json(text)
    except ValidationError:
        return {}
