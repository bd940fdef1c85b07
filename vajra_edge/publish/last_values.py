"""LastValues: the retained states, one value a topic, sent again whenever a connection comes up."""

from __future__ import annotations

from vajra_edge.publish.topics import Topic


class LastValues:
    """Remembers the newest value of each topic and which of them the broker has not been given.

    A value that is replaced before it was sent is never sent: a build's percents do not queue. Not locked: the
    Publisher owns the lock.
    """

    def __init__(self) -> None:
        self._values: dict[Topic, bytes] = {}
        self._unsent: dict[Topic, None] = {}

    def set(self, topic: Topic, payload: bytes) -> None:
        """The newest value; an empty one takes the topic off the broker."""
        self._values[topic] = payload
        self._unsent[topic] = None

    def take(self) -> tuple[Topic, bytes] | None:
        """The next value to send; None when the broker was given all of them."""
        if not self._unsent:
            return None
        topic = next(iter(self._unsent))
        del self._unsent[topic]
        return topic, self._values[topic]

    def arrived(self, topic: Topic) -> None:
        """The broker has it; a topic that was taken off the broker need not be remembered."""
        if self._values.get(topic) == b"" and topic not in self._unsent:
            del self._values[topic]

    def resend(self) -> None:
        """A new connection: the broker may have restarted, and it has announced the last will."""
        self._unsent = dict.fromkeys(self._values)

    def __len__(self) -> int:
        """Values that were not sent yet."""
        return len(self._unsent)
