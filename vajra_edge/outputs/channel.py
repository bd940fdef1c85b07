"""Channel: a connection of the outputs' own, since a connection has one last will and Frigate's topics need theirs.

What it sends is live: what cannot be sent now is dropped. The detections of the other connection are what is kept. Its
thread also makes the messages, so that the frame loop has no more to do than to say what it saw.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from vajra_edge.config.settings import MqttSettings
from vajra_edge.errors import PublishError
from vajra_edge.mqtt import events
from vajra_edge.mqtt.client import BrokerEndpoint
from vajra_edge.mqtt.events import Acked, Down, Happening, Up
from vajra_edge.mqtt.link import Link
from vajra_edge.outputs.sighted import Message

_LOG = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Messages for which the connection has no room yet; beyond them the oldest go."""

MOST_FRAMES = 200
"""Frames that are not put into words yet; beyond them those that come are left out."""

AFTER_S = 5.0
"""Longest wait for the channel before; a broker ends its connection then, and says its last will."""

_POLL_S, _BUSY_POLL_S = 0.5, 0.01
_MOST_NOTED = 64

Task = Callable[[], Sequence[Message]]
"""Makes messages; is called by the channel's thread, in the order of asking, whether a broker is there or not."""


class Channel:
    """Sends what it is given, if the broker is there.

    Args:
        mqtt: whom to connect to.
        client_id: another one than that of the daemon's own connection.
        will: path and payload that the broker publishes when the connection breaks; None: none.
        present: what is said at each connect.
        after: a channel that has been told to leave, and has the same id: this one waits for its end.
    """

    def __init__(
        self,
        mqtt: MqttSettings,
        client_id: str,
        will: tuple[str, bytes] | None,
        present: Task,
        after: Channel | None = None,
    ) -> None:
        self._link, self._present, self._after = Link(BrokerEndpoint(mqtt, client_id, will)), present, after
        self._tasks: deque[Task] = deque()
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._under_way: dict[int, Message] = {}
        self._noted: set[str] = set()
        self._trouble = ""
        self._up = False
        self._close_by_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="outputs", daemon=True)

    @property
    def trouble(self) -> str:
        """The newest since a connection came up; empty: there is none."""
        return self._trouble

    def start(self) -> None:
        """Start the thread; a broker need not be there."""
        self._thread.start()

    def do(self, task: Task, *, is_frame: bool = False) -> None:
        """Send what this makes, now or never; ``is_frame``: of a frame, of which others follow."""
        if not (is_frame and len(self._tasks) >= MOST_FRAMES):
            self._tasks.append(task)
            self._link.wake()

    def leave(self, task: Task, within_s: float) -> None:
        """Say these last words and go; does not wait, see ``join``."""
        self.do(task)
        self._close_by_s = time.monotonic() + within_s
        self._link.wake()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        if self._after is not None:
            self._after.join(AFTER_S)
            self._after = None
        while not self._is_over():
            self._turn()
        self._up = False
        self._link.close()

    def _turn(self) -> None:
        try:
            self._step()
        except Exception:  # noqa: BLE001  top of the thread: outputs must not end for a fault of their own
            _LOG.exception("the outputs' thread goes on after a fault of its own")
            self._fall()
            self._link.abort()
            time.sleep(_POLL_S)

    def _is_over(self) -> bool:
        if self._close_by_s is None:
            return False
        idle = not (self._tasks or self._waiting or self._under_way)
        return idle or (not self._up and not self._tasks) or time.monotonic() >= self._close_by_s

    def _step(self) -> None:
        for item in self._link.poll(_BUSY_POLL_S if self._waiting or self._under_way else _POLL_S):
            self._take(item)
        while self._tasks:
            self._say(self._tasks.popleft()())
        while self._up and self._waiting and self._link.room:
            self._publish(self._waiting.popleft())

    def _say(self, messages: Sequence[Message]) -> None:
        if not self._up:
            return
        if len(self._waiting) + len(messages) > MOST_WAITING:
            self._note(f"messages of [mqtt] outputs are dropped: more than {MOST_WAITING} wait for the broker")
        self._waiting.extend(messages)

    def _take(self, item: Happening) -> None:
        match item:
            case Up():
                self._fall()
                self._noted.clear()
                self._up, self._trouble = True, ""
                self._say(self._present())
            case Down(error):
                self._fall()
                self._note(f"outputs: {error}")
            case Acked(token, code):
                message = self._under_way.pop(token, None)
                if message is not None and code >= events.FAILURE:
                    self._note(f"outputs: {events.not_sent(code, message.path, len(message.payload))}")
            case _:
                pass  # nothing is subscribed to

    def _fall(self) -> None:
        self._up = False
        self._waiting.clear()
        self._under_way.clear()

    def _publish(self, message: Message) -> None:
        try:
            token = self._link.publish(message.path, message.payload, message.qos, retain=message.retain)
        except PublishError as error:
            self._note(f"outputs: {error}")
        else:
            self._under_way[token] = message

    def _note(self, text: str) -> None:
        """Each once, until a connection came up again."""
        self._trouble = text
        if text not in self._noted and len(self._noted) < _MOST_NOTED:
            self._noted.add(text)
            _LOG.warning("%s", text)
