"""Notice: one retained status, left at the broker by a process that ends. It waits for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError
from vajra_edge.mqtt.client import BrokerEndpoint
from vajra_edge.mqtt.events import FAILURE, Acked, Down, Up
from vajra_edge.mqtt.link import Link
from vajra_edge.mqtt.messages import ServiceStatus, encode
from vajra_edge.mqtt.topics import Topics

_POLL_S = 0.2


def leave(
    mqtt: MqttSettings,
    topics: Topics,
    status: ServiceStatus,
    *,
    patience_s: float,
    persistent: bool,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Publish a status and wait until the broker has it.

    Args:
        mqtt: whom to tell.
        topics: the table of topics.
        status: what to say.
        patience_s: longest time for all of it.
        persistent: try again while time is left; otherwise a broker that is not there ends it at once.
        clock: monotonic seconds.

    Returns:
        Whether the broker has it.
    """
    until_s = clock() + patience_s
    # another id than the daemon's: a second session of one id ends the first
    link = Link(BrokerEndpoint(mqtt, f"vajra-edge-{topics.device}-notice"), clock)
    path, payload = topics.path(topics.status), encode(status)
    try:
        while (left_s := until_s - clock()) > 0.0:
            for item in link.poll(min(left_s, _POLL_S)):
                match item:
                    case Up():
                        link.publish(path, payload, topics.status.qos, retain=topics.status.retain)
                    case Acked(_, code):
                        return code < FAILURE
                    case Down() if not persistent:
                        return False
                    case _:
                        pass
    except PublishError:
        return False
    finally:
        link.close()
    return False
