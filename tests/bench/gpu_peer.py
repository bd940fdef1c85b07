"""The peer's time of a 1080p frame on this GPU, for what files it is given: an engine of ours, an ONNX file, weights.

    python tests/bench/gpu_peer.py IMAGES SECONDS FILE...

``predict`` of ultralytics takes one frame in memory and gives boxes; it encodes no message. Ours is measured by
``gpu_path.py`` on the same machine.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from ultralytics import YOLO

SOURCE_WH = (1920, 1080)


def timed(file: Path, frames: list[np.ndarray], seconds: float) -> dict[str, object]:
    """Milliseconds a frame, one after the other."""
    network = YOLO(str(file), task="detect")
    half = ".fp16" in file.name or "half" in file.name
    boxes = 0

    def one(frame: np.ndarray) -> int:
        return len(network.predict(frame, verbose=False, device=0, imgsz=640, conf=0.25, half=half)[0].boxes)

    for frame in itertools.islice(itertools.cycle(frames), 30):
        boxes = one(frame)
    taken_ms, until_s = [], time.perf_counter() + seconds
    for frame in itertools.cycle(frames):
        began_s = time.perf_counter()
        if began_s > until_s:
            break
        boxes = one(frame)
        taken_ms.append((time.perf_counter() - began_s) * 1e3)
    p50, p99 = (round(float(value), 3) for value in np.percentile(taken_ms, (50, 99)))
    mean = round(float(np.mean(taken_ms)), 3)
    return {"file": file.name, "frames": len(taken_ms), "mean_ms": mean, "p50_ms": p50, "p99_ms": p99, "boxes": boxes}


def main() -> None:
    folder, seconds, *files = sys.argv[1:]
    frames = [cv2.resize(cv2.imread(str(path)), SOURCE_WH) for path in sorted(Path(folder).glob("*.jpg"))[:8]]
    for file in map(Path, files):
        print(json.dumps(timed(file, frames, float(seconds))), flush=True)


if __name__ == "__main__":
    main()
