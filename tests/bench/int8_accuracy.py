"""Accuracy of every precision beside FP32, as one JSON document.

    python tests/bench/int8_accuracy.py [--data ../shared/data] [--only nano,yolox] [--images 0]
    python tests/bench/int8_accuracy.py --curve       instead: what each measured mixture of layers costs in points
    python tests/bench/int8_accuracy.py --cuda        FP32 and FP16 also in a GPU's arithmetic, by onnxruntime-gpu

yolox is scored on coco128 in two folds (calibrated on one half, scored on the other, then swapped), and on all of
coco128 with each photo's boxes from the fold that was not calibrated on it; the trained nano on the labelled frames of
vtest.avi, calibrated on frames 0 to 599. Points are 100 times mAP50-95.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vajra_edge.datasets.dataset import Dataset, Entry, open_dataset
from vajra_edge.datasets.labels import Truth
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.graph import signature
from vajra_edge.graph.passes import qdq
from vajra_edge.graph.topology import Wiring, load, macs_by_layer
from vajra_edge.heads.detect import multi_label
from vajra_edge.plans.report import PlanReport
from vajra_edge.plans.report_json import write_plan
from vajra_edge.quantization import ptq
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.ptq import Calibration, prepare_half, prepare_int8
from vajra_edge.quantization.ranges import RangeCache
from vajra_edge.tasks import val
from vajra_edge.types import Detections


@dataclass(frozen=True)
class Fold:
    name: str
    network: Path
    calibration: Dataset
    scored: Dataset


def folds(data: Path, images: int) -> Iterable[Fold]:
    photos = open_dataset(data / "coco128.yaml")
    halves = [replace(photos, entries=photos.entries[start::2]) for start in (0, 1)]
    for number, (calibration, scored) in enumerate((halves, halves[::-1])):
        yield Fold(f"yolox fold {number}", data / "models/yolox_nano_v8layout.onnx", calibration, few(scored, images))
    video = data / "videos/vtest.avi"
    clip = open_dataset(video)
    trained = replace(clip, entries=tuple(entry for entry in clip.entries if (entry.frame or 0) < 600))
    labels = json.loads((data / "labels/vtest_val.json").read_text())["frames"]
    size = np.array((768, 576, 768, 576), np.float32)
    entries = [Entry(video, int(frame), truth(rows, size)) for frame, rows in labels.items()]
    scored = Dataset(video, tuple(sorted(entries, key=lambda one: one.frame or 0)), photos.class_names, labelled=True)
    yield Fold("nano", data / "models/vajra-v1-nano-det-cctv.onnx", trained.sample(most=64), few(scored, images))


def few(scored: Dataset, images: int) -> Dataset:
    return scored.sample(most=images) if images else scored


def truth(rows: list[list[float]], size: Any) -> Truth:
    found = []
    for label, cx, cy, w, h in rows:
        box = np.array((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), np.float32) * size
        found.append((int(label), [float(side) for side in box], False))
    return Truth.of(found)


@dataclass(frozen=True)
class Scored:
    """What a graph found on a fold, and how long a call took."""

    truths: list[Truth]
    found: list[Detections]
    names: tuple[str, ...]
    median_ms: float

    def points(self) -> dict[str, float]:
        scores = val.score(self.truths, self.found, self.names)
        return {"map50_95": round(100 * scores.map50_95, 2), "map50": round(100 * scores.map50, 2)}


def scored_by(onnx_bytes: bytes, scored: Dataset, *, written: bool, precise: bool = True, cuda: bool = False) -> Scored:
    """Run a graph; ``written`` runs Q/DQ as separate operators (TensorRT's arithmetic), else as a plan would run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if precise:  # without it a processor that lacks VNNI sums pairs of products in 16 bits, which saturate
        options.add_session_config_entry("session.x64quantprecision", "1")
    if written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    gpu = [("CUDAExecutionProvider", {"use_tf32": "0"})] if cuda else []
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=[*gpu, "CPUExecutionProvider"])
    assert cuda == ("CUDAExecutionProvider" in session.get_providers())
    known = signature.read(onnx_bytes)
    letterbox, found, truths, taken_s = Letterbox(known.resolution_hw), [], [], []
    for picture in scored:
        batch = letterbox.blank(1)
        where = letterbox.apply(picture.image, batch[0])
        before_s = time.perf_counter()
        output = session.run(None, {known.input_name: batch})[0][0]
        taken_s.append(time.perf_counter() - before_s)
        boxes = multi_label(output, val.CONFIDENCE, val.NMS_IOU, val.MAX_DET)
        height, width = picture.image.shape[:2]
        found.append(replace(boxes, xyxy=where.to_image(boxes.xyxy, (width, height))))
        truths.append(picture.truth or Truth.of([]))
    return Scored(truths, found, known.class_names, round(1e3 * float(np.median(taken_s)), 1))


def onnxruntime_defaults(onnx_bytes: bytes, images: CalibrationSet) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    known = signature.read(onnx_bytes)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = images.inputs(known.resolution_hw)

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {known.input_name: batch}

    with tempfile.TemporaryDirectory() as folder:
        plain, quantized = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        plain.write_bytes(onnx_bytes)
        quantize_static(plain, quantized, Reader())
        return quantized.read_bytes()


