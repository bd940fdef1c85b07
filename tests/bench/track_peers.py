"""The tracker beside SORT, ByteTrack and OC-SORT of the `trackers` package, on the same detections.

python tests/bench/track_peers.py [--mot FOLDER]

Ours, and theirs where `trackers` and `supervision` are installed. FOLDER holds NAME-det.txt and NAME-gt.txt of MOT15
sequences at 25 frames a second. Where `trackeval` is installed, our HOTA is held to its.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tracking import scenes
from tracking.scoring import Box, Scoring

from vajra_edge.tracking.tracker import Tracker
from vajra_edge.types import Detections

Picture = tuple[float, dict[int, Box], np.ndarray]
"""When, what is true, and (n, 5) boxes found with their confidence."""

MADE = ((30, 20, 16, 0.0), (30, 20, 30, 0.0), (5, 60, 30, 0.0), (2, 120, 50, 0.0), (30, 20, 20, 0.4), (5, 60, 40, 0.2))
SEEDS = {"tests": 1, "new": 101}
PEERS = ("SORTTracker", "ByteTrackTracker", "OCSORTTracker")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mot", type=Path)
    folder = parser.parse_args().mot
    for name, fps, pictures in sequences(folder):
        told(name, "ours", pictures, ours())
        for peer in PEERS if find_spec("trackers") else ():
            told(name, peer.removesuffix("Tracker"), pictures, theirs(peer, fps))


def sequences(folder: Path | None) -> Iterator[tuple[str, int, list[Picture]]]:
    for file in sorted(folder.glob("*-gt.txt")) if folder is not None else ():
        yield file.name.removesuffix("-gt.txt"), 25, list(mot(file))
    for kind, first in SEEDS.items():
        for index, (fps, seconds, count, dropped) in enumerate(MADE):
            made = scenes.scene(fps, seconds, count, first + index, dropped=dropped)
            pictures = [(s.now_s, s.truth, np.column_stack((s.xyxy, s.confidence))) for s in made]
            yield f"{kind} scene {index + 1}, {fps} frames/s", fps, pictures


def mot(file: Path) -> Iterator[Picture]:
    truth: dict[int, dict[int, Box]] = {}
    for frame, name, left, top, wide, tall, counts in rows(file):
        if counts:
            truth.setdefault(int(frame), {})[int(name)] = left, top, left + wide, top + tall
    found: dict[int, list[tuple[float, ...]]] = {}
    for frame, _, left, top, wide, tall, confidence in rows(file.with_name(file.name.replace("-gt", "-det"))):
        found.setdefault(int(frame), []).append((left, top, left + wide, top + tall, confidence))
    for frame in range(1, max(truth) + 1):
        yield frame / 25, truth.get(frame, {}), np.array(found.get(frame, []), float).reshape(-1, 5)


def rows(file: Path) -> np.ndarray:
    return np.loadtxt(file, delimiter=",", usecols=range(7), ndmin=2)


def ours() -> Callable[[float, np.ndarray], np.ndarray]:
    tracker = Tracker()

    def update(now_s: float, found: np.ndarray) -> np.ndarray:
        boxes, confidence = found[:, :4].astype(np.float32), found[:, 4].astype(np.float32)
        return tracker.update(Detections(boxes, confidence, np.zeros(len(found), np.int32)), now_s)

    return update


def theirs(name: str, fps: int) -> Callable[[float, np.ndarray], np.ndarray]:
    import supervision
    import trackers

    tracker = getattr(trackers, name)(frame_rate=fps)

    def update(_: float, found: np.ndarray) -> np.ndarray:
        boxes, confidence = found[:, :4].astype(np.float32), found[:, 4].astype(np.float32)
        told = tracker.update(
            supervision.Detections(xyxy=boxes, confidence=confidence, class_id=np.zeros(len(found), int))
        )
        # Theirs may come back in another order, and count from 0; -1 is none.
        given = {tuple(box): int(number) + 1 for box, number in zip(told.xyxy, told.tracker_id, strict=True)}
        return np.array([given.get(tuple(box), 0) for box in boxes], np.int64)

    return update


def told(name: str, tracker: str, pictures: list[Picture], update: Callable[[float, np.ndarray], np.ndarray]) -> None:
    scoring = Scoring()
    for now_s, truth, found in pictures:
        numbers = update(now_s, found)
        scoring.frame(truth, {int(n): tuple(box) for n, box in zip(numbers, found[:, :4], strict=True) if n > 0})
    print(f"{name}: {tracker}: {scoring.scores()}{held_to_trackeval(scoring)}", flush=True)


def held_to_trackeval(scoring: Scoring) -> str:
    if not find_spec("trackeval"):
        return ""
    import trackeval

    names = {n: k for k, n in enumerate({n for frame in scoring.frames for n in frame[0]})}
    numbers = {n: k for k, n in enumerate({n for frame in scoring.frames for n in frame[1]})}
    peer = trackeval.metrics.HOTA().eval_sequence(
        {
            "num_gt_dets": scoring.truth,
            "num_tracker_dets": scoring.answers,
            "num_gt_ids": len(names),
            "num_tracker_ids": len(numbers),
            "gt_ids": [np.array([names[n] for n in frame[0]], int) for frame in scoring.frames],
            "tracker_ids": [np.array([numbers[n] for n in frame[1]], int) for frame in scoring.frames],
            "similarity_scores": [frame[2] for frame in scoring.frames],
        }
    )
    ours = scoring.scores()
    off = max(
        abs(one - float(np.mean(peer[key])))
        for one, key in ((ours.hota, "HOTA"), (ours.deta, "DetA"), (ours.assa, "AssA"))
    )
    return f"; trackeval's HOTA, DetA and AssA are {off:.0e} off"


if __name__ == "__main__":
    main()
