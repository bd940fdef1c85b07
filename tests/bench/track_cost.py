"""What tracking costs a frame: processor time of an update, by the number of objects.

python tests/bench/track_cost.py            0 to 100 objects that cross each other, at 30 frames a second
python tests/bench/track_cost.py --path     a frame from its image to its message, ten objects in it, with tracking and
                                            without by turns, around a network that costs nothing
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from vajra_edge.config.settings import load
from vajra_edge.daemon.trackers import Trackers
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.detector import HostDetector
from vajra_edge.inference.pipeline import Exhausted, FrameResult, Pipeline
from vajra_edge.mqtt.messages import EngineTag, encode_detections
from vajra_edge.tracking.tracker import Tracker
from vajra_edge.types import Detections, Frame

FRAMES, ROUNDS, TURNS = 300, 9, 5
COUNTS = (0, 1, 10, 50, 100)
CAMERAS, IN_A_PICTURE = (1, 16), 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--path", action="store_true")
    if parser.parse_args().path:
        for cameras in CAMERAS:
            paths(cameras)
        return
    for count in COUNTS:
        walks = frames(count)
        spent_ms = [update_ms(walks) for _ in range(ROUNDS)]
        print(
            f"{count:4d} objects: {min(spent_ms):.3f} ms a frame, median of {ROUNDS} {statistics.median(spent_ms):.3f}"
        )


def frames(count: int) -> list[Detections]:
    """Objects of all sizes walk through a picture of 1280 x 720 both ways; a tenth is missed, a fifth is unsure."""
    rng = np.random.default_rng(count)
    begin, speed = rng.uniform((0, 0), (1280, 720), (count, 2)), rng.uniform(-100, 100, (count, 2))
    size = rng.uniform((20, 40), (80, 160), (count, 2))
    seen = []
    for frame in range(FRAMES):
        centre = (begin + speed * frame / 30) % (1280, 720) + rng.normal(0, 1, (count, 2))
        kept = rng.random(count) > 0.1
        boxes = np.concatenate((centre - size / 2, centre + size / 2), 1)[kept].astype(np.float32)
        confidence = np.where(rng.random(count) < 0.2, 0.4, 0.9)[kept].astype(np.float32)
        seen.append(Detections(boxes, confidence, np.zeros(len(boxes), np.int32)))
    return seen


def update_ms(walks: list[Detections]) -> float:
    """The clock is read twice for all frames: where reading it is slow, it would be most of what one update costs."""
    tracker = Tracker()
    began_ns = time.thread_time_ns()
    for frame, found in enumerate(walks):
        tracker.update(found, frame / 30)
    return (time.thread_time_ns() - began_ns) / 1e6 / len(walks)


def paths(cameras: int) -> None:
    batches = max(FRAMES // cameras, 30)
    spent_ms: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TURNS):
        for track, spent in spent_ms.items():
            spent.append(path_ms(cameras, batches, track=track))
    on, off = (statistics.median(spent_ms[track]) for track in (True, False))
    print(f"{cameras:2d} cameras: {off:.3f} ms a frame without tracking, {on:.3f} with it, ratio {on / off:.2f}")


def path_ms(cameras: int, batches: int, *, track: bool) -> float:
    """Processor time of the whole process for a frame: letterbox, boxes, tracks and the message, not the network."""
    names = [f"camera{index}" for index in range(cameras)]
    listed = [{"id": name, "source": "x.mp4", "track": track} for name in names]
    trackers = Trackers(load(None, {"weights": {"path": "x.onnx"}, "cameras": listed}))
    tag = EngineTag("0" * 64, "fp32", "cpu", ("person",))

    def sink(result: FrameResult[EngineTag]) -> None:
        tracks = trackers.see(result.frame, result.found)
        encode_detections(result.frame, result.found, tag, "bench", time.monotonic_ns(), tracks)

    ended = threading.Event()

    def post(event: object) -> None:
        if isinstance(event, Exhausted):
            ended.set()

    detector = HostDetector(Walks(cameras))
    pipeline = Pipeline(Feed(names), sink, post, lambda: None, max_frames=cameras * batches)
    pipeline.swap(detector, tag)
    began_ns = time.process_time_ns()
    pipeline.start()
    ended.wait()
    spent_ms = (time.process_time_ns() - began_ns) / 1e6 / (cameras * batches)
    pipeline.stop(10.0)
    detector.close()
    return spent_ms


class Feed:
    """Always has the next frame of each camera, at 30 a second by their own clock."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._cameras, self._seq = cameras, 0
        self._image = np.zeros((720, 1280, 3), np.uint8)

    def take(self, limit: int, timeout_s: float, gather_s: float) -> list[Frame]:
        del limit, timeout_s, gather_s
        self._seq += 1
        at_ns, now = int(self._seq / 30 * 1e9), datetime.now(timezone.utc)
        return [Frame(self._image, at_ns, now, self._seq, camera) for camera in self._cameras]


class Walks:
    """A network that costs nothing and finds the same walkers at each camera."""

    def __init__(self, batch: int) -> None:
        self.signature = Signature(
            "images", "detections", Layout.DETECTIONS, batch, (640, 640), False, False, 32, ("person",), 0.7, 300, 300
        )
        self._frames = frames(IN_A_PICTURE)
        self._turn = 0

    def infer(self, batch: np.ndarray) -> np.ndarray:
        found = self._frames[self._turn % FRAMES]
        self._turn += 1
        rows = np.zeros((len(batch), 300, 6), np.float32)
        rows[:, : len(found), :4] = found.xyxy / 2 + (0, 140, 0, 140)  # of 1280 x 720 pixels in a square of 640
        rows[:, : len(found), 4] = found.confidence
        return rows

    def close(self) -> None:
        """Nothing to close."""


if __name__ == "__main__":
    main()
