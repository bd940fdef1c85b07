"""H: ultralytics opens our engine and we open one of theirs; both find the same boxes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lab as shared
import numpy as np
from lab import Lab, Unavailable

LEAST_BOXES, LEAST_CLASSES = 20, 3
MOST_PHOTOS = 12
IOU, SCORE = 0.99, 0.005
"""As tests/bench/peer_boxes.py asks."""


@dataclass(frozen=True)
class Same:
    """Boxes of both on the same photos.

    Attributes:
        boxes: ours.
        theirs: how many they have.
        classes: distinct ones of ours.
        worst_iou: of a box and its partner.
        worst_score: difference.
        unmatched: photos on which the two do not pair up.
        photos: compared.
        extra: further figures.
    """

    boxes: int
    theirs: int
    classes: int
    worst_iou: float
    worst_score: float
    unmatched: list[str]
    photos: int
    extra: dict[str, Any] = field(default_factory=dict)


def theirs_of_ours(lab: Lab) -> Same:
    """YOLOX-nano in v8's layout, FP16, by our export; they read its header and run the plan."""
    from vajra_edge import Vajra

    yolo = _yolo()
    folder = lab.work / "peer-ours"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    weights = folder / "yolox.onnx"
    shutil.copyfile(lab.model("yolox"), weights)
    size = _size_of(weights)
    with shared.effort():
        engine = weights if lab.dry else Path(Vajra(weights).export(half=True, img_size=size, device=0))
    return _compared(lab, Vajra(engine), yolo(str(engine), task="detect"), 0.25)


def ours_of_theirs(lab: Lab) -> Same:
    """yolov8n of random weights, FP16, by their export; our predict and val open it."""
    from vajra_edge import Vajra

    yolo = _yolo()
    engine = exported(lab, "onnx" if lab.dry else "engine", imgsz=320)
    ours = Vajra(engine)
    found = _compared(lab, ours, yolo(str(engine), task="detect"), 0.25)
    report = ours.val(data=lab.data / "coco128.yaml", device="cpu" if lab.dry else 0)
    extra = {"val_map50_95": report.scores.map50_95, "val_images": report.scores.images}
    made = Same(**{**found.__dict__, "extra": extra})
    lab.keep(made)
    return made


def exported(lab: Lab, kind: str, imgsz: int) -> Path:
    """yolov8n whose random weights are scaled so that it finds some boxes, exported by ultralytics."""
    yolo = _yolo()
    import torch

    folder = lab.work / f"peer-{kind}-{imgsz}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        torch.manual_seed(0)
        network = yolo("yolov8n.yaml", task="detect")
        _awake(lab, network, imgsz)
        network.save(str(folder / "yolov8n.pt"))
        fresh = yolo(str(folder / "yolov8n.pt"))
        with _their_effort():
            told: dict[str, Any] = {"half": True, "device": 0} if kind == "engine" else {"device": "cpu", "opset": 17}
            made = fresh.export(format=kind, imgsz=imgsz, simplify=False, **told)
        return (folder / made).absolute()
    finally:
        os.chdir(before)


def _awake(lab: Lab, network: Any, imgsz: int) -> None:
    """Make a random network find something: features of unit spread, and of each class a few anchors above 0.25."""
    import cv2
    import torch

    images = [cv2.resize(cv2.imread(str(path)), (imgsz, imgsz))[..., ::-1] for path in lab.photos()[:8]]
    batch = torch.from_numpy(np.stack(images).copy()).permute(0, 3, 1, 2).float() / 255
    for module in network.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all that is seen; fresh statistics let signals die out
    branches = network.model.model[-1].cv3
    seen: dict[int, Any] = {}
    hooks = [
        branch[-1].register_forward_hook(lambda _m, _i, output, at=at: seen.__setitem__(at, output.detach()))
        for at, branch in enumerate(branches)
    ]
    with torch.no_grad():
        network.model.train()(batch)
        network.model.eval()(batch)
        for at, branch in enumerate(branches):
            mean, spread = seen[at].mean(dim=(0, 2, 3)), seen[at].std(dim=(0, 2, 3)).clamp(min=1e-3)
            # Behind it each class has deviation 1 over the anchors, and one logit in 4000 is above that of 0.25.
            normal = (seen[at] - mean[:, None, None]) / spread[:, None, None]
            most = float(np.quantile(normal.numpy(), 1 - 1 / 4000))
            branch[-1].weight.div_(spread[:, None, None, None])
            branch[-1].bias.copy_((branch[-1].bias - mean) / spread - most - 1.1)
    for hook in hooks:
        hook.remove()


