"""TensorRT calibration: ranges measured on the GPU that will run the plan, by an engine made for nothing else.

The engine is the FP32 graph, without TF32, whose tensors are its outputs; the host takes their extremes and means. (The
reductions of ``probes.extremes`` do not build: two hundred of them in one region have no implementation, 10.6.) What is
read back for one image is bounded, so that a large network takes several engines, each measuring a part.
MinMax of TensorRT's own calibrator gives the same: 136 tensors of VajraV1-nano differed by 4e-6 at the most.

Percentile and entropy need histograms: ONNX Runtime measures those, and whatever an engine here fails at; the ranges
say so.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from vajra_edge import device
from vajra_edge.engine import trt_library, trt_memory
from vajra_edge.engine.backend import Backend
from vajra_edge.engine.calibration import Inputs
from vajra_edge.engine.observation import Extremes, Pass, observe
from vajra_edge.engine.ranges import Observe, Range, Ranges
from vajra_edge.engine.replay import Outputs
from vajra_edge.engine.spec import EngineSpec, Precision, Target
from vajra_edge.engine.trt_graph import fixed
from vajra_edge.engine.trt_replay import TrtReplay
from vajra_edge.errors import BuildCancelled, EngineError, GraphError
from vajra_edge.graph import probes
from vajra_edge.graph.signature import Signature
from vajra_edge.graph.wiring import load, shapes
from vajra_edge.progress import Progress, Report

LEVEL = 0
"""Builder effort: the first tactic that works, for an engine that runs each image once and fuses nothing anyway."""

PART_SHARE, PART_LEAST_BYTES, PART_MOST_BYTES = 1 / 16, 128 << 20, 1 << 30
"""Of the free memory, what the tensors of one call may take: they are held on the GPU and again on the host, which on a
Jetson is the same memory. Each further part costs the start of a builder, 6 s on an H100."""

_FLOAT_BYTES = 4
_LOGGER = logging.getLogger(__name__)


def observer(backend: Backend, spec: EngineSpec) -> Observe:
    """Who measures ranges for a plan of TensorRT: itself where its GPU runs, else ONNX Runtime."""
    return functools.partial(_observe, backend, spec)


def _observe(
    backend: Backend,
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


def _unfit(backend: Backend, spec: EngineSpec, algorithm: str) -> str | None:
    if algorithm != "minmax":
        return f"{algorithm} needs histograms"
    return backend.cannot_run(spec)


def measure(
    backend: Backend, spec: EngineSpec, onnx_bytes: bytes, signature: Signature, images: Inputs, report: Report
) -> Ranges:
    """MinMax ranges by TensorRT engines that are built for it and let go.

    Args:
        backend: builds the engines.
        spec: of the plan that the ranges are for.
        onnx_bytes: the FP32 graph.
        signature: its signature; one image runs at a time, or as many as a static graph is made for.
        images: the calibration set.
        report: takes progress; may raise to stop.

    Raises:
        CalibrationError: an image cannot be read, the set is short, or a tensor is not finite.
        GraphError, BuildError, OutOfMemory: an engine cannot be built.
        PlanError, InferenceError: it cannot be run.
    """
    target = spec.target if spec.target.kind == "gpu" else Target("gpu")  # a DLA measures nothing
    wanted = replace(spec, precision=Precision.FP32, target=target, optimization_level=LEVEL, nms=None)
    single = replace(signature, batch=1) if signature.dynamic_batch else signature
    graph = fixed(load(onnx_bytes), single)
    free_bytes = trt_memory.look(target.index).free_bytes
    most_bytes = max(PART_LEAST_BYTES, min(int(free_bytes * PART_SHARE), PART_MOST_BYTES))
    parts = list(_parts(graph, onnx_bytes, most_bytes))
    found: dict[str, Range] = {}
    for number, tensors in enumerate(parts, 1):
        told = _of_part(report, number, len(parts))
        part = _measured(
            backend, wanted, graph, Extremes(onnx_bytes, single.resolution_hw, tensors), single, images, told
        )
        found |= part.tensors
    return replace(part, tensors=found)


def _parts(graph: bytes, onnx_bytes: bytes, most_bytes: int) -> Iterator[list[str]]:
    """The tensors to measure, no more than ``most_bytes`` at once where that can be; each part has one that is made."""
    model = load(graph)
    sizes, given = shapes(model), {entry.name for entry in model.graph.input}
    part: list[str] = []
    taken_bytes = 0
    for name in probes.measurable(onnx_bytes):
        size_bytes = 0 if name in given else _FLOAT_BYTES * prod(sizes.get(name, ()))
        if taken_bytes and taken_bytes + size_bytes > most_bytes:
            yield part
            part, taken_bytes = [], 0
        part.append(name)
        taken_bytes += size_bytes
    yield part


def _of_part(report: Report, number: int, parts: int) -> Report:
    def told(step: Progress) -> None:
        percent = None if step.percent is None else (100.0 * (number - 1) + step.percent) / parts
        message = step.message if parts == 1 else f"part {number} of {parts}, {step.message}"
        report(replace(step, stage="calibrate", percent=percent, message=message))

    return told


def _measured(
    backend: Backend,
    spec: EngineSpec,
    graph: bytes,
    extremes: Extremes,
    signature: Signature,
    images: Inputs,
    report: Report,
) -> Ranges:
    library, target = trt_library.load(), spec.target
    made = [name for name in extremes.tensors if name != signature.input_name]
    engine = probes.outputs(graph, made)
    quiet = _quiet(report)
    built = backend.build(engine, signature, spec, quiet)
    replay = TrtReplay(library, built.plan, gpu=target.index)
    with ThreadPoolExecutor(device.usable_cpus(), "extremes") as pool:
        try:
            for batch in Pass(images, signature, report, "ranges").batches(signature.batch):
                whole = np.concatenate([batch, np.repeat(batch[-1:], signature.batch - len(batch), axis=0)])
                tensors = {signature.input_name: whole, **replay.run(batch)}
                extremes.add(_reduced(extremes, tensors, pool), len(batch), signature.batch)
        finally:
            replay.close()
    return extremes.ranges(images.digest, "minmax", f"{library} on gpu:{target.index}")


def _quiet(report: Report) -> Report:
    """Of the building of an engine only that it goes on: its percent is not that of the images."""
    return lambda step: report(replace(step, percent=None, message=f"calibration engine: {step.message}", eta_s=None))


def _reduced(extremes: Extremes, tensors: Mapping[str, NDArray[np.float32]], pool: ThreadPoolExecutor) -> Outputs:
    """What ``probes.extremes`` would have made of these tensors."""
    rows: Sequence[tuple[np.float32, np.float32]] = list(
        pool.map(lambda name: (tensors[name].min(), tensors[name].max()), extremes.tensors)
    )
    means = pool.map(lambda name: tensors[name].mean(axis=tuple(range(2, tensors[name].ndim))), extremes.means)
    lows, highs = zip(*rows, strict=True)
    return {
        probes.LOW: np.array(lows, np.float32),
        probes.HIGH: np.array(highs, np.float32),
        **{probes.MEAN + name: mean for name, mean in zip(extremes.means, means, strict=True)},
    }
