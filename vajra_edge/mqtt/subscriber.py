"""Subscriber: the other end, for ``watch`` and the demo: what any subscriber of the broker receives."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from types import TracebackType

from typing_extensions import Self, assert_never

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.client import BrokerEndpoint
from vajra_edge.mqtt.events import Acked, Down, Received, Subscribed, Up
from vajra_edge.mqtt.link import Link


class Subscription:
    """Receives messages for as long as it is polled; comes back when the broker does.

    Args:
        mqtt: whom to connect to.
        paths: MQTT topic filters.

    Attributes:
        trouble: why nothing is received, one line with a remedy; empty while subscribed or while still trying.
        ready: whether the broker has granted the subscription.
    """

    def __init__(self, mqtt: MqttSettings, paths: Sequence[str]) -> None:
        self._paths = list(paths)
        self._link = Link(BrokerEndpoint(mqtt, f"vajra-watch-{secrets.token_hex(4)}"))
        self.trouble = ""
        self.ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def poll(self, timeout_s: float) -> list[Received]:
        """Wait for messages, at most for this long."""
        received = []
        for item in self._link.poll(timeout_s):
            match item:
                case Received():
                    received.append(item)
                case Up():
                    self._link.subscribe(self._paths, retained=True)
                case Down(error):
                    self.trouble, self.ready = str(error), False
                case Subscribed(granted):
                    self.ready = granted
                    self.trouble = "" if granted else "the broker refuses the subscription; check its access list"
                case Acked():
                    pass  # nothing is published here
                case _:
                    assert_never(item)
        return received

    def close(self) -> None:
        """Leave; may be called again."""
        self._link.close()
