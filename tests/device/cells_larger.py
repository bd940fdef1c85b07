"""K: larger networks, with random weights: build seconds and times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cells_figures
import lab as shared
from lab import Lab


@dataclass(frozen=True)
class Built:
    """One FP16 engine of raw output at 640 px."""

    build_s: float
    plan_mb: float
    onnx_mb: float
    layers: Any


def build(lab: Lab, network: str) -> Built:
    """Kept for the cell that times."""
    spec = shared.spec_of("fp16")
    content = _medium() if network == "medium" else _ultralytics(lab)
    graph, found = shared.assembled(content, spec)
    with shared.of_level(lab.level):
        made = shared.build(graph, found, spec)
    cells_figures.keep_plan(lab, f"K {network}", made)
    layers = None if lab.dry else shared.inspect(made.built.plan)
    return Built(made.seconds, round(len(made.built.plan) / 1e6, 2), round(len(graph) / 1e6, 2), layers)


def _medium() -> bytes:
    content: bytes = shared.bench("trt_builds").graph_of("medium", dynamic=False)
    return content


def _ultralytics(lab: Lab) -> bytes:
    import cells_peer

    return cells_peer.exported(lab, "onnx", imgsz=640).read_bytes()