def measured(fold: Fold, say: Callable[[str], None], *, cuda: bool = False) -> tuple[dict[str, Any], dict[str, Scored]]:
    """The table of one fold, and what it was scored from."""
    onnx_bytes = fold.network.read_bytes()
    known = signature.read(onnx_bytes)
    images = CalibrationSet(fold.name, fold.calibration)
    rows: dict[str, Any] = {}
    outcomes: dict[str, Scored] = {}

    def add(name: str, graph: bytes, *, written: bool, precise: bool = True, cuda: bool = False, **more: Any) -> None:
        outcomes[name] = scored_by(graph, fold.scored, written=written, precise=precise, cuda=cuda)
        row = outcomes[name].points() | {"median_ms": outcomes[name].median_ms, "bytes": len(graph)} | more
        rows[name] = row | {"lost": lost(rows.get("fp32", row), row), "size": round(len(graph) / len(onnx_bytes), 3)}
        say(f"{fold.name}: {name}: {row['map50_95']} points, lost {rows[name]['lost']}")

    add("fp32", onnx_bytes, written=True)
    add("fp16", prepare_half(onnx_bytes), written=True)
    if cuda:
        add("fp32 on CUDA", onnx_bytes, written=True, cuda=True)
        add("fp16 on CUDA", prepare_half(onnx_bytes), written=True, cuda=True)
    with tempfile.TemporaryDirectory() as folder:
        recipe = Calibration(images, cache=RangeCache(Path(folder)))
        for name, fused in (("int8", False), ("int8 for the CPU", True)):
            started_s = time.monotonic()
            graph, int8 = prepare_int8(onnx_bytes, known, replace(recipe, fused=fused), lambda _: None)
            prepared_s = round(time.monotonic() - started_s, 1)
            notes = write_plan(PlanReport(int8=int8))["int8"]
            chosen = {key: notes[key] for key in ("int8_share", "int8_layers", "chosen", "curve")}
            add(name, graph, written=not fused, prepared_s=prepared_s, **chosen)
            if not fused:  # what TensorRT is given: all that is not INT8 is FP16
                add("int8 with fp16", prepare_half(graph), written=True)
    # ONNX Runtime 1.32 refuses its own graph of yolox with the precise option ("replace the existing tensor").
    add("quantize_static defaults", onnxruntime_defaults(onnx_bytes, images), written=False, precise=False)
    return {"calibrated_on": len(images), "scored_on": len(fold.scored), "rows": rows}, outcomes


def lost(before: dict[str, Any], after: dict[str, Any]) -> float:
    return round(before["map50_95"] - after["map50_95"], 2)


def pooled(folds: list[dict[str, Scored]]) -> dict[str, Any]:
    """All photos at once, each with the boxes of the fold that was not calibrated on it."""
    rows: dict[str, Any] = {}
    for name, first in folds[0].items():
        truths, found = ([each for fold in folds for each in getattr(fold[name], part)] for part in ("truths", "found"))
        row = replace(first, truths=truths, found=found).points()
        rows[name] = row | {"lost": lost(rows.get("fp32", row), row)}
    return {"scored_on": len(truths), "rows": rows}


def curve(fold: Fold, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Points lost by every mixture that the choice of layers measured, largest INT8 share first."""
    onnx_bytes = fold.network.read_bytes()
    known, wiring = signature.read(onnx_bytes), Wiring(load(onnx_bytes))
    recipe = Calibration(CalibrationSet(fold.name, fold.calibration))
    ranges, _ = ptq.ranges_for(onnx_bytes, known, recipe, lambda _: None)
    macs = macs_by_layer(wiring, known.resolution_hw)
    choice = ptq._choose(onnx_bytes, known, recipe, ranges, macs, lambda _: None)
    before, rows = scored_by(onnx_bytes, fold.scored, written=True).points(), []
    for point in choice.curve:
        placed = qdq.place(wiring, dict.fromkeys(point.high, "measured"))
        graph = ptq._quantized(onnx_bytes, placed, ranges, recipe)
        after = scored_by(graph, fold.scored, written=True).points()
        rows.append(point.to_json() | {"lost": lost(before, after), "chosen": point is choice.point})
        say(f"{fold.name}: {rows[-1]}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "../shared/data")
    parser.add_argument("--only", default="yolox,nano")
    parser.add_argument("--images", type=int, default=0, help="score on so many only; 0: all")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--cuda", action="store_true")
    chosen = parser.parse_args()
    wanted = chosen.only.split(",")
    table: dict[str, Any] = {}
    outcomes: dict[str, list[dict[str, Scored]]] = {}
    for fold in folds(chosen.data, chosen.images):
        network = fold.name.split()[0]
        if network in wanted and chosen.curve:
            table[fold.name] = curve(fold, lambda text: print(text, flush=True))
        elif network in wanted:
            table[fold.name], scored = measured(fold, lambda text: print(text, flush=True), cuda=chosen.cuda)
            outcomes.setdefault(network, []).append(scored)
    table |= {f"{name} pooled": pooled(several) for name, several in outcomes.items() if len(several) > 1}
    print(json.dumps(table))


if __name__ == "__main__":
    main()
