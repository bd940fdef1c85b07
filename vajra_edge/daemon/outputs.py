"""Outputs: gives frames, pictures and states to those outputs that the settings name; none of them costs nothing.

Called by the frame loop, the pictures' thread and the supervisor. The channel's thread alone knows what was said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vajra_edge.config.settings import MqttSettings, Settings
from vajra_edge.daemon.frigate_labels import FrigateLabels
from vajra_edge.mqtt.picture import Snapshot
from vajra_edge.mqtt.topics import Topics, topics_of
from vajra_edge.outputs import deepstream
from vajra_edge.outputs.channel import Channel
from vajra_edge.outputs.frigate import Frigate
from vajra_edge.outputs.sighted import Message, Sighted, sighted
from vajra_edge.telemetry.status import CameraView, Status
from vajra_edge.tracking.tracker import Numbers
from vajra_edge.types import Detections, Frame

STATS_S = 60.0
"""As often as Frigate says its own; ours come when a camera's state is another, too."""

BLIND_S = 2.0
"""After the newest frame of a camera that does not deliver: the last ones may be on their way still."""

LEAVE_S = 1.0
"""For the last words."""

Zones = Callable[[str], Mapping[int, tuple[str, ...]]]
"""Of a camera: the zones that each track is in."""


@dataclass
class _Open:
    """Outputs that are on.

    Attributes:
        mqtt, topics: that they were opened with.
        channel: sends.
        frigate: touched by the channel's thread alone; None: nobody asked for it.
        deepstream: path of its messages; None: nobody asked for it.
        labels: keeps whose number is said.
        seen_s: by camera, when its newest frame came, monotonic.
        stats_s: when statistics were said.
        many_labels: how many of them were kept.
    """

    mqtt: MqttSettings
    topics: Topics
    channel: Channel
    frigate: Frigate | None
    deepstream: str | None
    labels: FrigateLabels
    seen_s: dict[str, float] = field(default_factory=dict)
    stats_s: float = 0.0
    many_labels: int = 0


class Outputs:
    """All of them.

    Args:
        zones: who is where, see ``Watches.inside``.
        labels: keeps whose number is said.
        now_s: monotonic.
    """

    def __init__(self, zones: Zones, labels: FrigateLabels, now_s: Callable[[], float] = time.monotonic) -> None:
        self._zones, self._labels, self._now_s = zones, labels, now_s
        self._open: _Open | None = None
        self._left: Channel | None = None

    def apply(self, settings: Settings) -> None:
        """Have those outputs on that these settings name. Called by the supervisor."""
        wanted = (settings.mqtt, topics_of(settings)) if settings.mqtt.outputs else None
        opened = self._open
        if opened is not None and wanted != (opened.mqtt, opened.topics):
            self._leave(opened, for_good=True)
            opened = None
        if opened is None and wanted is not None:
            self._open = opened = self._begin(*wanted)
        if opened is not None and opened.frigate is not None:
            zones = {camera.id: tuple(zone.name for zone in camera.zones) for camera in settings.cameras}
            opened.channel.do(partial(opened.frigate.cameras, zones))

    def see(self, frame: Frame, found: Detections, tracks: Numbers | None, names: Sequence[str]) -> None:
        """A frame was inferred. Called by the frame loop.

        Args:
            frame: that was.
            found: in it.
            tracks: of each; None: the camera is not tracked.
            names: of classes, by id.
        """
        if (opened := self._open) is None:
            return
        opened.seen_s[frame.camera] = self._now_s()
        zones = self._zones(frame.camera) if tracks is not None else {}
        said = partial(_said, opened, Sighted.blank(frame), found, tracks, names, zones)
        opened.channel.do(said, is_frame=True)

    def picture(self, snapshot: Snapshot) -> None:
        """A frame became a picture. Called by the pictures' thread."""
        if (opened := self._open) is not None and opened.frigate is not None:
            opened.channel.do(
                partial(opened.frigate.picture, snapshot.camera, snapshot.frame_seq, snapshot.jpeg), is_frame=True
            )

    def tell(self, status: Status) -> None:
        """What became of the cameras. Called by the supervisor, twice a second."""
        if (opened := self._open) is not None and opened.frigate is not None:
            opened.channel.do(partial(_told, opened, opened.frigate, status, self._now_s()))

    def troubles(self) -> tuple[str, ...]:
        """What keeps them from the broker, a line each."""
        trouble = self._open.channel.trouble if self._open is not None else ""
        return (trouble,) if trouble else ()

    def close(self) -> None:
        """Say the last words. Called by the supervisor, once no frame comes any more."""
        if (opened := self._open) is not None:
            self._leave(opened, for_good=False)
            opened.channel.join(2 * LEAVE_S)

    def _begin(self, mqtt: MqttSettings, topics: Topics) -> _Open:
        wanted = "frigate" in mqtt.outputs
        frigate = Frigate(mqtt.frigate_prefix, topics.device, self._labels.read()) if wanted else None
        path = f"{topics.root}/{topics.device}/deepstream" if "deepstream" in mqtt.outputs else None
        will, present = (frigate.will, frigate.present) if frigate is not None else (None, list)
        channel = Channel(mqtt, f"vajra-edge-{topics.device}-outputs", will, present, self._left)
        channel.start()
        self._left = None
        return _Open(mqtt, topics, channel, frigate, path, self._labels)

    def _leave(self, opened: _Open, *, for_good: bool) -> None:
        self._open, self._left = None, opened.channel
        last = partial(opened.frigate.stop, for_good=for_good) if opened.frigate is not None else list
        opened.channel.leave(last, LEAVE_S)


