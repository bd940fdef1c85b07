"""An hour of pictures under pressure: is one ever mixed from two, or changed in somebody's hands?

    PYTHONPATH=. python tests/bench/mixed_pictures.py [--minutes 60] [--cameras 2] [--size 1280x720]

Each picture holds its number in every pixel, and is written as fast as the camera's process can. Readers compare all of
it when they get it and again before they let it go, with up to three in hand. Every minute one camera's process is
killed, and one camera in two changes its resolution every 500 pictures. Prints a JSON line a minute and ends with exit
code 1 if any picture was mixed.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import acted

from vajra_edge.capture.camera import CameraChanged, Grabber
from vajra_edge.capture.children import Children
from vajra_edge.capture.reconnect import Policy
from vajra_edge.config.settings import CameraSettings
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame

POLICY = Policy(stall_s=10.0, freeze_s=None, healthy_s=60.0, backoff_max_s=0.5)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--size", default="1280x720")
    arguments = parser.parse_args()
    width, height = (int(one) for one in arguments.size.split("x"))
    children, mailboxes, folder = Children(acted.COMMAND), Mailboxes(), Path(tempfile.mkdtemp())
    news: queue.SimpleQueue[CameraChanged] = queue.SimpleQueue()
    grabbers = []
    for number in range(arguments.cameras):
        sizes = [(width, height), (width // 2, height // 2)] if number % 2 else [(width, height)]
        lines = [["paint", *size, 500, 0.0] for size in sizes * 2000]
        camera = CameraSettings(id=f"c{number}", source=acted.script(folder / f"{number}.json", lines))
        grabbers.append(Grabber(camera, mailboxes, news.put, lambda: None, children, policy=POLICY))
    for grabber in grabbers:
        grabber.start()
    seen: Counter[str] = Counter()
    held: deque[tuple[Frame, int]] = deque()
    ends_s, minute_s = time.monotonic() + 60.0 * arguments.minutes, time.monotonic() + min(60.0, arguments.minutes * 20)
    while time.monotonic() < ends_s:
        for frame in mailboxes.take(arguments.cameras, 1.0):
            number = acted.painted(frame.image)
            seen["frames"] += 1
            seen["mixed"] += number < 0
            held.append((frame, number))
        while len(held) > random.randrange(4):
            kept, number = held.popleft()
            seen["changed"] += acted.painted(kept.image) != number
        if time.monotonic() > minute_s:
            minute_s += 60.0
            counters = [grabber.counters() for grabber in grabbers]
            read, dropped = sum(one.frames_read for one in counters), sum(one.frames_dropped for one in counters)
            starts, files = sum(one.starts for one in counters), sum(1 for _ in Path("/proc/self/fd").iterdir())
            print(json.dumps({**seen, "read": read, "dropped": dropped, "starts": starts, "files": files}), flush=True)
            if pid := random.choice(counters).pid:
                os.kill(pid, signal.SIGKILL)
    held.clear()
    for grabber in grabbers:
        grabber.stop(5.0)
    children.close()
    print(json.dumps(seen))
    return int(bool(seen["mixed"] or seen["changed"]))


if __name__ == "__main__":
    sys.exit(main())
