"""A whole daemon for tests: the real supervisor in a thread or a process, a tiny real network, pictures, a broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import orjson
import tiny
from paho.mqtt import publish
from waiting import LIMIT_S, wait_for

from vajra_edge.config.settings import MqttSettings, load
from vajra_edge.daemon.app import assemble
from vajra_edge.daemon.control.server import ask
from vajra_edge.daemon.events import Stop
from vajra_edge.daemon.supervisor import Supervisor
from vajra_edge.mqtt.subscriber import Subscription

ROOT = Path(__file__).resolve().parents[1]


def build_children(parent: int) -> list[int]:
    """Build children of a process, by /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it ended meanwhile
            if entry.name.isdigit() and f"PPid:\t{parent}\n" in (entry / "status").read_text():
                command = (entry / "cmdline").read_bytes()
                found += [int(entry.name)] if b"vajra_edge.build.worker" in command else []
    return found


def toml(value: object) -> str:
    """A value as TOML has it: JSON's but for tables."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(each)}' for key, each in value.items())} }}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, (list, tuple)) else json.dumps(value)


class Station:
    """Files of one daemon, and the daemon.

    Args:
        folder: everything lies below it.
        port: of the broker.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.config, self.weights = folder / "config.toml", folder / "net.onnx"
        self.state_dir, self.socket = folder / "state", folder / "control.sock"
        self.parts: Any = None
        self.supervisor: Supervisor | None = None
        self.thread: threading.Thread | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.settings: dict[str, Any] = {
            "device_id": "test",
            "weights": {"path": str(self.weights)},
            "engine": {},
            "calibration": {},
            "detect": {},
            "mqtt": {"host": "127.0.0.1", "port": port},
            "store": {"state_dir": str(self.state_dir)},
            "service": {
                "control_socket": str(self.socket),
                "settle_s": 0.2,
                "poll_s": 0.05,
                "drain_s": 5.0,
                "log_level": "debug",
            },
            "cameras": {},
        }
        self.write_weights(tiny.network())
        self.camera("gate")

    def write_weights(self, content: bytes) -> None:
        """Replace the file by a rename, as a careful operator does."""
        aside = self.weights.with_suffix(".new")
        aside.write_bytes(content)
        aside.replace(self.weights)

    def camera(self, name: str, **fields: Any) -> None:
        """A folder of pictures that is shown for ever, 20 a second."""
        pictures = self.folder / f"{name}-pictures"
        if not pictures.exists():
            pictures.mkdir(parents=True)
            for number in range(4):
                cv2.imwrite(str(pictures / f"{number}.png"), tiny.scene(seed=number).image)
        known = {"source": str(pictures), "loop": True, "fps": 20.0}
        self.settings["cameras"][name] = {**known, **self.settings["cameras"].get(name, {}), **fields}

    def write(self, **sections: dict[str, Any]) -> None:
        """Write the settings file with these changes."""
        for name, fields in sections.items():
            self.settings[name] = {**self.settings[name], **fields}
        lines = [f"device_id = {json.dumps(self.settings['device_id'])}"]
        for name in ("weights", "engine", "calibration", "detect", "mqtt", "store", "service"):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in self.settings[name].items())]
        for name, fields in self.settings["cameras"].items():
            lines += ["[[cameras]]", f'id = "{name}"']
            lines += [f"{key} = {toml(value)}" for key, value in fields.items()]
        aside = self.config.with_suffix(".new")
        aside.write_text("\n".join(lines) + "\n")
        aside.replace(self.config)

    def start(self, max_frames: int | None = None) -> Station:
        """Run the supervisor in a thread of this process; only signals are missing."""
        self.write()
        chosen = load(self.config)
        self.parts = assemble(chosen, max_frames, {})
        self.supervisor = Supervisor(self.parts, chosen, self.config)
        self.code = None

        def run() -> None:
            self.code = self.supervisor.run()

        self.thread = threading.Thread(target=run, name="supervisor")
        self.thread.start()
        wait_for(self.socket.exists)
        return self

    def spawn(self) -> Station:
        """Run the daemon as its own process, signals and all."""
        self.write()
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "vajra_edge", "run", "--config", str(self.config)]
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=environ)
        wait_for(self.answers)
        return self

    @property
    def log(self) -> str:
        return (self.folder / "daemon.log").read_text()

    def answers(self) -> bool:
        try:
            return bool(self.status())
        except Exception:  # noqa: BLE001  not up yet, whatever the reason
            return False

    def stop(self) -> int | None:
        """As SIGTERM does."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            code, self.process = self.process.wait(LIMIT_S), None
            return code
        if self.thread is not None:
            self.parts.inbox.put(Stop())
            self.thread.join(LIMIT_S)
            assert not self.thread.is_alive(), "the supervisor does not stop"
            self.thread = None
        return self.code

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        return list(ask(self.socket, request, answer_within_s=LIMIT_S))

    def status(self) -> dict[str, Any]:
        return self.ask(verb="status")[-1]["status"]

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first status for which ``condition`` holds."""
        seen: dict[str, Any] = {}

        def look() -> bool:
            seen.update(self.status())
            return bool(condition(seen))

        try:
            wait_for(look, step_s=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(seen, indent=1, default=str)}") from None
        return seen

    def serving(self) -> str:
        """Fingerprint of the plan that serves, once one does."""
        return self.until(lambda status: status["engine"]["serving"])["engine"]["serving"]["fingerprint"]

    def grabber(self, camera: str) -> object:
        """Of a camera, once it is there: the status says that a plan serves before the cameras are opened."""
        return wait_for(lambda: self.parts.cameras._grabbers.get(camera))

    def listen(self, name: str = "#", port: int | None = None) -> Ears:
        return Ears(MqttSettings(host="127.0.0.1", port=port or self.port), f"vajra/test/{name}")

    def sweep(self) -> None:
        """Take off the broker, which tests share, what daemons before this one left there."""
        ears = self.listen()
        publish.single("vajra/test/swept", "{}", hostname="127.0.0.1", port=self.port)
        ears.until(lambda path, _: path == "swept")  # comes behind all that was retained
        left = [(f"vajra/test/{path}", b"", 1, True) for path, content, _ in ears.heard if content and path != "swept"]
        if left:
            publish.multiple(left, hostname="127.0.0.1", port=self.port)
        ears.close()


