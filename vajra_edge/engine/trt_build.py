"""One TensorRT build from a parsed network to a plan, with less and less memory until it succeeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vajra_edge.engine import trt_dla, trt_memory, trt_timing
from vajra_edge.engine.backend import Built, Progress, Report
from vajra_edge.engine.spec import EngineSpec
from vajra_edge.engine.trt_graph import Prepared
from vajra_edge.engine.trt_library import Typing
from vajra_edge.engine.trt_log import build_failure
from vajra_edge.engine.trt_memory import Limits
from vajra_edge.engine.trt_network import Network, add_profile, configure, name_gpu
from vajra_edge.engine.trt_progress import Watch, watched
from vajra_edge.errors import OutOfMemory
from vajra_edge.graph.signature import Signature

NOTED_WARNINGS = 20


@dataclass(frozen=True)
class Job:
    """Everything that stays the same between attempts.

    Attributes:
        net: the parsed network.
        prepared: the graph it was parsed from.
        signature: of the graph.
        spec: what is wanted.
        typing: how precisions are chosen.
        gpu: CUDA's number of the GPU that will run the plan.
        timings: the file for one kind of measurement on this device, or None where none are kept.
        report: takes progress.
    """

    net: Network
    prepared: Prepared
    signature: Signature
    spec: EngineSpec
    typing: Typing
    gpu: int
    timings: Callable[[str], Path | None]
    report: Report


def build(job: Job, first: Limits) -> Built:
    """Try the ladder of limits until one suffices; every step is reported and noted.

    Raises:
        UnsupportedSpec: this device cannot do it.
        BuildError, BuildCancelled, OutOfMemory: the builder failed; OutOfMemory only after the last rung.
    """
    attempts = [first.lowered] if first.lowered else []
    if first.lowered:
        job.report(Progress("build", None, first.lowered))
    failures: list[OutOfMemory] = []
    for limits in trt_memory.ladder(first):
        attempts.append(str(limits))
        try:
            return _attempt(job, limits, attempts)
        except OutOfMemory as error:
            failures.append(error)
            job.report(Progress("build", None, f"{error.message} ({limits}); trying with less"))
    raise failures[-1]


def _attempt(job: Job, limits: Limits, attempts: list[str]) -> Built:
    net, spec = job.net, job.spec
    net.lines.clear()
    config = configure(net, job.prepared, spec, job.typing, limits)
    capability = name_gpu(net.library, config, job.gpu)
    notes: dict[str, object] = {
        "library": str(net.library),
        "typing": str(job.typing),
        "typing_reason": job.typing.reason,
        "compute_capability": capability,
        "limits": attempts[-1],
        "attempts": list(attempts),
        "network_layers": int(net.network.num_layers),
        "shapes": add_profile(net, config, job.signature),
    }
    placed = trt_dla.place(net, config, job.prepared, spec, job.typing) if spec.target.kind == "dla" else None
    if placed is not None:
        notes["dla"] = placed.placement.card()
    timings = job.timings("tactics")
    lasted = job.timings(f"{spec.precision.value} {job.signature} {notes['network_layers']} {attempts[-1]}")
    timed = trt_timing.use(net.library, config, timings)
    net.lines.errors.clear()  # a cache that does not fit is logged as one, and is not why a build fails
    began_s = time.monotonic()
    plan = _serialize(net, config, Watch(job.report, trt_timing.expected_s(lasted)))
    notes["build_s"] = round(time.monotonic() - began_s, 2)
    notes["plan_bytes"] = len(plan)
    notes["warnings"] = list(dict.fromkeys(net.lines.warnings))[:NOTED_WARNINGS]
    if timings is not None and timed:
        notes["timing_cache"] = trt_timing.keep(timings, trt_timing.measured(config))
    if lasted is not None:
        notes["timing_expected"] = trt_timing.keep(lasted, str(notes["build_s"]).encode())
    if placed is not None:
        notes["dla_inspected"] = trt_dla.inspect(net.library, plan, spec, placed.layers)
    return Built(plan, spec.precision, spec.target, notes)


def _serialize(net: Network, config: Any, watch: Watch) -> bytes:
    """Run the builder under watch; what the report raised comes out once the builder has stopped."""
    with watched(net.library, config, watch):
        memory = net.builder.build_serialized_network(net.network, config)
    watch.settle()
    if memory is None:
        raise build_failure(net.lines)
    return bytes(memory)
