"""Runs in the peer's own environment: ultralytics on the same network and images; its answer is one line of JSON.

peer_child.py predict WEIGHTS IMAGE... | val WEIGHTS IMAGE... | video WEIGHTS CLIP FOLDER | stream WEIGHTS CLIP
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path


def rows(found) -> list[list[float]]:
    """x1, y1, x2, y2, score, class of each box, in image pixels."""
    boxes = found.boxes
    return [
        [*map(float, box), float(score), int(label)]
        for box, score, label in zip(boxes.xyxy, boxes.conf, boxes.cls, strict=True)
    ]


def predict(weights: str, images: list[str]) -> object:
    from ultralytics import YOLO

    network = YOLO(weights, task="detect")
    return {Path(image).name: rows(network.predict(image, verbose=False, device="cpu")[0]) for image in images}


def val(weights: str, images: list[str]) -> object:
    """The detections that the peer's own val scores, as its ``save_json`` writes them."""
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind in ("images", "labels"):
            (root / kind).mkdir()
        for image in map(Path, images):
            (root / "images" / image.name).symlink_to(image)
            label = Path(str(image.with_suffix(".txt")).replace("/images/", "/labels/"))
            if label.is_file():
                (root / "labels" / label.name).symlink_to(label)
        network = YOLO(weights, task="detect")
        options = {"device": "cpu", "verbose": False, "plots": False, "save_json": True, "batch": 1}
        dataset = {"path": str(root), "train": "images", "val": "images", "names": network.names}
        (root / "data.yaml").write_text(json.dumps(dataset))  # JSON is YAML
        scores = network.val(data=str(root / "data.yaml"), project=folder, name="val", imgsz=416, **options)
        entries = json.loads((Path(scores.save_dir) / "predictions.json").read_text())
    found: dict[str, list[list[float]]] = {Path(image).name: [] for image in images}
    names = {str(int(Path(image).stem)): Path(image).name for image in images}
    for one in entries:
        x, y, w, h = one["bbox"]
        found[names[str(one["image_id"])]].append([x, y, x + w, y + h, one["score"], one["category_id"] - 1])
    return {"map": scores.box.map, "map50": scores.box.map50, "found": found}


def video(weights: str, clip: str, folder: str) -> object:
    from ultralytics import YOLO

    network = YOLO(weights, task="detect")
    options = {"verbose": False, "device": "cpu", "save": True, "stream": True, "project": folder, "name": "peer"}
    list(network.predict(clip, **{**options, "save": False, "vid_stride": 200}))  # loads and warms up
    began_s = time.perf_counter()
    frames = sum(1 for _ in network.predict(clip, **options))
    return {"frames": frames, "seconds": time.perf_counter() - began_s}


def stream(weights: str, clip: str) -> None:
    """For each line on stdin, as many frames as it says, nothing drawn or saved; prints the seconds they took."""
    answers, sys.stdout = sys.stdout, sys.stderr  # the peer prints what it loads
    from ultralytics import YOLO

    network = YOLO(weights, task="detect")

    def frames():
        while True:
            yield from network.predict(clip, stream=True, verbose=False, device="cpu")

    endless = frames()
    for line in sys.stdin:
        began_s = time.perf_counter()
        for _ in range(int(line)):
            next(endless)
        print(time.perf_counter() - began_s, file=answers, flush=True)


VERBS = {"predict": predict, "val": val}

if __name__ == "__main__":
    verb, weights, *rest = sys.argv[1:]
    if verb == "stream":
        sys.exit(stream(weights, *rest))
    answer = VERBS[verb](weights, rest) if verb in VERBS else video(weights, *rest)
    print(json.dumps(answer))