class Ears:
    """A subscriber."""

    def __init__(self, mqtt: MqttSettings, path: str) -> None:
        self._subscription = Subscription(mqtt, [path])
        self.heard: list[tuple[str, Any, float]] = []
        self.gaps: list[dict[str, Any]] = []
        self._next = 0
        wait_for(lambda: self._poll() or self._subscription.ready)

    def _poll(self) -> None:
        now_s = time.monotonic()
        for item in self._subscription.poll(0.02):
            content = orjson.loads(item.payload) if item.payload else None
            if isinstance(content, dict) and "gap" in content:
                self.gaps.append(content)
                continue
            self.heard.append((item.path.removeprefix("vajra/test/"), content, now_s))

    def until(self, condition: Callable[[str, Any], Any], limit_s: float = LIMIT_S) -> Any:
        """The next message that fits, after the last one that was waited for; all stay in ``heard``."""
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            while self._next < len(self.heard):
                path, content, _ = self.heard[self._next]
                self._next += 1
                if condition(path, content):
                    return content
            self._poll()
        raise AssertionError(f"not heard within {limit_s} s; last {self.heard[-3:]}")

    def ever(self, condition: Callable[[str, Any], Any]) -> Any:
        """The first message that fits, heard before or still to come: topics have no order among them."""

        def found() -> list[Any]:
            self._poll()
            return [content for path, content, _ in self.heard if condition(path, content)]

        return wait_for(found)[0]

    def all(self) -> list[tuple[str, Any, float]]:
        """Everything so far, with what comes within a moment."""
        for _ in range(10):
            self._poll()
        return self.heard

    def detections(self, count: int = 1, camera: str = "gate") -> Any:
        """The last of the next ``count`` detection messages."""
        content = None
        for _ in range(count):
            content = self.until(lambda path, _: path == f"camera/{camera}/detections")  # each a later one
        return content

    def close(self) -> None:
        self._subscription.close()