def _said(
    opened: _Open,
    blank: Sighted,
    found: Detections,
    tracks: Numbers | None,
    names: Sequence[str],
    zones: Mapping[int, tuple[str, ...]],
) -> list[Message]:
    """Of a frame; a camera whose zones somebody took away may track no more."""
    shown = sighted(blank, found, tracks, names, zones)
    messages = [Message(opened.deepstream, deepstream.encode(shown))] if opened.deepstream is not None else []
    if opened.frigate is not None:
        messages += opened.frigate.see(shown) if tracks is not None else opened.frigate.blind(shown.camera)
        if opened.many_labels != opened.frigate.many_labels:
            opened.many_labels = opened.frigate.many_labels
            opened.labels.keep(opened.frigate.labels)
    return messages


def _told(opened: _Open, frigate: Frigate, status: Status, now_s: float) -> list[Message]:
    """Of what became of the cameras."""
    states = [message for camera in status.cameras for message in frigate.state(camera.id, camera.state)]
    blind = [message for camera in _silent(opened, status, now_s) for message in frigate.blind(camera)]
    if not states and now_s - opened.stats_s < STATS_S:
        return blind
    opened.stats_s = now_s
    return [*states, *blind, *frigate.stats(stats_of(status))]


def _silent(opened: _Open, status: Status, now_s: float) -> list[str]:
    """Cameras that do not deliver, or whose frames no engine sees, and nothing of which is on its way any more."""
    return [
        camera.id
        for camera in status.cameras
        if not (status.phase == "serving" and camera.state == "streaming")
        and now_s - opened.seen_s.get(camera.id, 0.0) > BLIND_S
    ]


def stats_of(status: Status) -> dict[str, Any]:
    """What Frigate's statistics have of a device that measures less."""
    cameras = {camera.id: _camera(camera) for camera in status.cameras}
    serving = status.engine.serving
    inference_ms = status.pipeline.get("inference_ms")
    speed = {"inference_speed": round(float(inference_ms), 2)} if serving is not None and inference_ms else {}
    return {
        "cameras": cameras,
        "detectors": {serving.backend: speed} if serving is not None else {},
        "camera_fps": round(sum(camera.fps for camera in status.cameras), 2),
        "service": {
            "uptime": int(status.uptime_s),
            "version": f"vajra-edge {status.version}",
            "last_updated": int(time.time()),
        },
    }


def _camera(camera: CameraView) -> dict[str, Any]:
    return {"camera_fps": camera.fps, "detection_enabled": camera.state != "off", "capture_pid": camera.pid}
