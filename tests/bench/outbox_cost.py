"""What the outbox on disk costs: the same messages through one in memory and one on disk, by turns.

    .venv/bin/python tests/bench/outbox_cost.py --seconds 20

Sixteen cameras of 30 frames a second, each with some objects, in one thread as the frame loop publishes them, to a
mosquitto on loopback. Prints for each kind of outbox:

* ``messages_per_s``: acknowledged.
* ``cpu_percent``: of this process, of one core.
* ``offer_us_p99``: for how long the frame loop's thread is held up by one message.
* ``age_ms_p50``, ``age_ms_p99``: from the capture of a frame to its arrival at a subscriber on the same machine.
* ``disk_bytes``: written to the block layer for each message, by /proc/self/io.
* ``broker_away_disk_bytes``: likewise while no broker is there, so that every message stays on disk.
* ``flat_out_per_s``: acknowledged a second where messages come as fast as they can be made.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import orjson

from vajra_edge.config.settings import MqttSettings
from vajra_edge.demo.broker import Broker
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.subscriber import Subscription
from vajra_edge.mqtt.topics import Topics
from vajra_edge.types import Detections, Frame

TAG = EngineTag("ab" * 32, "fp16", "gpu:0", ("person", "car"))
FLAT = 5_000
IMAGE = np.zeros((8, 8, 3), np.uint8)


def scene(objects: int) -> Detections:
    """The same objects each time."""
    corner = np.linspace(0, 6, objects * 2, dtype=np.float32).reshape(objects, 2)
    boxes = np.concatenate([corner, corner + 1], 1)
    return Detections(boxes, np.full(objects, 0.5, np.float32), np.zeros(objects, np.int32))


def taken(number: int, camera: str) -> Frame:
    return Frame(IMAGE, time.monotonic_ns(), datetime.now(timezone.utc), number, camera)


def written_bytes() -> int:
    """By this process to the block layer, page cache and all."""
    return int(
        next(line for line in Path("/proc/self/io").read_text().splitlines() if "write_bytes" in line).split()[1]
    )


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Arrivals:
    """A subscriber in a thread; ages of what arrives."""

    def __init__(self, mqtt: MqttSettings) -> None:
        self.ages_ms: list[float] = []
        self.over = threading.Event()
        self.subscription = Subscription(mqtt, ["vajra/dev/camera/+/detections"])
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        while not self.subscription.ready:
            time.sleep(0.01)

    def run(self) -> None:
        with self.subscription:
            while not self.over.is_set():
                for received in self.subscription.poll(0.05):
                    taken_s = datetime.fromisoformat(orjson.loads(received.payload)["taken_at"].replace("Z", "+00:00"))
                    self.ages_ms.append((time.time() - taken_s.timestamp()) * 1e3)

    def close(self) -> None:
        self.over.set()
        self.thread.join()


def stream(publisher: Publisher, seconds: float, cameras: int, fps: float, objects: int) -> list[float]:
    """Publish as the frame loop does; how long each call took, in microseconds."""
    found, took_us = scene(objects), []
    began_s = due_s = time.monotonic()
    number = 0
    while due_s < began_s + seconds:
        due_s += 1.0 / fps / cameras
        time.sleep(max(0.0, due_s - time.monotonic()))
        frame = taken(number, f"camera{number % cameras}")
        began_ns = time.perf_counter_ns()
        publisher.detections(frame, found, TAG)
        took_us.append((time.perf_counter_ns() - began_ns) / 1e3)
        number += 1
    return took_us


def until_acked(publisher: Publisher, count: int) -> None:
    while publisher.counters().outbox.acked < count:
        time.sleep(0.005)


def measure(mqtt: MqttSettings, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """One kind of outbox."""
    publisher = Publisher(mqtt, Topics("vajra", "dev"), lambda _event: None, folder=folder / "outbox")
    publisher.start()
    while not publisher.counters().connected:
        time.sleep(0.01)
    arrivals = Arrivals(mqtt)
    cpu_before_s, bytes_before, began_s = cpu_s(), written_bytes(), time.monotonic()
    took_us = stream(publisher, chosen.seconds, chosen.cameras, chosen.fps, chosen.objects)
    until_acked(publisher, len(took_us))
    lasted_s, cpu_used_s, count = time.monotonic() - began_s, cpu_s() - cpu_before_s, len(took_us)
    disk_bytes = (written_bytes() - bytes_before) / count
    arrivals.close()
    began_s = time.monotonic()
    for number in range(FLAT):
        publisher.detections(taken(number, "camera0"), scene(chosen.objects), TAG)
    until_acked(publisher, count + FLAT)
    flat_s = time.monotonic() - began_s
    publisher.close(5.0)
    return {
        "messages_per_s": round(count / lasted_s),
        "cpu_percent": round(100 * cpu_used_s / lasted_s, 1),
        "offer_us_p99": round(float(np.percentile(took_us, 99))),
        "age_ms_p50": round(float(np.percentile(arrivals.ages_ms, 50)), 1),
        "age_ms_p99": round(float(np.percentile(arrivals.ages_ms, 99)), 1),
        "disk_bytes": round(disk_bytes),
        "broker_away_disk_bytes": round(away(mqtt, folder, chosen)),
        "flat_out_per_s": round(FLAT / flat_s),
    }


def away(mqtt: MqttSettings, folder: Path, chosen: argparse.Namespace) -> float:
    """Bytes for each message while no broker is there."""
    nobody = mqtt.model_copy(update={"port": 1})
    publisher = Publisher(nobody, Topics("vajra", "dev"), lambda _event: None, folder=folder / "away")
    publisher.start()
    before = written_bytes()
    count = len(stream(publisher, chosen.seconds / 2, chosen.cameras, chosen.fps, chosen.objects))
    publisher.close(5.0)
    return (written_bytes() - before) / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    broker = Broker("mosquitto")
    host, port = broker.open()
    kinds = {
        "memory": {"outbox": "memory"},
        "disk, commit_every_s = 1": {"outbox": "disk"},
        "disk, commit_every_s = 0": {"outbox": "disk", "commit_every_s": 0.0},
    }
    for _ in range(chosen.rounds):
        for name, settings in kinds.items():
            with tempfile.TemporaryDirectory(prefix="vajra-edge-") as folder:
                mqtt = MqttSettings(host=host, port=port, **settings)
                print(name, json.dumps(measure(mqtt, Path(folder), chosen)), flush=True)
    broker.close()


if __name__ == "__main__":
    main()
