"""Ten minutes in the rain: two RTSP cameras, a real broker, the RTSP server killed and restarted twice.

    .venv/bin/python tests/bench/soak.py --minutes 10

Needs mosquitto and the RTSP server's packages (tests/system/rtsp_server.py). Everything runs on loopback as processes
of its own: broker, RTSP server, daemon. A subscriber counts what arrives. Prints one JSON document:

* ``rss_mib``: the daemon's resident memory, once a minute.
* ``age_ms_p50``/``age_ms_p99``: frame age at publishing, by minute.
* ``states``: every state each camera's retained topic went through, with the second.
* ``empty_while_lost``: detection messages of a camera that its topic said was lost; must be 0.
* ``missing``: messages that gap records said do not come; must be 0.
* ``without_objects``: detection messages that hold no detection.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from vajra_edge.config.settings import MqttSettings  # noqa: E402
from vajra_edge.demo.broker import Broker, die_with_parent  # noqa: E402  the checkout is put on the path first
from vajra_edge.demo.settings import CLIP, WEIGHTS, as_toml  # noqa: E402
from vajra_edge.mqtt.subscriber import Subscription  # noqa: E402

CAMERAS = ("gate", "yard")
FIRST_KILL, SECOND_KILL, DOWN_S = 0.3, 0.6, 20.0


class Soak:
    """What was seen."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.state = dict.fromkeys(CAMERAS, "")
        self.states = {camera: [] for camera in CAMERAS}
        self.ages: list[tuple[float, float]] = []
        self.rss_mib: list[float] = []
        self.messages = dict.fromkeys(CAMERAS, 0)
        self.empty_while_lost = self.without_objects = self.missing = 0
        self.fingerprints: set[str] = set()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.started_s

    def take(self, received) -> None:
        """Count one message."""
        payload = json.loads(received.payload)
        if "gap" in payload:
            self.missing += payload["gap"]["to"] - payload["gap"]["from"] + 1
        elif received.path.endswith("/detections"):
            camera = payload["camera"]
            self.messages[camera] += 1
            self.ages.append((self.now_s, payload["frame_age_ms"]))
            self.fingerprints.add(payload["engine"]["fingerprint"])
            self.without_objects += not payload["detections"]
            self.empty_while_lost += self.state[camera] == "lost" and not payload["detections"]
        elif "/camera/" in received.path and payload["state"] != self.state[payload["camera"]]:
            self.state[payload["camera"]] = payload["state"]
            self.states[payload["camera"]].append([round(self.now_s, 1), payload["state"], payload["reason"]])

    def report(self) -> dict:
        minutes = {}
        for at_s, age_ms in self.ages:
            minutes.setdefault(int(at_s // 60), []).append(age_ms)
        return {
            "messages": self.messages,
            "fingerprints": sorted(self.fingerprints),
            "rss_mib": self.rss_mib,
            "age_ms_p50": [round(float(np.percentile(ages, 50)), 1) for ages in minutes.values()],
            "age_ms_p99": [round(float(np.percentile(ages, 99)), 1) for ages in minutes.values()],
            "states": self.states,
            "empty_while_lost": self.empty_while_lost,
            "without_objects": self.without_objects,
            "missing": self.missing,
        }


def child(stack: ExitStack, command: list[str], log: Path) -> subprocess.Popen:
    output = stack.enter_context(log.open("ab"))
    started = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=die_with_parent, cwd=ROOT)  # noqa: PLW1509
    stack.callback(end, started)
    return started


def end(started: subprocess.Popen) -> None:
    if started.poll() is None:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError("the daemon is gone")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rtsp-port", type=int, default=18554)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        broker = Broker("mosquitto")
        stack.callback(broker.close)
        host, port = broker.open()
        sources = {name: f"rtsp://127.0.0.1:{chosen.rtsp_port}/{name}" for name in CAMERAS}
        server = [sys.executable, str(ROOT / "tests/system/rtsp_server.py"), "--port", str(chosen.rtsp_port)]
        server += ["--clip", str(CLIP), *(word for name in CAMERAS for word in ("--path", f"/{name}"))]
        cameras = [
            {"id": name, "source": source, "stall_s": 5.0, "backoff_max_s": 5.0} for name, source in sources.items()
        ]
        settings = {
            "device_id": "soak",
            "weights": {"path": str(WEIGHTS)},
            "cameras": cameras,
            "mqtt": {"host": host, "port": port},
            "store": {"state_dir": str(folder / "state")},
            "service": {"control_socket": str(folder / "control.sock")},
        }
        config = folder / "config.toml"
        config.write_text(as_toml(settings))
        rtsp = child(stack, server, folder / "rtsp.log")
        time.sleep(5.0)
        daemon = child(
            stack, [sys.executable, "-m", "vajra_edge", "run", "--config", str(config)], folder / "daemon.log"
        )
        soak, total_s = Soak(), chosen.minutes * 60
        kills = [total_s * FIRST_KILL, total_s * SECOND_KILL]
        back_s = None
        with Subscription(MqttSettings(host=host, port=port), ["vajra/soak/#"]) as subscription:
            while soak.now_s < total_s:
                for received in subscription.poll(0.2):
                    soak.take(received)
                if len(soak.rss_mib) < int(soak.now_s // 60) + 1:
                    soak.rss_mib.append(rss_mib(daemon.pid))
                if kills and soak.now_s >= kills[0]:
                    kills.pop(0)
                    rtsp.kill()
                    back_s = soak.now_s + DOWN_S
                if back_s is not None and soak.now_s >= back_s:
                    back_s = None
                    rtsp = child(stack, server, folder / "rtsp.log")
        print(json.dumps(soak.report()))
        sys.stderr.write((folder / "daemon.log").read_text())


if __name__ == "__main__":
    main()
