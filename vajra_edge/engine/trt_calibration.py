"""TensorRT calibration: ranges measured on the GPU that will run the plan, by an engine made for nothing else.

The engine is the FP32 graph with the outputs of ``probes.extremes``, in FP32 without TF32; the extra outputs stop
fusions, so that it is of no other use. Its ranges are those of ``engine.observation`` but for rounding, in the same
file. Percentile and entropy need histograms, which no TensorRT layer counts: ScatterElements adds in a plugin only, and
TensorRT-RTX has no plugins. ONNX Runtime measures those, and whatever an engine here fails at; the ranges say so.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace

from vajra_edge.engine import trt_library
from vajra_edge.engine.backend import Backend, Report
from vajra_edge.engine.observation import Extremes, Inputs, Observe, Pass, observe
from vajra_edge.engine.ranges import Ranges
from vajra_edge.engine.spec import EngineSpec, Precision, Target
from vajra_edge.engine.trt import TensorRT
from vajra_edge.engine.trt_graph import fixed
from vajra_edge.engine.trt_replay import TrtReplay
from vajra_edge.errors import BuildCancelled, EngineError, GraphError
from vajra_edge.graph.signature import Signature
from vajra_edge.graph.wiring import load

LEVEL = 1
"""Builder effort: the tactic that heuristics put first, for an engine that runs each image once."""

_LOGGER = logging.getLogger(__name__)


def observer(backend: Backend, spec: EngineSpec) -> Observe:
    """Who measures ranges for a build: TensorRT where it builds the plan and its GPU runs, else ONNX Runtime."""
    return functools.partial(_observe, backend, spec) if isinstance(backend, TensorRT) else observe


def _observe(
    backend: TensorRT,
    spec: EngineSpec,
    onnx_bytes: bytes,
    signature: Signature,
    images: Inputs,
    algorithm: str,
    report: Report,
    threads: int | None = None,
) -> Ranges:
    """By TensorRT, or by ONNX Runtime with the reason in ``Ranges.collector``.

    Raises:
        CalibrationError: an image cannot be read, the set is short, or a tensor is not finite.
        BuildCancelled: the report raised it.
    """
    reason = _unfit(backend, spec, algorithm)
    if reason is None:
        try:
            return measure(backend, spec, onnx_bytes, signature, images, report)
        except BuildCancelled:
            raise
        except (GraphError, EngineError) as error:
            reason = f"the calibration engine failed: {error.message}"
            _LOGGER.warning("%s; ONNX Runtime calibrates on the CPU instead", reason)
    ranges = observe(onnx_bytes, signature, images, algorithm, report, threads)
    return replace(ranges, collector=f"{ranges.collector}, not TensorRT: {reason}")


def _unfit(backend: TensorRT, spec: EngineSpec, algorithm: str) -> str | None:
    if algorithm != "minmax":
        return f"{algorithm} needs histograms"
    return backend.cannot_run(spec)


def measure(
    backend: TensorRT, spec: EngineSpec, onnx_bytes: bytes, signature: Signature, images: Inputs, report: Report
) -> Ranges:
    """MinMax ranges by a TensorRT engine that is built for it and let go.

    Args:
        backend: builds the engine.
        spec: of the plan that the ranges are for.
        onnx_bytes: the FP32 graph.
        signature: its signature; as many images run at once as its batch.
        images: the calibration set.
        report: takes progress; may raise to stop.

    Raises:
        CalibrationError: an image cannot be read, the set is short, or a tensor is not finite.
        GraphError, BuildError: the engine cannot be built.
        PlanError, InferenceError: it cannot be run.
    """
    library, extremes = trt_library.load(), Extremes(onnx_bytes)
    target = spec.target if spec.target.kind == "gpu" else Target("gpu")  # a DLA measures nothing
    wanted = replace(spec, precision=Precision.FP32, target=target, optimization_level=LEVEL)
    built = backend.build(
        fixed(load(extremes.graph), signature),
        signature,
        wanted,
        lambda step: report(replace(step, stage="calibrate", message=f"calibration engine: {step.message}")),
    )
    replay = TrtReplay(library, built.plan, gpu=target.index)
    try:
        for batch in Pass(images, signature, report, "ranges").batches(signature.batch):
            extremes.add(replay.run(batch), len(batch), signature.batch)
    finally:
        replay.close()
    return extremes.ranges(images.digest, "minmax", f"{library} on gpu:{target.index}")
