"""Frigate: the topics of the Frigate NVR, for programs that read those.

Of its topics: ``available``, ``events``, ``stats``, and of each camera ``status/detect``, ``<label>``, ``all`` and
``<label>/snapshot``; of each zone ``<label>`` and ``all``. Nothing is listened to. As there, all but availability and
pictures is said once and not retained; each connection of ours says the present state again.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from vajra_edge.outputs.sighted import Message, Sighted
from vajra_edge.outputs.tracked import Tracked
from vajra_edge.tracking.tracker import LOST_S, NO_TRACK

ONLINE, STOPPED, OFFLINE = b"online", b"stopped", b"offline"
"""The daemon runs, has stopped, or is gone without a word, which is its last will."""

ALL = "all"
"""Instead of a label: objects of any."""

_STATES: Mapping[str, bytes] = {"streaming": ONLINE, "off": b"disabled"}
"""Of a camera; any other of ours is one in which nothing comes."""

_NO_LEVEL = re.compile(r"[/+#\x00-\x1f\x7f]")
"""What a name may hold and a level of a topic may not."""

_FRAMES = 128
"""Frames of a camera of which it is remembered who is in them, for pictures that come a moment later."""


@dataclass(frozen=True)
class Labels:
    """Whose number was ever said, even where it is 0 by now: who heard it shows it until another one comes.

    Attributes:
        cameras: labels by camera.
        zones: labels by zone.
    """

    cameras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    zones: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class _Camera:
    """What is known of one camera.

    Attributes:
        zones: that it has.
        objects: by track.
        labels: whose number is said, even where that is 0.
        counts: by label, as they were said; None: nobody sees, and the last ones stand.
        zone_counts: by zone and label.
        shown: in the newest frames, by ``seq``: labels of the objects in each.
        state: as it was said.
    """

    zones: tuple[str, ...]
    objects: dict[int, Tracked] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    counts: dict[str, int] | None = None
    zone_counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    shown: deque[tuple[int, frozenset[str]]] = field(default_factory=lambda: deque(maxlen=_FRAMES))
    state: bytes = b""


class Frigate:
    """The profile of one device. Called by one thread.

    Args:
        prefix: first levels of all topics.
        device: the device's id.
        before: what an earlier process said: it may have ended while somebody was there, who has left since.
    """

    def __init__(self, prefix: str, device: str, before: Labels | None = None) -> None:
        self._prefix, self._device, self._before = prefix, device, before or Labels()
        self._cameras: dict[str, _Camera] = {}
        self._zone_labels = {zone: set(labels) for zone, labels in self._before.zones.items()}
        self._zone_said: dict[str, int] = {}
        self._pictured: set[str] = set()
        self._stats: bytes | None = None

    @property
    def will(self) -> tuple[str, bytes]:
        """What the broker says when the device leaves without a word."""
        return self._path("available"), OFFLINE

    def cameras(self, zones: Mapping[str, Sequence[str]]) -> list[Message]:
        """These are there from now on, with these zones; what is said of others is taken back."""
        gone = [message for name in self._cameras.keys() - zones.keys() for message in self._remove(name)]
        for name, own in zones.items():
            known = set(self._before.cameras.get(name, ()))
            self._cameras.setdefault(name, _Camera((), labels=known)).zones = tuple(own)
        for zone in self._zone_labels.keys() - {zone for own in zones.values() for zone in own}:
            self._forget(zone)
            del self._zone_labels[zone]
        return gone

    @property
    def labels(self) -> Labels:
        """For the process after this one."""
        cameras = {name: tuple(sorted(one.labels)) for name, one in self._cameras.items() if one.labels}
        return Labels(cameras, {zone: tuple(sorted(labels)) for zone, labels in self._zone_labels.items() if labels})

    @property
    def many_labels(self) -> int:
        """How many there are; cheaper to ask than for all of them."""
        cameras = sum(len(one.labels) for one in self._cameras.values())
        return cameras + sum(len(labels) for labels in self._zone_labels.values())

    def present(self) -> list[Message]:
        """What is known now, for a connection that came up."""
        counts = {
            self._path(name, label): count
            for name, camera in self._cameras.items()
            for label, count in (camera.counts or {}).items()
        }
        said = {**counts, **self._zone_said}
        states = [(self._detect(name), camera.state) for name, camera in self._cameras.items()]
        return [
            *(Message(path, state) for path, state in states if state),
            *(Message(path, str(count).encode()) for path, count in said.items()),
            *([Message(self._path("stats"), self._stats)] if self._stats else []),
            self._available(ONLINE),
        ]

    def see(self, frame: Sighted) -> list[Message]:
        """A frame of a camera that tracks was inferred."""
        camera = self._cameras.get(frame.camera)
        if camera is None:
            return []
        messages = list(self._follow(camera, frame))
        labels = frozenset(one.label for one in camera.objects.values() if one.seen_s == frame.now_s)
        camera.shown.append((frame.seq, labels))
        return messages + self._count(frame.camera, camera)

    def blind(self, name: str) -> list[Message]:
        """Nobody sees what this camera would show: its tracks end. Its counts stay as they were: they are not 0."""
        camera = self._cameras.get(name)
        if camera is None or camera.counts is None:
            return []
        ended = [self._event("end", one.told, one.view(ended=True)) for one in camera.objects.values()]
        camera.objects.clear()
        camera.counts = None
        for zone in camera.zones:
            self._forget(zone)
        return ended

    def state(self, name: str, state: str) -> list[Message]:
        """Whether a camera delivers, in our words, where that is other than before."""
        camera, word = self._cameras.get(name), _STATES.get(state, OFFLINE)
        if camera is None or camera.state == word:
            return []
        camera.state = word
        return [Message(self._detect(name), word)]

    def picture(self, name: str, seq: int, jpeg: bytes) -> list[Message]:
        """A picture of a camera, whole, for each label that is in it."""
        camera = self._cameras.get(name)
        labels = next((labels for at, labels in camera.shown if at == seq), ()) if camera else ()
        messages = [Message(self._path(name, one, "snapshot"), jpeg, retain=True) for one in sorted(labels)]
        self._pictured.update(message.path for message in messages)
        return messages

    def stats(self, stats: Mapping[str, Any]) -> list[Message]:
        """How the device does."""
        self._stats = orjson.dumps(stats)
        return [Message(self._path("stats"), self._stats)]

    def stop(self, *, for_good: bool) -> list[Message]:
        """The last words; ``for_good`` takes the pictures off the broker."""
        ended = [message for name in self._cameras for message in self.blind(name)]
        pictures = [Message(path, b"", retain=True) for path in sorted(self._pictured)] if for_good else []
        return [*ended, *pictures, self._available(STOPPED)]

    def _available(self, word: bytes) -> Message:
        return Message(self._path("available"), word, qos=1, retain=True)

    def _remove(self, name: str) -> list[Message]:
        ended = self.blind(name)
        del self._cameras[name]
        begin = self._path(name, "")
        pictures = sorted(path for path in self._pictured if path.startswith(begin))
        self._pictured.difference_update(pictures)
        return [*ended, *(Message(path, b"", retain=True) for path in pictures)]

    def _follow(self, camera: _Camera, frame: Sighted) -> Iterator[Message]:
        """Events of this frame."""
        now = {one.track: one for one in frame.objects if one.track is not None and one.track != NO_TRACK}
        for track, known in list(camera.objects.items()):
            if track in now:
                camera.objects[track] = known.seen(frame, now[track])
            elif frame.now_s - known.seen_s > LOST_S:
                yield self._event("end", known.told, known.view(ended=True))
                del camera.objects[track]
            else:
                camera.objects[track] = known.hidden()
        for track, one in now.items():
            if track not in camera.objects:
                begun = Tracked.begin(self._device, frame, one)
                yield self._event("new", begun.before_it_was_sure(), begun.view())
                camera.objects[track] = begun.after_telling(frame.now_s)
        for track, known in list(camera.objects.items()):
            if known.has_news(frame.now_s):
                yield self._event("update", known.told, known.view())
                camera.objects[track] = known.after_telling(frame.now_s)

    def _event(self, kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Message:
        return Message(self._path("events"), orjson.dumps({"type": kind, "before": before, "after": after}))

    def _count(self, name: str, camera: _Camera) -> list[Message]:
        """How many of each label, where that is other than before; a label that was seen once is counted for ever."""
        found = Counter(one.label for one in camera.objects.values())
        camera.labels.update(found)
        counts = {**{label: found[label] for label in sorted(camera.labels)}, ALL: found.total()}
        before = camera.counts or {}
        camera.counts = counts
        changed = {self._path(name, label): count for label, count in counts.items() if before.get(label) != count}
        camera.zone_counts = Counter(
            (zone, one.label) for one in camera.objects.values() for zone in one.zones if zone in camera.zones
        )
        zones = [message for zone in camera.zones for message in self._count_zone(zone)]
        return [*(Message(path, str(count).encode()) for path, count in changed.items()), *zones]

    def _count_zone(self, zone: str) -> Iterator[Message]:
        """A zone of several cameras has one count; while one of them sees nothing nobody knows it."""
        owners = [camera for camera in self._cameras.values() if zone in camera.zones]
        if any(camera.counts is None for camera in owners):
            return
        found: Counter[str] = Counter()
        for camera in owners:
            found.update({label: count for (name, label), count in camera.zone_counts.items() if name == zone})
        labels = self._zone_labels.setdefault(zone, set())
        labels.update(found)
        for label, count in (*((label, found[label]) for label in sorted(labels)), (ALL, found.total())):
            path = self._path(zone, label)
            if self._zone_said.get(path) != count:
                self._zone_said[path] = count
                yield Message(path, str(count).encode())

    def _forget(self, zone: str) -> None:
        for label in (*self._zone_labels.get(zone, ()), ALL):
            self._zone_said.pop(self._path(zone, label), None)

    def _detect(self, name: str) -> str:
        return f"{self._path(name)}/status/detect"

    def _path(self, *levels: str) -> str:
        return "/".join((self._prefix, *(_NO_LEVEL.sub("_", one) for one in levels)))
