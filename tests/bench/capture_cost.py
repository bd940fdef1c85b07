"""What a camera's process costs: the daemon's CPU time a frame, the start of a process, private memory of each.

    PYTHONPATH=. python tests/bench/capture_cost.py [--cameras 16] [--frames 200] [--fps 25] [--size 1920x1080]

Prints one JSON line. ``daemon_ms`` is CPU time of the whole process, from a frame's message to the mailbox, taken from
there and given back; nothing is inferred. ``exec`` is what a process of its own costs that is started anew.
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import acted

from vajra_edge.capture.camera import Grabber
from vajra_edge.capture.children import Children
from vajra_edge.config.settings import CameraSettings
from vajra_edge.inference.mailboxes import Mailboxes

LOADED = """
import time; began = time.perf_counter()
import vajra_edge.capture.child, vajra_edge.capture.sources.registry
from vajra_edge.media.opencv import load_cv2; load_cv2()
try: import av
except ImportError: pass
print(time.process_time(), open("/proc/self/smaps").read())
"""


def private_mb(smaps: str) -> float:
    """Of all mappings but the pictures, which are the daemon's as well."""
    pictures, kib = False, 0
    for line in smaps.splitlines():
        if not line.endswith(" kB"):
            pictures = "memfd:vajra-edge" in line
        elif line.startswith("Private_") and not pictures:
            kib += int(line.split()[1])
    return kib / 1024


def anew() -> dict[str, float]:
    """A process that is executed, not forked."""
    began_s = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    took_s = time.perf_counter() - began_s
    cpu_s, _, rollup = out.partition(" ")
    return {"wall_ms": took_s * 1e3, "cpu_ms": float(cpu_s) * 1e3, "private_mb": private_mb(rollup)}


def forked(arguments: argparse.Namespace, cameras: int) -> dict[str, Any]:
    """So many cameras at once."""
    width, height = (int(one) for one in arguments.size.split("x"))
    children, mailboxes, news = Children(acted.COMMAND), Mailboxes(), queue.SimpleQueue()
    folder = Path(tempfile.mkdtemp())
    warm = children.start(CameraSettings(id="warm", source=acted.script(folder / "w.json", [1, ["nap", 60]])))
    warm.wait(5.0) if warm.receive(20.0) is None else None
    grabbers = []
    for number in range(cameras):
        source = acted.script(folder / f"{number}.json", [["paint", width, height, None, arguments.fps]])
        camera = CameraSettings(id=f"c{number}", source=source)
        grabbers.append(Grabber(camera, mailboxes, news.put, lambda: None, children))
    began_s, first_ms, seen = time.perf_counter(), {}, 0
    for grabber in grabbers:
        grabber.start()
    while len(first_ms) < cameras:
        for frame in mailboxes.take(cameras, 1.0):
            first_ms.setdefault(frame.camera, (time.perf_counter() - began_s) * 1e3)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    while seen < arguments.frames * cameras:
        seen += len(mailboxes.take(cameras, 1.0))
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    counted = [grabber.counters() for grabber in grabbers]
    memory = [private_mb(Path(f"/proc/{one.pid}/smaps").read_text()) for one in counted if one.pid]
    read = sum(one.frames_read for one in counted)
    for grabber in grabbers:
        grabber.stop(0.0)
    for grabber in grabbers:
        grabber.stop(5.0)
    children.end(warm, 0.0, lambda: None)
    children.close()
    return {
        "cameras": cameras,
        "daemon_ms_a_frame": round(cpu_s / seen * 1e3, 3),
        "frames_per_s": round(seen / wall_s, 1),
        "read": read,
        "first_frame_ms": [round(min(first_ms.values()), 1), round(max(first_ms.values()), 1)],
        "private_mb": [round(min(memory), 1), round(max(memory), 1)],
    }


def hello_ms() -> list[float]:
    """From asking for a process to its first word, with the server up."""
    children, folder = Children(acted.COMMAND), Path(tempfile.mkdtemp())
    source = acted.script(folder / "a.json", [["nap", 60]])
    taken = []
    for number in range(21):
        began_s = time.perf_counter()
        child = children.start(CameraSettings(id=f"c{number}", source=source))
        child.receive(30.0)
        taken.append((time.perf_counter() - began_s) * 1e3)
    children.close()
    return [round(taken[0], 1), round(sorted(taken[1:])[10], 2), round(max(taken[1:]), 2)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--size", default="1920x1080")
    arguments = parser.parse_args()
    anew()
    print(
        json.dumps(
            {
                "exec": {name: round(value, 1) for name, value in anew().items()},
                "hello_ms": dict(zip(("first, with its server", "median", "most"), hello_ms(), strict=True)),
                "one": forked(arguments, 1),
                "all": forked(arguments, arguments.cameras),
            }
        )
    )


if __name__ == "__main__":
    main()
