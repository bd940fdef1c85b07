"""Runs in a peer's own environment: makes random networks that find boxes, exports them as the peer does, runs them.

One JSON job on stdin: {"package": "ultralytics" or "yolov5", "config": "yolov8n.yaml", "folder": where to write,
"side": of the input, "exports": {name: arguments}, "pictures": [...], "squares": [pictures of the input's size],
"settled_on": [pictures that the random weights are scaled by]}.
One JSON answer on the last line of stdout: {name: {"path": ..., "predict": {picture: rows}, "val": {picture: rows}}},
a row x1, y1, x2, y2, score, class in pixels of the picture.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false", MPLBACKEND="agg")

import cv2
import numpy as np
import torch

CONF, IOU = 0.25, 0.7
SPREAD, ANCHOR_FREE_MEAN, OBJECTNESS_MEAN, CLASS_MEAN = 0.6, -3.0, -2.5, -1.0

BOXES = {True: (0.0, 0.5), False: (2.5, 0.3)}
"""Mean and spread of what box branches give: logits of distances, or distances in cells; boxes of many pixels."""


def blobs(pictures: list[str], side: int) -> torch.Tensor:
    """The pictures as networks see them, with grey beside them."""
    images = [letterboxed(cv2.imread(path), side)[:, :, ::-1] for path in pictures]
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def letterboxed(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    inner = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))
    made = np.full((side, side, 3), 114, np.uint8)
    top, left = (side - inner.shape[0]) // 2, (side - inner.shape[1]) // 2
    made[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return made


def settle(network: torch.nn.Module, batch: torch.Tensor) -> None:
    """Give every batch norm the statistics of these pictures, so that random weights tell them apart."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    with torch.no_grad():
        network(batch)
    network.eval()


def spread(layer: torch.nn.Conv2d, seen: torch.Tensor, channels: slice, mean: float, wide: float = SPREAD) -> None:
    """Scale these channels of a layer to a known mean and spread on what it saw."""
    values = seen.transpose(0, 1).reshape(layer.out_channels, -1)[channels]
    factor = wide / values.std(1).clamp_min(1e-6)
    with torch.no_grad():
        layer.bias[channels] = (layer.bias[channels] - values.mean(1)) * factor + mean
        layer.weight[channels] *= factor[:, None, None, None]


