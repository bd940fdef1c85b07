"""Announcements: the retained topics and systemd's STATUS=, each said again only when there is something new to say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import TypeAlias

from vajra_edge.daemon.systemd import Notify
from vajra_edge.mqtt.messages import CameraStatus, EngineStatus, HistoryEntry, HistoryStatus, ServiceStatus, encode
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topic, Topics
from vajra_edge.telemetry.status import Status

REFRESH_S = 30.0
"""A camera's counters alone are no news; they are said this often."""

_WHENEVER = datetime(1970, 1, 1, tzinfo=timezone.utc)

Message: TypeAlias = "ServiceStatus | EngineStatus | CameraStatus | HistoryStatus"


class Announcements:
    """Says what changed.

    Args:
        publisher: keeps the newest value of each topic.
        topics: the table of topics.
        notify: systemd.
    """

    def __init__(self, publisher: Publisher, topics: Topics, notify: Notify) -> None:
        self._publisher, self._topics, self._notify = publisher, topics, notify
        self._said: dict[Topic, tuple[Message, float]] = {}

    def say(self, status: Status, now_s: float) -> None:
        """Publish what is another than last time.

        Args:
            status: of now.
            now_s: monotonic.
        """
        self._notify.status(status.line())
        self._tell(self._topics.status, status.service_message(), now_s)
        self._tell(self._topics.engine, status.engine_message(), now_s)
        for message in status.camera_messages():
            self._tell(self._topics.camera_status(message.camera), message, now_s)

    def tell_history(self, entries: tuple[HistoryEntry, ...], now_s: float) -> None:
        """Publish the newest entries of the history, where there are other ones than last time."""
        if entries:
            self._tell(self._topics.history, HistoryStatus(self._topics.device, entries), now_s)

    def forget(self, camera: str) -> None:
        """Take a removed camera's status off the broker."""
        topic = self._topics.camera_status(camera)
        self._said.pop(topic, None)
        self._publisher.state(topic, b"")

    def move(self, topics: Topics) -> None:
        """Other topics from now on; the publisher moves the values that it keeps."""
        self._topics = topics

    def _tell(self, topic: Topic, message: Message, now_s: float) -> None:
        news = _news(message)
        last, at_s = self._said.get(topic, (None, 0.0))
        counters_due = isinstance(message, CameraStatus) and now_s - at_s >= REFRESH_S
        if news != last or counters_due:
            self._said[topic] = news, now_s
            self._publisher.state(topic, encode(message))


def _news(message: Message) -> Message:
    """The message without what changes all the time."""
    if isinstance(message, CameraStatus):
        return replace(message, at=_WHENEVER, fps=None, frames=0, dropped=0)
    return replace(message, at=_WHENEVER)
