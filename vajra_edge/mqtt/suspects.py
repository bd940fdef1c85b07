"""Suspects: which message a broker breaks the connection over, found by sending those that were under way one by one.

A packet over a broker's limit, a topic it forbids or bytes it dislikes may cost the connection, and many brokers do not
say why. Sent again first thing at every reconnect, such a message would keep the device off the broker for ever.

What was under way, or had just been written, at two breaks in a row is suspect. A suspect is sent alone and must be
acknowledged before anything follows; if a connection that had worked breaks then, it is guilty, and is dropped. After
two of a kind (larger than all that ever arrived, or on one topic) the next of that kind are not sent for a while: a
crowd in front of a camera makes one such message after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vajra_edge.mqtt.events import LossCause

JUST_S = 2.0
"""A message that needs no acknowledgement may be to blame for so long: brokers read on before they hang up."""

SIZE_HOLDS_S = 3600.0
"""Sizes are a broker's settings; after so long one message tries whether they are others."""

TOPIC_HOLDS_S = 600.0
"""A topic that twice cost the connection is left alone for so long."""

LONELY_BREAKS = 3
"""So often may it break over the same message on connections that never worked before: then it is this message."""

_MOST_KEYS = 2048


@dataclass(frozen=True)
class Key:
    """What makes a message the same one at the next try: its number, or its topic where only the newest counts."""

    path: str
    number: int | None


@dataclass(frozen=True)
class Sent:
    """A message as it was sent; ``size_bytes`` is that of its payload."""

    key: Key
    size_bytes: int


class Suspects:
    """Of one broker. Used by one thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._written: dict[Key, tuple[float, Sent]] = {}
        self._before: frozenset[Key] = frozenset()
        self._suspects: dict[Key, int] = {}
        self._alone: Sent | None = None
        self._alone_until_s = float("inf")
        self._worked = False
        self._largest_acked_bytes = 0
        self._too_large: tuple[int, int, float] = (0, 0, 0.0)
        self._topics: dict[str, tuple[int, float]] = {}

    @property
    def alone(self) -> bool:
        """Whether a suspect is under way, so that nothing may follow it yet."""
        if self._alone is not None and self._clock() >= self._alone_until_s:
            self._clear(self._alone.key)
        return self._alone is not None

    def has(self, key: Key) -> bool:
        """Whether this message must be sent alone, and be acknowledged."""
        return key in self._suspects

    def refused(self, sent: Sent) -> str:
        """Why a message is not to be sent at all: ``too_large`` or ``refused``; empty where it may be."""
        now_s = self._clock()
        times, size_bytes, until_s = self._too_large
        if times > 1 and now_s < until_s and sent.size_bytes >= size_bytes:
            return "too_large"
        times, until_s = self._topics.get(sent.key.path, (0, 0.0))
        return "refused" if times > 1 and now_s < until_s else ""

    def exceeds(self, size_bytes: int) -> bool:
        """Whether all that ever arrived was smaller: the size, then, is what the broker dislikes."""
        return size_bytes > self._largest_acked_bytes

    def sent(self, sent: Sent) -> None:
        """It was handed to the network."""
        now_s = self._clock()
        self._written = {key: one for key, one in self._written.items() if one[0] > now_s - JUST_S}
        self._written[sent.key] = now_s, sent
        if self.has(sent.key):
            self._alone, self._alone_until_s = sent, float("inf")

    def written(self, sent: Sent) -> None:
        """It left, and the broker will not say that it has it: time has to tell."""
        if self._alone is not None and self._alone.key == sent.key:
            self._alone_until_s = self._clock() + JUST_S

    def acked(self, sent: Sent) -> None:
        """The broker said that it has it."""
        self._worked = True
        self._largest_acked_bytes = max(self._largest_acked_bytes, sent.size_bytes)
        self._written.pop(sent.key, None)
        self._clear(sent.key)

    def broken(self, cause: LossCause, under_way: Iterable[Sent]) -> Sent | None:
        """The connection is over.

        Args:
            cause: who ended it, and why.
            under_way: what was sent and not acknowledged.

        Returns:
            The guilty message, if it is known.
        """
        now_s, alone, worked = self._clock(), self._alone, self._worked
        just = {one.key: one for at_s, one in self._written.values() if at_s > now_s - JUST_S}
        candidates = {**just, **{one.key: one for one in under_way}}
        self._written, self._alone, self._worked = {}, None, False
        if cause is LossCause.TOO_LARGE and candidates:
            return self._convict(max(candidates.values(), key=lambda one: one.size_bytes), now_s, sure=True)
        if cause is not LossCause.HUNG_UP:
            return None
        if alone is not None:
            self._suspects[alone.key] += 1
            if worked or self._suspects[alone.key] >= LONELY_BREAKS:
                return self._convict(alone, now_s, sure=False)
        both = self._before & candidates.keys()
        known = {**dict.fromkeys(both, 0), **self._suspects}
        self._suspects = dict(list(known.items())[:_MOST_KEYS])  # some may have left the outbox unsent
        self._before = frozenset(candidates)
        return None

    def _clear(self, key: Key) -> None:
        self._suspects.pop(key, None)
        if self._alone is not None and self._alone.key == key:
            self._alone = None

    def _convict(self, guilty: Sent, now_s: float, *, sure: bool) -> Sent:
        self._suspects.pop(guilty.key, None)
        self._before = frozenset()
        if sure or self.exceeds(guilty.size_bytes):
            times, size_bytes, until_s = self._too_large
            known = now_s < until_s
            self._too_large = (
                (times if known else 0) + 1 + sure,
                min(guilty.size_bytes, size_bytes) if known else guilty.size_bytes,
                now_s + SIZE_HOLDS_S,
            )
        else:
            self._topics = {path: one for path, one in self._topics.items() if now_s < one[1]}
            times, _ = self._topics.get(guilty.key.path, (0, 0.0))
            self._topics[guilty.key.path] = times + 1, now_s + TOPIC_HOLDS_S
        return guilty
