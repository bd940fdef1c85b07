"""G: a whole 1080p frame with NMS in the graph and with NMS on the host."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cells_figures
import lab as shared
import ledger
from lab import Lab, Unavailable

WHERE = {"in the graph": True, "on the host": False}


@dataclass(frozen=True)
class Built:
    """One engine for the comparison."""

    build_s: float
    plan_mb: float


def build(lab: Lab, where: str) -> Built:
    """VajraV1-nano in FP16."""
    spec = shared.spec_of("fp16", nms=WHERE[where])
    graph, found = shared.assembled(lab.model("nano").read_bytes(), spec)
    with shared.of_level(lab.level):
        made = shared.build(graph, found, spec)
    cells_figures.keep_plan(lab, f"G nano, NMS {where}", made)
    return Built(made.seconds, round(len(made.built.plan) / 1e6, 2))


def times(lab: Lab, builds: list[str]) -> dict[str, Any]:
    """Of a frame, by turns and twice, for a shared machine drifts."""
    from vajra_edge.backends.tensorrt.backend import TensorRT
    from vajra_edge.graph.signature import Signature

    if lab.dry:
        raise Unavailable("a dry run has no engine that runs")
    there = cells_figures.kept_plans(lab, builds)
    found: dict[str, Any] = {"absent": [name for name in builds if name not in there]}
    for turn in (1, 2):
        for name, path in there.items():
            made = Signature.from_json(ledger.load(path.with_suffix(".json")))
            runner = TensorRT().load(path.read_bytes(), made, shared.spec_of("fp16"))
            found[f"{name}, turn {turn}"] = asdict(shared.whole_frame(lab, runner))
            lab.keep(found)
    return found