def watched(layers: list[torch.nn.Conv2d], network: torch.nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    """What each layer gives for the batch."""
    seen: dict[int, torch.Tensor] = {}
    held = [
        layer.register_forward_hook(lambda _, __, output, at=at: seen.__setitem__(at, output.detach()))
        for at, layer in enumerate(layers)
    ]
    with torch.no_grad():
        network(batch)
    for one in held:
        one.remove()
    return [seen[at] for at in range(len(layers))]


def rows(table: np.ndarray) -> list[list[float]]:
    return [[float(figure) for figure in row] for row in table]


def ultralytics(job: dict) -> dict:
    from ultralytics import YOLO

    torch.manual_seed(0)
    made, batch = YOLO(job["config"], task="detect"), blobs(job["settled_on"], job["side"])
    network = made.model
    settle(network, batch)
    head = network.model[-1]
    scores, boxes = (
        [branch[-1] for name in names if hasattr(head, name) for branch in getattr(head, name)]
        for names in (("cv3", "one2one_cv3"), ("cv2", "one2one_cv2"))
    )
    head.train()  # then an end-to-end head runs both of its branches
    for layers, mean, wide in ((scores, ANCHOR_FREE_MEAN, SPREAD), (boxes, *BOXES[head.reg_max > 1])):
        for layer, seen in zip(layers, watched(layers, network, batch), strict=True):
            spread(layer, seen, slice(0, layer.out_channels), mean, wide)
    answer = {}
    for name, arguments in job["exports"].items():
        copy = YOLO(job["config"], task="detect")
        copy.model.load_state_dict(network.state_dict())
        written = copy.export(format="onnx", imgsz=job["side"], verbose=False, **arguments)
        path = Path(job["folder"]) / f"{Path(job['config']).stem}-{name}.onnx"
        shutil.move(written, path)
        answer[name] = {"path": str(path), **_found(path, job)}
    return answer


def _found(path: Path, job: dict) -> dict:
    from ultralytics import YOLO

    network, common = YOLO(str(path), task="detect"), {"imgsz": job["side"], "device": "cpu", "verbose": False}
    predicted = {}
    for picture in job["pictures"]:
        boxes = network.predict(picture, conf=CONF, iou=IOU, rect=False, **common)[0].boxes
        predicted[Path(picture).name] = rows(boxes.data.numpy())
    return {"predict": predicted, "val": _validated(path, job, network.names, common)}


def _validated(path: Path, job: dict, names: dict, common: dict) -> dict:
    """What the peer's own val scores, as its ``save_json`` writes it."""
    from ultralytics import YOLO

    root = Path(job["folder"]) / f"val-{path.stem}"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for picture in map(Path, job["squares"]):
        shutil.copy(picture, root / "images" / picture.name)
        (root / "labels" / f"{picture.stem}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    dataset = {"path": str(root), "train": "images", "val": "images", "names": names}
    (root / "data.yaml").write_text(json.dumps(dataset))  # JSON is YAML
    scores = YOLO(str(path), task="detect").val(
        data=str(root / "data.yaml"),
        project=str(root),
        name="run",
        conf=CONF,
        iou=IOU,
        batch=1,
        rect=False,
        plots=False,
        save_json=True,
        workers=0,
        **common,
    )
    found: dict[str, list[list[float]]] = {Path(picture).name: [] for picture in job["squares"]}
    for one in json.loads((Path(scores.save_dir) / "predictions.json").read_text()):
        x, y, w, h = one["bbox"]
        found[one["file_name"]].append([x, y, x + w, y + h, one["score"], one["category_id"] - 1])
    return found


def yolov5(job: dict) -> dict:
    torch.load = functools.partial(torch.load, weights_only=False)
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)  # as when that exporter was written
    import yolov5 as package
    from yolov5 import export
    from yolov5.models import common
    from yolov5.models.yolo import Model
    from yolov5.utils import downloads

    for module in (common, downloads):
        module.attempt_download_from_hub = lambda *_, **__: None  # the file is here

    torch.manual_seed(0)
    config = Path(package.__file__).parent / "models" / job["config"]
    network, batch = Model(str(config)), blobs(job["settled_on"], job["side"])
    settle(network, batch)
    head = network.model[-1]
    layers = list(head.m)
    for layer, seen in zip(layers, watched(layers, network, batch), strict=True):
        for anchor in range(head.na):
            first = anchor * head.no
            spread(layer, seen, slice(first, first + 4), *BOXES[True])
            spread(layer, seen, slice(first + 4, first + 5), OBJECTNESS_MEAN)
            spread(layer, seen, slice(first + 5, first + head.no), CLASS_MEAN)
    answer = {}
    for name, arguments in job["exports"].items():
        path = Path(job["folder"]) / f"{config.stem}-{name}.pt"
        torch.save({"model": network}, path)
        size = [job["side"], job["side"]]
        (written,) = [one for one in export.run(weights=path, imgsz=size, include=("onnx",), **arguments) if one]
        answer[name] = {"path": str(written), **_found5(str(written), job)}
    return answer


def _found5(path: str, job: dict) -> dict:
    from yolov5.models.common import DetectMultiBackend

    network = DetectMultiBackend(path)
    predicted = {Path(one).name: _boxes5(network, one, job["side"], several=False) for one in job["pictures"]}
    return {
        "predict": predicted,
        "val": {Path(one).name: _boxes5(network, one, job["side"], several=True) for one in job["squares"]},
    }


def _boxes5(network, picture: str, side: int, *, several: bool) -> list[list[float]]:
    from yolov5.utils.augmentations import letterbox
    from yolov5.utils.general import non_max_suppression, scale_boxes

    image = cv2.imread(picture)
    inside = letterbox(image, side, stride=32, auto=False)[0]
    batch = torch.from_numpy(np.ascontiguousarray(inside[:, :, ::-1].transpose(2, 0, 1), np.float32) / 255)[None]
    found = non_max_suppression(network(batch), CONF, IOU, multi_label=several, max_det=300)[0]
    found[:, :4] = scale_boxes(batch.shape[2:], found[:, :4], image.shape)
    return rows(found.numpy())


if __name__ == "__main__":
    job = json.loads(sys.stdin.read())
    Path(job["folder"]).mkdir(parents=True, exist_ok=True)
    os.chdir(job["folder"])
    print(json.dumps({"ultralytics": ultralytics, "yolov5": yolov5}[job["package"]](job)))
