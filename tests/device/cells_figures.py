"""D: what each precision costs and gives, and the times of engines that other cells built."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lab as shared
import ledger
from lab import Bare, Inspected, Lab, Points, Unavailable, Whole

from vajra_edge.plans.spec import EngineSpec
from vajra_edge.quantization.calibration_set import CalibrationSet

FOLDS = {"nano": "nano", "yolox": "yolox fold 0"}
"""Of tests/bench/int8_accuracy.py. yolox is scored on one half of coco128 and calibrated on the other."""


@dataclass(frozen=True)
class Figures:
    """One precision of one network; raw output, NMS on the host.

    Attributes:
        build_s: of the builder.
        prepare_s: of calibration and the choice of layers; None where they came prepared.
        plan_mb: size of the plan.
        onnx_mb: size of the FP32 graph.
        points: mean average precision of the engine.
        fp32: of ONNX Runtime in FP32 on the same images.
        lost: points below it.
        layers: what the inspector says.
        notes: of the build: how it was typed, limits, INT8 share by multiply-adds.
    """

    build_s: float
    prepare_s: float | None
    plan_mb: float
    onnx_mb: float
    points: Points
    fp32: Points
    lost: float
    layers: Inspected | None
    notes: dict[str, Any]


def build(lab: Lab, network: str, way: str) -> Figures:
    """Build, keep the plan for the cell that times it, score it."""
    precision, _, route = way.partition(" by ")
    quantization = {"Q/DQ": "qdq", "calibrator": "calibrator"}.get(route, "auto")
    spec = shared.spec_of(precision, quantization=quantization)
    fold = fold_of(lab, network)
    fp32, found = shared.assembled(fold.network.read_bytes(), spec)
    images = CalibrationSet(fold.name, fold.calibration)
    began_s = time.monotonic()
    graph, notes = (fp32, {})
    if quantization == "qdq":
        graph, notes = quantized(lab, network, fp32, found, images)
    prepare_s = None if notes.get("prepared") else round(time.monotonic() - began_s, 1)
    lab.keep({"prepare_s": prepare_s, "notes": notes})
    with shared.of_level(lab.level):
        made = shared.build(graph, found, spec, images=images if quantization == "calibrator" else None)
    return scored(lab, f"D {network} {way}", made, fp32, spec, fold.scored, {**notes, "prepare_s": prepare_s})


def scored(
    lab: Lab, name: str, made: shared.Timed, fp32: bytes, spec: EngineSpec, pictures: Any, notes: dict[str, Any]
) -> Figures:
    """Keep a plan and its signature, then score it against FP32."""
    from vajra_edge.plans.report_json import write_plan

    keep_plan(lab, name, made)
    kept = ("typing", "typing_reason", "limits", "attempts", "network_layers", "warnings", "calibration")
    told = write_plan(made.built.report)
    notes = {**{key: told[key] for key in kept if key in told}, **notes}
    plan_mb, onnx_mb = (round(len(content) / 1e6, 2) for content in (made.built.plan, fp32))
    lab.keep({"build_s": made.seconds, "plan_mb": plan_mb, "notes": notes})
    with shared.running(lab, made.built.plan, made.signature, spec, fp32) as runner:
        points = shared.score(runner, pictures)
    lab.keep({"build_s": made.seconds, "plan_mb": plan_mb, "points": asdict(points), "notes": notes})
    before = reference_points(lab, fp32, pictures)
    layers = None if lab.dry else shared.inspect(made.built.plan)
    lost = round(before.map50_95 - points.map50_95, 2)
    prepare_s = notes.pop("prepare_s", None)
    return Figures(made.seconds, prepare_s, plan_mb, onnx_mb, points, before, lost, layers, notes)


def reference_points(lab: Lab, fp32: bytes, pictures: Any) -> Points:
    """Of ONNX Runtime in FP32, scored once a machine."""
    from vajra_edge.backends import onnxruntime
    from vajra_edge.graph import signature

    listed = repr([(str(entry.path), entry.frame) for entry in pictures.entries])
    digest = hashlib.sha256(fp32 + listed.encode()).hexdigest()[:16]
    path = lab.work / "points" / f"{digest}.json"
    if known := ledger.load(path):
        return Points(**known)
    runner = onnxruntime.reference(fp32, signature.read(fp32))
    found = shared.score(runner, pictures)
    runner.close()
    ledger.replace_file(path, asdict(found))
    return found


def fold_of(lab: Lab, network: str) -> Any:
    """Network, calibration images and scored images, as the CPU's figures are made with."""
    few = 4 if lab.dry else 0
    folds = shared.bench("int8_accuracy").folds(lab.data, few)
    fold = next(fold for fold in folds if fold.name == FOLDS[network])
    return replace(fold, calibration=fold.calibration.sample(most=4)) if lab.dry else fold


