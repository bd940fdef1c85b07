"""A device for ``chaos.py``: a Publisher with its outbox on disk, and a ledger of what was offered and committed.

``python chaos_device.py FOLDER PORT COMMIT_EVERY_S RATE_PER_S [POINT]``: two cameras; ``frame_seq`` of a message is its
line in the ledger of what was offered, which goes on over deaths of the process. SIGTERM ends it in order; with a point
of ``outbox_kills.py`` it kills itself there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from faults import outbox_kills

from vajra_edge.config.settings import MqttSettings
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.mqtt.outbox_file import OutboxFile
from vajra_edge.mqtt.outbox_values import DiskBatch
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topics
from vajra_edge.types import Detections, Frame

CAMERAS = ("gate", "yard")
KILL_AT = 5
"""Of the arguments, the point to be killed at."""
TAG = EngineTag("ab" * 32, "fp32", "cpu", ("person",))


class Ledger:
    """Lines that a kill cannot take back: each is one system call."""

    def __init__(self, path: Path) -> None:
        self.lines = len(path.read_bytes().splitlines()) if path.exists() else 0
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *lines: str) -> None:
        os.write(self.descriptor, "".join(f"{line}\n" for line in lines).encode())


def note_commits(ledger: Ledger) -> None:
    commit = OutboxFile.commit

    def noted(file: OutboxFile, batch: DiskBatch, *, sync: bool) -> None:
        commit(file, batch, sync=sync)
        ledger.write(*(f"{each.camera}/{each.seq}" for each in batch.messages))

    OutboxFile.commit = noted  # type: ignore[method-assign]


def main() -> None:
    folder, port, commit_every_s, rate_per_s = Path(sys.argv[1]), *map(float, sys.argv[2:5])
    offered, over = Ledger(folder / "offered"), threading.Event()
    note_commits(Ledger(folder / "committed"))
    if len(sys.argv) > KILL_AT:
        outbox_kills.arm(sys.argv[KILL_AT])
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    quick = {"keepalive_s": 2, "commit_every_s": commit_every_s}  # shorter than the settings allow, for time's sake
    mqtt = MqttSettings(host="127.0.0.1", port=int(port)).model_copy(update=quick)
    publisher = Publisher(mqtt, Topics("vajra", "dev"), lambda _event: None, folder=folder / "outbox")
    publisher.expect(CAMERAS)
    publisher.start()
    image, number = np.zeros((8, 8, 3), np.uint8), offered.lines
    due_s = time.monotonic()
    while not over.is_set():
        due_s = max(due_s + 1.0 / rate_per_s, time.monotonic())  # what a SIGSTOP held up is not made up for
        time.sleep(max(0.0, due_s - time.monotonic()))
        camera = CAMERAS[number % len(CAMERAS)]
        offered.write(f"{time.time():.3f}")
        frame = Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), number, camera)
        publisher.detections(frame, Detections.empty(), TAG)
        number += 1
    publisher.close(5.0)


if __name__ == "__main__":
    main()
