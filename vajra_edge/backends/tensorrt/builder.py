"""One TensorRT build from a parsed network to a plan, with less memory or less effort until it succeeds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vajra_edge.backends.base import Built
from vajra_edge.backends.tensorrt import calibrator as tensorrt_calibrator
from vajra_edge.backends.tensorrt import dla, timing_cache
from vajra_edge.backends.tensorrt import limits as tensorrt_limits
from vajra_edge.backends.tensorrt.library import Typing
from vajra_edge.backends.tensorrt.limits import BuildLimits
from vajra_edge.backends.tensorrt.log import build_failure
from vajra_edge.backends.tensorrt.network import (
    Network,
    Prepared,
    add_calibration_profile,
    add_profile,
    configure,
    name_gpu,
)
from vajra_edge.backends.tensorrt.progress import BuildWatch, watched
from vajra_edge.errors import BuildError, OutOfMemory
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.report import PlanReport, TensorRTReport
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.progress import Progress, Report

NOTED_WARNINGS = 20


@dataclass(frozen=True)
class BuildJob:
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
        calibrate: what the library's own calibrator is fed by, made anew for each attempt; None: it sets no scales.
    """

    net: Network
    prepared: Prepared
    signature: Signature
    spec: EngineSpec
    typing: Typing
    gpu: int
    timings: Callable[[str], Path | None]
    report: Report
    calibrate: Callable[[], tensorrt_calibrator.CalibrationFeed] | None = None


def build(job: BuildJob) -> Built:
    """Try the ladder of limits until one suffices; every step is reported and noted.

    What is free is asked here, where the ``Builder`` is there already: it takes 1 to 1.7 GB of a Jetson
    (TensorRT#4494), and took 4.7 GB of host memory beside an H100 (10.6).

    A region without any implementation is tried once more at level 0, which fuses less: VajraV1-nano in INT8, strongly
    typed, has none for a convolution with its SiLU at level 1 and is built at level 0 (10.6).

    Raises:
        UnsupportedSpec: this device cannot do it.
        BuildError, BuildCancelled, OutOfMemory: the builder failed; OutOfMemory only after the last rung.
    """
    spec = job.spec
    first = tensorrt_limits.limits(tensorrt_limits.look(job.gpu), spec.workspace_gib, spec.optimization_level)
    attempts = [first.lowered] if first.lowered else []
    if first.lowered:
        job.report(Progress("build", None, first.lowered))
    failures: list[OutOfMemory] = []
    for limits in tensorrt_limits.ladder(first):
        attempts.append(str(limits))
        try:
            return _attempt(job, limits, attempts)
        except OutOfMemory as error:
            failures.append(error)
            job.report(Progress("build", None, f"{error.message} ({limits}); trying with less"))
        except BuildError as error:
            if not error.values.get("no_tactic") or limits.optimization_level == 0:
                raise
            job.report(Progress("build", None, f"{error.message} ({limits}); trying at optimization level 0"))
            return _attempt(job, _least_fused(limits, attempts), attempts)
    raise failures[-1]


def _least_fused(limits: BuildLimits, attempts: list[str]) -> BuildLimits:
    least = replace(limits, optimization_level=0)
    attempts.append(str(least))
    return least


def _attempt(job: BuildJob, limits: BuildLimits, attempts: list[str]) -> Built:
    """One build; where the library calibrates, its cache and its images are given back in any case."""
    if job.calibrate is None:
        return _made(job, limits, attempts, None)
    with contextlib.closing(job.calibrate()) as feed:
        return _made(job, limits, attempts, feed)


def _made(
    job: BuildJob, limits: BuildLimits, attempts: list[str], feed: tensorrt_calibrator.CalibrationFeed | None
) -> Built:
    net, spec = job.net, job.spec
    net.lines.clear()
    config = configure(net, job.prepared, spec, job.typing, limits)
    capability = name_gpu(net.library, config, job.gpu)
    shapes = add_profile(net, config, job.signature)
    layers = int(net.network.num_layers)
    placed = dla.place(net, config, job.prepared, spec, job.typing) if spec.target.kind == "dla" else None
    timings = job.timings("tactics")
    lasted = job.timings(f"{spec.precision.value} {job.signature} {layers} {attempts[-1]}")
    timed = timing_cache.use(net.library, config, timings)
    calibrator = _calibrated(job, config, feed)
    net.lines.errors.clear()  # a cache that does not fit is logged as one, and is not why a build fails
    scarce = tensorrt_limits.look(job.gpu).free_bytes < tensorrt_limits.SCARCE_BYTES
    began_s = time.monotonic()
    watch = BuildWatch(_heeding(job.report, feed), timing_cache.expected_s(lasted))
    plan = _serialize(net, config, watch, feed, scarce=scarce)
    del calibrator  # until here the library called it, and keeps no reference of its own
    build_s = round(time.monotonic() - began_s, 2)
    made = TensorRTReport(
        library=str(net.library),
        typing=str(job.typing),
        typing_reason=job.typing.reason,
        compute_capability=capability,
        limits=attempts[-1],
        attempts=tuple(attempts),
        network_layers=layers,
        shapes=shapes,
        build_s=build_s,
        plan_bytes=len(plan),
        warnings=tuple(dict.fromkeys(net.lines.warnings))[:NOTED_WARNINGS],
        timing_cache=timing_cache.keep(timings, timing_cache.measured(config))
        if timings is not None and timed
        else None,
        timing_expected=timing_cache.keep(lasted, str(build_s).encode()) if lasted is not None else None,
        calibration=feed.source if feed is not None else None,
        calibration_cache=feed.kept if feed is not None else None,
    )
    report = PlanReport(tensorrt=made)
    if placed is not None:
        inspected = dla.inspect(net.library, plan, spec, placed.layers)
        report = replace(report, dla=dla.card(placed.placement), dla_inspected=inspected)
    return Built(plan, spec.precision, spec.target, report)


def _calibrated(job: BuildJob, config: Any, feed: tensorrt_calibrator.CalibrationFeed | None) -> Any:
    """Let the library's own calibrator set the scales; what is returned has to live as long as the build."""
    if feed is None:
        return None
    calibrator = tensorrt_calibrator.calibrator(job.net.library, feed)
    add_calibration_profile(job.net, config, job.signature)
    if job.net.library.has("IBuilderConfig.int8_calibrator"):
        config.int8_calibrator = calibrator
    return calibrator


def _heeding(report: Report, feed: tensorrt_calibrator.CalibrationFeed | None) -> Report:
    """The report, which also ends a build whose images fail: the library would time every tactic before it is told."""
    if feed is None:
        return report

    def told(step: Progress) -> None:
        feed.settle()
        report(step)

    return told


def _serialize(
    net: Network, config: Any, watch: BuildWatch, feed: tensorrt_calibrator.CalibrationFeed | None, *, scarce: bool
) -> bytes:
    """Run the builder under watch; what report or images raised comes out once the builder has stopped."""
    with watched(net.library, config, watch):
        memory = net.builder.build_serialized_network(net.network, config)
    watch.settle()
    if feed is not None:
        feed.settle()
    if memory is None:
        raise build_failure(net.lines, scarce=scarce)
    return bytes(memory)
