"""Home Assistant: says what appears there, how many objects each camera shows, and takes both back when they end.

A camera that is removed, or a switch that is turned off, while the daemon is down goes from Home Assistant at the next
start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from vajra_edge.config.settings import Settings
from vajra_edge.daemon.retained import Retained
from vajra_edge.home_assistant.catalogue import discoveries
from vajra_edge.mqtt.messages import ObjectsStatus, encode
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topic, Topics, topics_of
from vajra_edge.telemetry.status import Status
from vajra_edge.types import Detections

_NAME = "home_assistant.json"


class HomeAssistant:
    """Called by the supervisor, but for ``see``.

    Args:
        publisher: keeps the newest value of each topic.
        state_dir: has the file.
        do: performs in the background, where a disk may be slow.
    """

    def __init__(self, publisher: Publisher, state_dir: Path, do: Callable[[str, Callable[[], None]], None]) -> None:
        self._publisher = publisher
        self._retained = Retained(publisher, state_dir / _NAME, _at, do)
        self._said: dict[str, bytes] = {}
        self._topics: Topics | None = None
        self._seen: dict[str, tuple[Sequence[str], list[int]]] = {}
        self._counted: dict[str, ObjectsStatus] = {}

    def open(self, settings: Settings) -> None:
        """Begin, with what an earlier process left at the broker."""
        self._retained.open()
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Say what these settings ask for, where it is other than before, and take back what they ask for no more."""
        told = discoveries(settings, self._retained.known)
        self._topics = topics = topics_of(settings) if told else None
        now = {one.path: one.components for one in told}
        if topics is not None:
            now |= {topics.path(topics.objects(camera.id)): {} for camera in settings.cameras}
        self._said = {path: payload for path, payload in self._said.items() if path in now}
        self._retained.mean(now, _by_kind)
        for one in told:
            if self._said.get(one.path) != one.payload:
                self._said[one.path] = one.payload
                self._publisher.state(_at(one.path), one.payload)
        self._counted = {}

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
        self._retained.forget()
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


def _by_kind(path: str) -> tuple[bool, str]:
    """What reads a state goes before it: an empty one is nothing that its template can read."""
    return not path.endswith("/config"), path


def _at(path: str) -> Topic:
    return Topic(path, 1, retain=True, is_path=True)


def _counts(names: Sequence[str], class_ids: list[int]) -> dict[str, int]:
    return dict(Counter(names[index] if 0 <= index < len(names) else str(index) for index in class_ids))