class _their_effort:  # noqa: N801  a context manager
    """Their export has no argument for the level either: the configuration that the builder hands out has it set."""

    def __enter__(self) -> None:
        self._usual = None
        try:
            import tensorrt as trt
        except ImportError:
            return
        usual = self._usual = trt.Builder.create_builder_config

        def lowered(builder: Any) -> Any:
            config = usual(builder)
            config.builder_optimization_level = 0
            config.max_num_tactics = shared.FEW_TACTICS
            return config

        trt.Builder.create_builder_config = lowered

    def __exit__(self, *_: object) -> None:
        if self._usual is not None:
            import tensorrt as trt

            trt.Builder.create_builder_config = self._usual


def _yolo() -> Any:
    os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(os.environ.get("TMPDIR", "/tmp")) / "ultralytics-config"))
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise Unavailable(f"ultralytics does not load: {error}") from error
    return YOLO


def _size_of(weights: Path) -> tuple[int, int]:
    from vajra_edge.graph import signature

    return signature.read(weights.read_bytes()).resolution_hw


def _compared(lab: Lab, ours: Any, theirs: Any, conf: float) -> Same:
    """On the first photos until there are enough boxes of enough classes."""
    from vajra_edge.geometry.boxes import iou

    boxes = peers = photos = 0
    classes: set[int] = set()
    worst_iou, worst_score, unmatched = 1.0, 0.0, []
    device = "cpu" if lab.dry else 0
    for path in lab.photos()[:MOST_PHOTOS]:
        (one,) = ours.predict(path, conf=conf, device=device)
        told = theirs.predict(str(path), conf=conf, verbose=False, device=device)[0].boxes
        rows = [told.xyxy, told.conf[:, None], told.cls[:, None]]
        other = np.concatenate([np.asarray(row.cpu(), np.float32) for row in rows], axis=1)
        overlap = iou(one.xyxy, other[:, :4]) * (one.class_id[:, None] == other[:, 5])
        score = np.abs(one.confidence[:, None] - other[:, 4])
        # Boxes cut at the border may be the same for several objects: the nearest score then tells them apart.
        partner = (overlap - 0.01 * score).argmax(axis=1) if overlap.size else np.zeros(0, int)
        pairs = np.arange(len(one))[: len(partner)], partner
        matched = len(set(partner.tolist())) == len(one) == len(other)
        if overlap.size:
            worst_iou = min(worst_iou, float(overlap[pairs].min()))
            worst_score = max(worst_score, float(score[pairs].max()))
        if not matched:
            unmatched.append(f"{path.name}: {len(one)} and {len(other)}")
        photos, boxes, peers = photos + 1, boxes + len(one), peers + len(other)
        classes |= {int(label) for label in one.class_id}
        if photos >= 2 and boxes >= LEAST_BOXES and len(classes) >= LEAST_CLASSES:
            break
    made = Same(boxes, peers, len(classes), round(worst_iou, 6), round(worst_score, 6), unmatched, photos)
    lab.keep(made)
    assert boxes >= LEAST_BOXES, f"{boxes} boxes on {photos} photos say little"
    assert len(classes) >= LEAST_CLASSES, f"{len(classes)} classes say little"
    assert not unmatched, f"boxes differ: {unmatched}"
    assert worst_iou >= IOU, f"worst IoU {worst_iou:.4f}"
    assert worst_score <= SCORE, f"worst score difference {worst_score:.4f}"
    return made
