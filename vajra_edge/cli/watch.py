"""``vajra-edge watch``: what an MQTT subscriber receives, as a live table or as JSON lines."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vajra_edge.cli.terminal import inert_document
from vajra_edge.config.settings import MqttSettings, Settings
from vajra_edge.mqtt.events import Received
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.mqtt.topics import device_id

_POLL_S = 0.2
_RATE_WINDOW_S = 5.0
_CAMERA_PARTS = 3
_STATE_STYLES = {"streaming": "green", "serving": "green", "lost": "red", "failed": "red", "blocked": "red"}


class View(Protocol):
    """Where messages go."""

    def take(self, received: Received) -> bool:
        """Show one message; True if it was a detection message."""
        ...

    def refresh(self, trouble: str, *, last: bool = False) -> None:
        """Show why nothing arrives, empty while all is well; ``last``: nothing follows."""
        ...


def watch(settings: Settings, *, as_json: bool, max_messages: int | None = None, device: str | None = None) -> int:
    """Subscribe to the broker of the settings and show what arrives.

    Args:
        settings: name the broker and, unless ``device`` does, the device.
        as_json: print each detection message and gap record as received, one a line, and nothing else on stdout.
        max_messages: end after so many detection messages.
        device: id of the device to watch; ``+`` for all.

    Returns:
        The exit code.
    """
    wanted = device or device_id(settings)
    if as_json:
        follow(settings.mqtt, wanted, Lines(sys.stdout.buffer), max_messages)
        return 0
    with Live(console=Console(), auto_refresh=False) as live:
        follow(settings.mqtt, wanted, Screen(live), max_messages)
    return 0


def follow(
    mqtt: MqttSettings,
    device: str,
    view: View,
    max_messages: int | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Show a device's messages until enough came, ``is_over`` says so, or Ctrl-C; returns the number shown."""
    shown = 0
    with Subscription(mqtt, paths(mqtt.root, device)) as subscription:
        try:
            while not is_over():
                for received in subscription.poll(_POLL_S):
                    shown += view.take(received)
                    if max_messages is not None and shown >= max_messages:
                        view.refresh(subscription.trouble, last=True)
                        return shown
                view.refresh(subscription.trouble)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # `watch --json | head`: whoever read us has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return shown


def paths(root: str, device: str) -> list[str]:
    """Topic filters of one device, or of all for ``+``."""
    base = f"{root}/{device}"
    return [f"{base}/status", f"{base}/engine", f"{base}/camera/+/status", f"{base}/camera/+/detections"]


