"""Calibration engine: ranges measured on the GPU that will run the plan, by an engine made for nothing else.

The engine is the FP32 graph, without TF32, whose tensors are its outputs; the host takes their extremes and means. (The
reductions of ``instrument.extremes`` do not build: two hundred in one region have no implementation, 10.6.) What is
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
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge import device
from vajra_edge.backends import cuda
from vajra_edge.backends.base import Backend
from vajra_edge.backends.cuda import DeviceBuffer, PinnedBuffer
from vajra_edge.backends.tensorrt import library as tensorrt_library
from vajra_edge.backends.tensorrt import limits
from vajra_edge.backends.tensorrt.library import Library
from vajra_edge.backends.tensorrt.log import LibraryLog, listening
from vajra_edge.backends.tensorrt.network import fixed
from vajra_edge.backends.tensorrt.runner import REBUILD, deserialise, dtype_of
from vajra_edge.errors import BuildCancelled, EngineError, GraphError, InferenceError, PlanError
from vajra_edge.graph.passes import instrument
from vajra_edge.graph.signature import Signature
from vajra_edge.graph.topology import load, shapes
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import Inputs
from vajra_edge.quantization.observer import Extremes, Outputs, Pass, observe
from vajra_edge.quantization.ranges import Observe, Range, Ranges


class TrtReplay:
    """One plan with one input and any outputs, all of fixed shapes. Opens on construction; close it.

    Args:
        library: the TensorRT that built the plan.
        plan: the serialized engine.
        gpu: CUDA's number of the device.

    Raises:
        PlanError: the library refuses the plan or a buffer.
        InferenceError: CUDA refuses; mostly for want of memory.
    """

    def __init__(self, library: Library, plan: bytes, *, gpu: int) -> None:
        self._library = library
        self._gpu = gpu
        self._lines = LibraryLog()
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._held = ExitStack()
        self._outputs: dict[str, tuple[DeviceBuffer, PinnedBuffer]] = {}
        try:
            with cuda.device(gpu):
                self._runtime, self._engine, self._context = deserialise(library, self._lines, plan)
                self._stream = self._held.enter_context(cuda.Stream())
                with listening(self._lines):
                    self._allocate()
        except BaseException:
            self.close()
            raise

    def run(self, batch: NDArray[np.float32]) -> Outputs:
        """Run (n, 3, H, W) RGB 0..1 with n up to the plan's batch; the last image fills what is left of it.

        Returns:
            All outputs by name; their content is valid until the next call.

        Raises:
            InferenceError: TensorRT or CUDA refuses.
        """
        cuda.call("cudaSetDevice", self._gpu)  # the current device is a thread's own
        there, here = self._input
        here.array[: len(batch)] = batch
        here.array[len(batch) :] = batch[-1]
        self._stream.copy(there.address, here.address, here.nbytes)
        with listening(self._lines):
            if not self._context.execute_async_v3(self._stream.handle):
                raise InferenceError(f"TensorRT refused to run: {self._lines.reason()}")
        for there, here in self._outputs.values():
            self._stream.copy(here.address, there.address, here.nbytes)
        self._stream.synchronize()
        return {name: here.array for name, (_, here) in self._outputs.items()}

    def close(self) -> None:
        """Release the plan, its memory and its stream; a second call does nothing."""
        self._context = self._engine = self._runtime = None
        self._held.close()

    def _allocate(self) -> None:
        trt = self._library.trt
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                self._input = self._buffers(name)
            else:
                self._outputs[name] = self._buffers(name)

    def _buffers(self, name: str) -> tuple[DeviceBuffer, PinnedBuffer]:
        shape = tuple(int(side) for side in self._context.get_tensor_shape(name))
        if min(shape, default=1) < 0:
            raise PlanError(f"the shape of tensor {name} is open: {shape}", remedy=REBUILD)
        here = self._held.enter_context(PinnedBuffer(shape, dtype_of(self._library, self._engine, name)))
        there = self._held.enter_context(DeviceBuffer(here.nbytes))
        if not self._context.set_tensor_address(name, there.address):
            raise PlanError(f"{self._library} refuses a buffer for {name}: {self._lines.reason()}", remedy=REBUILD)
        return there, here


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
    free_bytes = limits.look(target.index).free_bytes
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
    for name in instrument.measurable(onnx_bytes):
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
    library, target = tensorrt_library.load(), spec.target
    made = [name for name in extremes.tensors if name != signature.input_name]
    engine = instrument.outputs(graph, made)
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
    """What ``instrument.extremes`` would have made of these tensors."""
    rows: Sequence[tuple[np.float32, np.float32]] = list(
        pool.map(lambda name: (tensors[name].min(), tensors[name].max()), extremes.tensors)
    )
    means = pool.map(lambda name: tensors[name].mean(axis=tuple(range(2, tensors[name].ndim))), extremes.means)
    lows, highs = zip(*rows, strict=True)
    return {
        instrument.LOW: np.array(lows, np.float32),
        instrument.HIGH: np.array(highs, np.float32),
        **{instrument.MEAN + name: mean for name, mean in zip(extremes.means, means, strict=True)},
    }
