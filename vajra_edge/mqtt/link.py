"""Link: one connection to the broker, for ever. It dials in a thread of its own: resolvers and routes can block."""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from typing_extensions import assert_never

from vajra_edge.errors import PublishError
from vajra_edge.mqtt import events
from vajra_edge.mqtt.client import NO_PROPERTIES, BrokerEndpoint, PublishProperties, Session
from vajra_edge.mqtt.connection import (
    Accepted,
    Connection,
    ConnectionPhase,
    ConnectionTick,
    Dial,
    Event,
    Fault,
    Mended,
    advance,
)
from vajra_edge.mqtt.events import Acked, Down, Happening, LossCause, Received, Subscribed, Up

_LOG = logging.getLogger(__name__)
_DICE = random.SystemRandom()

MOST_DIALS = 4
"""Attempts that hang at one time."""


class Link:
    """A connection that comes back. Used by one thread; only ``wake`` may be called from others.

    Args:
        endpoint: whom to connect to.
        clock: monotonic seconds.
        dice: uniform in 0..1.
    """

    def __init__(
        self,
        endpoint: BrokerEndpoint,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = _DICE.random,
    ) -> None:
        self._endpoint, self._clock, self._dice = endpoint, clock, dice
        self._state = Connection.first(endpoint.mqtt.protocol)
        self._session: Session | None = None
        self._dialled: SimpleQueue[tuple[BrokerEndpoint, Session | PublishError]] = SimpleQueue()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._awake = False
        self._dialling_from_s = 0.0
        self._dials: list[threading.Thread] = []

    @property
    def dialling(self) -> bool:
        """Whether an attempt to connect is under way."""
        return self._state.phase is ConnectionPhase.DIALLING

    @property
    def dialling_s(self) -> float:
        """How long the attempt that is under way takes by now; 0 where none is."""
        return self._clock() - self._dialling_from_s if self.dialling else 0.0

    @property
    def acknowledges(self) -> bool:
        """Whether the broker says of messages that it has them."""
        return self._session is not None and self._session.acknowledges

    @property
    def waits_s(self) -> float:
        """For how long the oldest message waits for its acknowledgement; 0 where none does."""
        return self._session.waits_s if self._session is not None else 0.0

    @property
    def _closed(self) -> bool:
        return self._reader.fileno() < 0

    @property
    def room(self) -> int:
        """How many messages may be sent now."""
        return self._session.room if self._session is not None else 0

    def wake(self) -> None:
        """End a ``poll`` that waits; from any thread, and cheap when it was done already."""
        if not self._awake:
            self._awake = True
            with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nobody waits
                self._writer.send(b"!")

    def poll(self, timeout_s: float) -> list[Happening]:
        """Wait for news until the time is up or ``wake`` is called; dials when it is time to."""
        now_s = self._clock()
        self._advance(ConnectionTick(now_s))
        if self._session is not None:
            happened = self._session.pump(self._reader, timeout_s)
        else:
            if self._state.phase is ConnectionPhase.WAITING:
                timeout_s = min(timeout_s, max(0.0, self._state.retry_s - now_s))
            happened = []
            select.select([self._reader], [], [], timeout_s)
        self._fall_asleep()
        happened += self._collect()
        return [item for item in happened if self._absorb(item)]

    def publish(
        self, path: str, payload: bytes, qos: int, *, retain: bool, told: PublishProperties = NO_PROPERTIES
    ) -> int:
        """See ``Session.publish``; only where there is room.

        Raises:
            PublishError: there is no connection, or the message is too large for the broker.
        """
        if self._session is None:
            raise events.lost(self._endpoint.mqtt, "no connection")
        return self._session.publish(path, payload, qos, retain=retain, told=told)

    def subscribe(self, paths: Sequence[str], *, retained: bool) -> None:
        """See ``Session.subscribe``; holds for this connection only, so it is asked again at each ``Up``."""
        if self._session is not None:
            self._session.subscribe(paths, retained=retained)

    def unsubscribe(self, paths: Sequence[str]) -> None:
        """Ask for these messages no more on this connection."""
        if self._session is not None:
            self._session.unsubscribe(paths)

    def redirect(self, endpoint: BrokerEndpoint) -> None:
        """Leave politely and connect to another endpoint at once; an attempt that is under way is abandoned."""
        self._leave()
        self._endpoint = endpoint
        self._state = Connection.first(endpoint.mqtt.protocol)

    def abort(self) -> None:
        """Drop the connection after a fault of our own, and come back after a delay."""
        self._leave()
        self._advance(Fault(self._clock(), self._dice()))

    def mended(self) -> None:
        """What the connection broke over is out of the way: come back soon."""
        self._advance(Mended(self._clock(), self._dice()))

    def close(self) -> None:
        """Leave politely; may be called again."""
        self._leave()
        self._reader.close()
        self._writer.close()
        self._collect()

    def _collect(self) -> list[Happening]:
        """Take the session that a dialling thread made; one for an endpoint that was left meanwhile is closed."""
        happened: list[Happening] = []
        with contextlib.suppress(Empty):
            while True:
                endpoint, outcome = self._dialled.get_nowait()
                current = endpoint is self._endpoint and self.dialling and self._session is None and not self._closed
                if isinstance(outcome, PublishError):
                    happened += [Down(outcome)] if current else []
                elif current:
                    self._session = outcome
                else:
                    outcome.close()
        return happened

    def _absorb(self, item: Happening) -> bool:
        """Let the machine know; False for what the caller need not see: an end that led to another dial at once."""
        match item:
            case Up():
                self._advance(Accepted(self._clock()))
                return True
            case Down(_, doubt, cause):
                self._leave()
                return not self._advance(Fault(self._clock(), self._dice(), doubt, rival=cause is LossCause.RIVAL))
            case Acked() | Subscribed() | Received():
                return True
            case _:
                assert_never(item)

    def _advance(self, event: Event) -> bool:
        self._state, action = advance(self._state, event)
        if isinstance(action, Dial):
            self._dialling_from_s = self._clock()
            self._start_dial(action)
        return action is not None

    def _start_dial(self, dial: Dial) -> None:
        """In a thread, unless too many hang already: each change of the settings may leave one with the resolver."""
        self._dials = [thread for thread in self._dials if thread.is_alive()]
        if len(self._dials) >= MOST_DIALS:
            self._dialled.put((self._endpoint, events.slow(self._endpoint.mqtt)))
            self.wake()
            return
        arguments = (self._endpoint, dial)
        self._dials.append(threading.Thread(target=self._dial, args=arguments, name="mqtt-dial", daemon=True))
        self._dials[-1].start()

    def _dial(self, endpoint: BrokerEndpoint, dial: Dial) -> None:
        try:
            session = Session(endpoint, dial, self._clock)
            session.dial()
        except PublishError as error:
            self._dialled.put((endpoint, error))
        except Exception as error:  # noqa: BLE001  top of the thread: it becomes an event
            _LOG.exception("dialling the MQTT broker")
            self._dialled.put((endpoint, events.unreachable(endpoint.mqtt, error)))
        else:
            self._dialled.put((endpoint, session))
        if self._closed:
            self._collect()
        self.wake()

    def _leave(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _fall_asleep(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        self._awake = False
