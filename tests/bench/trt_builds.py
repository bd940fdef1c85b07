"""Builds real networks with TensorRT-RTX on this CPU, and draws their DLA report cards.

    python tests/bench/trt_builds.py            every network, precision, shape and NMS
    python tests/bench/trt_builds.py nano       networks whose name has this in it
    python tests/bench/trt_builds.py --dla      report cards only, of all five VajraV1 networks (torch needed)

Each build runs in a process of its own, whose peak memory is part of the line. INT8 is calibrated on 8 images by the
static rules alone: this shows what builds, not what is accurate.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx

from vajra_edge.backends.tensorrt import dla
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.errors import VajraError
from vajra_edge.graph.assemble import assemble, simplify
from vajra_edge.graph.dla import partition
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.ptq import Calibration, prepare_int8

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZES = ("nano", "small", "medium", "large", "xlarge")
CALIBRATION_IMAGES = 8


def sources(wanted: str) -> Iterator[tuple[str, Path | str, bool]]:
    """Name, ONNX file or size of a random VajraV1, and whether its shape is dynamic."""
    known: list[tuple[str, Path | str, bool]] = [
        ("trained nano", DATA / "models" / "vajra-v1-nano-det-cctv.onnx", False),
        ("yolox", DATA / "models" / "yolox_nano_v8layout.onnx", False),
        *((f"{size} {kind}", size, kind == "dynamic") for size in SIZES for kind in ("static", "dynamic")),
    ]
    yield from ((name, source, dynamic) for name, source, dynamic in known if wanted in name)


def graph_of(source: Path | str, *, dynamic: bool) -> bytes:
    """A file's bytes, or a VajraV1 of random weights traced in deploy form."""
    if isinstance(source, Path):
        return source.read_bytes()
    import torch

    from vajra_edge.graph import export, torch_export
    from vajra_edge.weights.fusion import fuse
    from vajra_edge.weights.vajra_v1 import DistributedFocalLoss, VajraV1

    torch.manual_seed(0)
    network = VajraV1(source, 80).eval()
    for module in network.modules():
        if isinstance(module, DistributedFocalLoss):
            module.conv.weight.data.copy_(torch.arange(16.0).reshape(1, 16, 1, 1))
    fuse(network)
    order = torch_export.Order(Path(source), (640, 640), dynamic, torch_export.DEFAULT_OPSET, True, None)
    written = torch_export._written(network, None if dynamic else order.resolution_hw, order.opset)
    names = tuple(map(str, range(80)))
    traced = torch_export.Traced(written, names, source, 32, "detect", "", resolution_hw=(640, 640))
    return export._annotated(traced, order, 1)


def build(source: Path | str, precision: Precision, *, dynamic: bool, with_nms: bool) -> dict[str, object]:
    """One build in this process: figures for one line."""
    nms = NmsSpec() if with_nms else None
    batch = 4 if dynamic else 1
    spec = EngineSpec(Target("gpu"), precision, batch=batch, dynamic=dynamic, nms=nms)
    graph, found = assemble(graph_of(source, dynamic=dynamic), spec, class_names=tuple(map(str, range(80))), stride=32)
    if precision is Precision.INT8:
        images = CalibrationSet.collect(DATA / "images" / "coco128", most=CALIBRATION_IMAGES)
        graph, _ = prepare_int8(graph, found, Calibration(images, search=False), lambda _: None)
    seen: list[float] = []
    began_s = time.monotonic()
    made = TensorRT().build(graph, found, spec, lambda step: seen.append(step.percent or 0.0))
    return {
        "build_s": round(time.monotonic() - began_s, 1),
        "plan_mb": round(len(made.plan) / 1e6, 1),
        "onnx_mb": round(len(graph) / 1e6, 1),
        "layers": made.report.tensorrt.network_layers,
        "reports": len(seen),
        "last_percent": max(seen),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "capability": made.report.tensorrt.compute_capability,
    }


def one_image(onnx_bytes: bytes) -> bytes:
    """The graph with its open batch set to 1, as a build for a DLA sets it."""
    model = onnx.load_model_from_string(onnx_bytes)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def card(source: Path | str) -> dict[str, object]:
    """The DLA report card of one network, short."""
    graph = one_image(simplify(graph_of(source, dynamic=False)))
    full = dla.card(partition.plan(graph))
    second = partition.plan(graph, most_regions=4)
    return {
        "macs_share": full.macs_share,
        "transitions": full.transitions,
        "nodes_on_dla": full.nodes_on_dla,
        "nodes": full.nodes,
        "regions_possible": full.regions_possible,
        "with_more_regions": {"macs_share": round(second.macs_share, 4), "transitions": second.transitions},
        "left_on_gpu": {reason: left.nodes for reason, left in full.left_on_gpu.items()},
    }


def one(arguments: list[str]) -> int:
    """A child: one build, one JSON line."""
    name, precision, nms = arguments
    source, dynamic = next((source, dynamic) for known, source, dynamic in sources(name) if known == name)
    try:
        line = build(source, Precision(precision), dynamic=dynamic, with_nms=nms == "nms")
    except VajraError as error:
        line = {"error": str(error)}
    print(json.dumps(line))
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="", help="networks whose name has this in it")
    parser.add_argument("--dla", action="store_true", help="DLA report cards only")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.exit(one(options.one))
    for name, source, dynamic in sources(options.name):
        if options.dla:
            if not dynamic:
                print(json.dumps({"network": name, **card(source)}), flush=True)
            continue
        for precision in Precision:
            for nms in ("raw", "nms"):
                child = [sys.executable, __file__, "--one", name, precision.value, nms]
                done = subprocess.run(child, capture_output=True, text=True, check=False)
                line = done.stdout.strip() or done.stderr.strip().splitlines()[-1]
                print(f"{name:16} {precision.value:5} {nms:4} {line}", flush=True)


if __name__ == "__main__":
    main()