class Lines:
    """One line a detection message, exactly as received; trouble goes to stderr, each once."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._trouble = ""

    def take(self, received: Received) -> bool:
        """Print a detection message or gap record, skip any other; gap records are not counted."""
        if not received.path.endswith("/detections"):
            return False
        self._output.write(received.payload + b"\n")
        self._output.flush()
        return not is_gap(received.payload)

    def refresh(self, trouble: str, *, last: bool = False) -> None:  # noqa: ARG002  each is said at once
        """Say what is wrong, when it changed."""
        if trouble and trouble != self._trouble:
            sys.stderr.write(trouble + "\n")
        self._trouble = trouble


@dataclass
class CameraRow:
    """What is known of one camera.

    Attributes:
        state: from its status topic.
        reason: from its status topic.
        arrivals_s: monotonic times of its latest detection messages.
        newest: its latest detection message.
        missing: messages that do not come, as its gap records say.
        why: they do not come, by reason.
    """

    state: str = ""
    reason: str = ""
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    newest: dict[str, Any] = field(default_factory=dict)
    missing: int = 0
    why: dict[str, None] = field(default_factory=dict)

    def messages_per_s(self, now_s: float) -> float:
        """Over the last seconds."""
        recent = [at for at in self.arrivals_s if now_s - at <= _RATE_WINDOW_S]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0

    def age_ms(self, now_s: float) -> float:
        """Of the newest frame, by now."""
        return float(self.newest["frame_age_ms"]) + (now_s - self.arrivals_s[-1]) * 1000.0

    def seen(self) -> str:
        """What the newest message shows, by class."""
        counts = Counter(str(row["class"]) for row in self.newest["detections"])
        return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "nothing"

    def gaps(self) -> str:
        """How many messages are missing for certain or perhaps, and why; empty where none is."""
        return f"{self.missing} ({', '.join(self.why)})" if self.missing else ""


class Board:
    """The live table: one row a camera, and a line for each device.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cameras: dict[tuple[str, str], CameraRow] = {}
        self._devices: dict[str, dict[str, Any]] = {}
        self._messages = self._unreadable = 0

    def take(self, received: Received) -> bool:
        """Note one message; what is not ours by its form is counted and left."""
        try:
            payload = inert_document(orjson.loads(received.payload))
            is_detections = self._note(received.path.split("/"), payload)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            self._unreadable += bool(received.payload)
            return False
        self._messages += is_detections
        return is_detections

    def render(self, trouble: str = "") -> Group:
        """The table as of now, a bar for each engine that is being built, and the reason why nothing arrives, if so."""
        building = [self._bar(name, status["progress"]) for name, status in sorted(self._devices.items())]
        return Group(*(bar for bar in building if bar is not None), self._table(trouble))

    def _bar(self, device: str, progress: float | None) -> Table | None:
        if progress is None:
            return None
        row = Table.grid(padding=(0, 1))
        row.add_row(f"{device}: building its engine", ProgressBar(1.0, progress, width=40), f"{progress:.0%}")
        return row

    def _table(self, trouble: str) -> Table:
        now_s = self._clock()
        table = Table(title="vajra-edge", caption=self._caption(trouble), expand=True, title_justify="left")
        for heading in ("device", "camera", "state", "msg/s", "seen", "age", "engine"):
            table.add_column(heading, justify="right" if heading in {"msg/s", "age"} else "left")
        for (device, camera), row in sorted(self._cameras.items()):
            cells = self._cells(row, now_s) if row.newest else ("", "", "", "")
            state = Text(f"{row.state} {row.reason}".strip(), _STATE_STYLES.get(row.state, ""))
            table.add_row(device, camera, state, *cells)
        return table

    def _cells(self, row: CameraRow, now_s: float) -> tuple[str, str, str, str]:
        engine = row.newest["engine"]
        label = f"{engine['fingerprint']} {engine['precision']} {engine['target']}"
        age = f"{row.age_ms(now_s):.0f} ms" + (" replayed" if row.newest["replayed"] else "")
        return f"{row.messages_per_s(now_s):.1f}", row.seen(), age, label

    def _caption(self, trouble: str) -> Text:
        if trouble:
            return Text(trouble, "red")
        devices = [
            f"{name}: {status['state']} {status['reason']}".strip() for name, status in sorted(self._devices.items())
        ]
        missing = [f"{camera} misses {row.gaps()}" for (_, camera), row in sorted(self._cameras.items()) if row.gaps()]
        unreadable = [f"{self._unreadable} unreadable"] if self._unreadable else []
        return Text(" · ".join([*devices, f"{self._messages} messages", *missing, *unreadable]))

    def _note(self, parts: list[str], payload: dict[str, Any]) -> bool:
        device = str(payload["device"])
        if parts[-1] == "detections":
            row = self._row(device, str(payload["camera"]))
            if "gap" in payload:
                row.missing += int(payload["gap"]["to"]) - int(payload["gap"]["from"]) + 1
                row.why[str(payload["gap"]["why"])] = None
                return False
            row.newest = payload
            row.arrivals_s.append(self._clock())
            return True
        if parts[-_CAMERA_PARTS] == "camera":
            row = self._row(device, str(payload["camera"]))
            row.state, row.reason = str(payload["state"]), str(payload["reason"])
        elif parts[-1] == "status":
            progress = None if payload["progress"] is None else float(payload["progress"])
            self._devices[device] = {
                "state": str(payload["state"]),
                "reason": str(payload["reason"]),
                "progress": progress,
            }
        return False

    def _row(self, device: str, camera: str) -> CameraRow:
        return self._cameras.setdefault((device, camera), CameraRow())


def is_gap(payload: bytes) -> bool:
    """Whether it is a gap record; what is not ours by its form is none."""
    try:
        return "gap" in orjson.loads(payload)
    except (orjson.JSONDecodeError, TypeError):
        return False


class Screen:
    """A board on a terminal, drawn a few times a second however many messages come.

    Args:
        live: rich's display.
        clock: monotonic seconds.
    """

    def __init__(self, live: Live, clock: Callable[[], float] = time.monotonic) -> None:
        self._live, self._clock = live, clock
        self._board = Board(clock)
        self._drawn_s = float("-inf")

    def take(self, received: Received) -> bool:
        """Note one message."""
        return self._board.take(received)

    def refresh(self, trouble: str, *, last: bool = False) -> None:
        """Draw, if it is time or the end."""
        now_s = self._clock()
        if last or now_s - self._drawn_s >= _POLL_S:
            self._drawn_s = now_s
            self._live.update(self._board.render(trouble), refresh=True)