def quantized(lab: Lab, network: str, fp32: bytes, found: Any, images: CalibrationSet) -> tuple[bytes, dict[str, Any]]:
    """The Q/DQ graph: from ``prepared/`` beside the data, or made now; choosing layers takes minutes of CPU."""
    prepared = lab.data / "prepared" / f"{network}.int8.onnx"
    notes = ledger.load(prepared.with_suffix(".json"))
    if prepared.is_file() and notes.get("network") == digest_of(lab.model(network)):
        return prepared.read_bytes(), {**notes, "prepared": prepared.name}
    return choose(fp32, found, images, search=not lab.dry)


def choose(fp32: bytes, found: Any, images: CalibrationSet, *, search: bool) -> tuple[bytes, dict[str, Any]]:
    """Ranges by ONNX Runtime, layers by trials."""
    from vajra_edge.plans.report import PlanReport
    from vajra_edge.plans.report_json import write_plan
    from vajra_edge.quantization.ptq import Calibration, prepare_int8

    graph, int8 = prepare_int8(fp32, found, Calibration(images, search=search), shared.quiet)
    kept, notes = ("int8_share", "int8_layers", "chosen", "ranges"), write_plan(PlanReport(int8=int8))["int8"]
    return graph, json.loads(json.dumps({key: notes[key] for key in kept if key in notes}, default=str))


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keep_plan(lab: Lab, name: str, made: shared.Timed) -> None:
    """Plan and signature, for the cell that times."""
    path = lab.engine(f"{name}, level {lab.level}")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_bytes(made.built.plan)
    ledger.replace_file(path.with_suffix(".json"), made.signature.to_json())
    aside.replace(path)


def kept_plans(lab: Lab, builds: list[str]) -> dict[str, Path]:
    """Those of ``builds`` that this machine has at this level.

    Raises:
        Unavailable: there is none.
    """
    found = {name: lab.engine(f"{name}, level {lab.level}") for name in builds}
    there = {name: path for name, path in found.items() if path.is_file()}
    if not there:
        raise Unavailable(f"none of {', '.join(builds)} was built on this machine at level {lab.level}")
    return there


@dataclass(frozen=True)
class Times:
    """Times of one engine."""

    bare: Bare | None
    frame: Whole | None


def times(lab: Lab, builds: list[str], *, frame: bool) -> dict[str, Any]:
    """Of every engine that the cells before built; nothing else runs meanwhile.

    Raises:
        Unavailable: there is none, or a dry run, which has nothing to time.
    """
    if lab.dry:
        raise Unavailable("a dry run has no engine that runs")
    there = kept_plans(lab, builds)
    found: dict[str, Any] = {"absent": [name for name in builds if name not in there]}
    for name, path in there.items():
        plan = path.read_bytes()
        found[name] = asdict(Times(shared.bare(plan), _frame(lab, path) if frame else None))
        found["clocks"] = shared.card()  # at once, while they are still those of the work
        lab.keep(found)
    return found


def _frame(lab: Lab, path: Path) -> Whole:
    from vajra_edge.backends.tensorrt.backend import TensorRT
    from vajra_edge.graph.signature import Signature

    found = Signature.from_json(ledger.load(path.with_suffix(".json")))
    return shared.whole_frame(lab, TensorRT().load(path.read_bytes(), found, shared.spec_of("fp16")))


def prepare(data: Path, folder: Path) -> None:
    """Make ``prepared/`` on a machine without a GPU, so that D need not spend a GPU's minutes on it."""
    lab = Lab(data, folder, folder / "partial.json")
    folder.mkdir(parents=True, exist_ok=True)
    for network in FOLDS:
        fold = fold_of(lab, network)
        fp32, found = shared.assembled(fold.network.read_bytes(), shared.spec_of("int8"))
        graph, notes = choose(fp32, found, CalibrationSet(fold.name, fold.calibration), search=True)
        (folder / f"{network}.int8.onnx").write_bytes(graph)
        ledger.replace_file(folder / f"{network}.int8.json", {**notes, "network": digest_of(fold.network)})
        print(network, notes.get("int8_share"), flush=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
