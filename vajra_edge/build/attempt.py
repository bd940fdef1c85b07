"""Attempt: one way to a plan, from the FP32 graph to a plan that passed its accuracy check; plans timed by turns."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Backend, Built, Int8Graph, Runner
from vajra_edge.build import accuracy_check, preparation, reference_frames
from vajra_edge.build.progress import Clock, Stages
from vajra_edge.build.reference_frames import Frames
from vajra_edge.build.request import BuildRequest
from vajra_edge.build.rung import Rung
from vajra_edge.errors import CalibrationError, OutOfMemory, VerifyError
from vajra_edge.geometry.preparation import Preparation
from vajra_edge.graph.dla import ranges as dla_ranges
from vajra_edge.graph.passes import qdq, tensorrt_rules
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.graph.topology import Wiring, load
from vajra_edge.plans import caches
from vajra_edge.plans.report import Int8Report, VerifyReport
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.progress import Progress
from vajra_edge.quantization.calibration_set import CalibrationSet, Holdout
from vajra_edge.quantization.layer_search import WORST, drift
from vajra_edge.quantization.ptq import Calibration, prepare_int8, ranges_for
from vajra_edge.quantization.ranges import RangeCache

CALLS = 30
"""Timed of each plan; the median is what counts."""

WARM_UP = 3
"""Calls before them: the first ones load kernels and raise clocks."""


def by_turns(
    first: Runner,
    second: Runner,
    batch: NDArray[np.float32],
    calls: int = CALLS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median time of one call of each, in ms.

    Args:
        first: one plan.
        second: another one with the same input.
        batch: (n, 3, H, W) RGB 0..1, given to both.
        calls: timed of each.
        clock: seconds, monotonic.

    Raises:
        InferenceError: a runner failed.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + calls):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            before_s = clock()
            (first, second)[which].infer(batch)
            if number >= WARM_UP:
                taken[which].append(1e3 * (clock() - before_s))
    return statistics.median(taken[0]), statistics.median(taken[1])


REFUSED = "the library refuses it in INT8"
"""Reason of a layer outside INT8, for the manifest."""

FAITHFUL_IMAGES = 16
"""Held-out images on which a plan's own drift is measured; both outputs of each are held (640 px, 80 classes: 6 MB)."""


@dataclass(frozen=True)
class Graph:
    """An FP32 graph and what its tensors mean."""

    onnx_bytes: bytes
    signature: Signature


@dataclass(frozen=True)
class Passed:
    """A plan that passed its accuracy check.

    Attributes:
        rung: the way to it.
        built: the plan.
        verdict: of the accuracy check.
        signature: of the graph that it was built from.
        build_s: what the library took.
    """

    rung: Rung
    built: Built
    verdict: VerifyReport
    signature: Signature
    build_s: float


class Attempts:
    """Tries rungs. What one learns about layers serves those after it.

    Args:
        request: what is wanted.
        backend: builds and runs it.
        graph: FP32, with NMS or without, as the specification asks.
        stages: told what is being done.
        images: for INT8; some are held out for the accuracy check.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        request: BuildRequest,
        backend: Backend,
        graph: Graph,
        stages: Stages,
        images: Holdout | None,
        clock: Clock,
    ) -> None:
        self.request, self.backend, self.stages = request, backend, stages
        self._graph, self._images, self._clock = graph, images, clock
        self._high: dict[str, str] = {}
        self._choice = Int8Report()

    def passed(self, rung: Rung, *, fresh: bool) -> Passed:
        """Build and verify.

        Args:
            rung: the way.
            fresh: measure INT8 ranges even where a cache has them.

        Raises:
            VerifyError: the plan does not agree; ``values["plan"]`` is the plan's report.
            BuildError, GraphError, UnsupportedSpec: it cannot be built.
            PlanError, InferenceError: it does not load or run.
            OutOfMemory: the memory did not suffice.
            CalibrationError: the images are failing, or INT8 has none.
        """
        try:
            spec = rung.of(self.request.spec)
            before, int8 = self._prepared(rung, spec, fresh=fresh)
            began_s = self._clock()
            built = self._built(before, spec, int8, fresh=fresh)
            build_s = self._clock() - began_s
            return Passed(rung, built, self._verdict(spec, built), self._graph.signature, build_s)
        except MemoryError as error:
            raise OutOfMemory("the build ran out of memory", remedy="free memory and try again") from error

    def timed(self, first: Passed, second: Passed) -> tuple[float, float]:
        """Median time of one full batch of each plan in ms, by turns.

        Raises:
            PlanError, InferenceError, BackendUnavailable: one of them does not load or run.
        """
        with self.stages("verify", "timing int8 and fp16"), contextlib.ExitStack() as held:
            runners = [held.enter_context(contextlib.closing(self._loaded(one))) for one in (first, second)]
            signature, spec = first.signature, _achieved(first.rung.of(self.request.spec), first.built)
            prepares = held.enter_context(self._preparation(spec)).for_input(signature.resolution_hw)
            batch = np.empty((signature.batch, 3, *signature.resolution_hw), np.float32)
            prepares.apply(next(iter(self._frames().images)), batch[0])
            batch[1:] = batch[0]
            return by_turns(runners[0], runners[1], batch)

    def refused_layers(self, rung: Rung, names: Iterable[str]) -> frozenset[str]:
        """Keys of the layers in INT8 that an error's names speak of, besides those that are out of it already."""
        wiring = Wiring(load(self._graph.onnx_bytes))
        placed = qdq.place(wiring, {**self._known(), **dict.fromkeys(sorted(rung.high), REFUSED)})
        return tensorrt_rules.in_int8(wiring, placed, names)

    @property
    def cache(self) -> RangeCache:
        """Where ranges are kept."""
        return RangeCache(self.request.state_dir / caches.RANGES.path)

    def _prepared(self, rung: Rung, spec: EngineSpec, *, fresh: bool) -> tuple[bytes, Int8Report | None]:
        """The graph in the form that the backend takes. FP16 and FP32 are every backend's own affair."""
        if spec.precision is not Precision.INT8:
            return self._graph.onnx_bytes, None
        if self._images is None:
            raise CalibrationError("int8 has no calibration images", remedy="name some, or ask for fp16")
        if rung.quantization == "calibrator":
            return self._graph.onnx_bytes, None
        with (
            self.stages("calibrate", f"calibrating on {len(self._images.fitted)} images"),
            self._calibrating(self._images.fitted, spec) as images,
        ):
            return self._int8(rung, spec, self._calibration(spec, images, fresh=fresh))

    def _calibration(self, spec: EngineSpec, images: CalibrationSet, *, fresh: bool) -> Calibration:
        wanted = self.request.calibration
        return Calibration(
            images,
            algorithm=wanted.algorithm,
            cache=self.cache,
            reuse=wanted.reuse,
            fresh=fresh,
            threads=self.request.threads,
            fused=self.backend.int8_graph(spec) is Int8Graph.QOPERATOR,
            observe=self.backend.observer(spec),
        )

    def _int8(self, rung: Rung, spec: EngineSpec, calibration: Calibration) -> tuple[bytes, Int8Report]:
        graph = self._graph
        if self.backend.int8_graph(spec) is Int8Graph.RANGES:
            ranges, source = ranges_for(graph.onnx_bytes, graph.signature, calibration, self.stages.report)
            return dla_ranges.attach(graph.onnx_bytes, ranges.amax()), Int8Report(ranges=source)
        refused = dict.fromkeys(sorted(rung.high), REFUSED)
        if known := self._known():  # choosing takes minutes, and would end with the same layers
            calibration = replace(calibration, keep={**known, **refused}, search=False)
            made, told = prepare_int8(graph.onnx_bytes, graph.signature, calibration, self.stages.report)
            earlier = self._choice
            return made, replace(told, chosen=earlier.chosen, curve=earlier.curve, costliest=earlier.costliest)
        calibration = replace(calibration, keep=refused)
        made, told = prepare_int8(graph.onnx_bytes, graph.signature, calibration, self.stages.report)
        self._high, self._choice = dict(told.high or {}), told
        return made, told

    def _known(self) -> dict[str, str]:
        """Layers that an earlier attempt left out of INT8, by key; none where the graph has not all of them."""
        if not self._high:
            return {}
        keys = tensorrt_rules.keys_of(Wiring(load(self._graph.onnx_bytes)), self._high)
        return {keys[name]: reason for name, reason in self._high.items()} if len(keys) == len(self._high) else {}

    def _built(self, onnx_bytes: bytes, spec: EngineSpec, int8: Int8Report | None, *, fresh: bool) -> Built:
        report, signature = self.stages.report, self._graph.signature
        with self.stages("build", f"building for {spec.target} with {self.backend.name}"):
            if spec.precision is Precision.INT8 and spec.quantization == "calibrator" and self._images is not None:
                with self._calibrating(self._images.fitted, spec) as images:
                    built = self.backend.build(onnx_bytes, signature, spec, report, images=images, fresh=fresh)
            else:
                built = self.backend.build(onnx_bytes, signature, spec, report)
        return replace(built, report=replace(built.report, int8=int8))

    def _verdict(self, spec: EngineSpec, built: Built) -> VerifyReport:
        """The accuracy check, where the plan can run here.

        Raises:
            VerifyError: the plan does not agree, or is INT8 and could not be judged.
        """
        if (reason := self.backend.cannot_run(_achieved(spec, built))) is not None:
            return accuracy_check.not_run(reason, accuracy_check.BOUNDS[built.precision])
        try:
            return self._judged(spec, built)
        except VerifyError as error:
            error.values["plan"] = built.report
            self._high = {}  # perhaps chosen by ranges that ruined the plan
            raise

    def _judged(self, spec: EngineSpec, built: Built) -> VerifyReport:
        graph, bounds = self._graph, accuracy_check.BOUNDS[built.precision]
        with self.stages("verify", "comparing with the FP32 reference"), contextlib.ExitStack() as held:
            reference = onnxruntime.reference(graph.onnx_bytes, graph.signature, threads=self.request.threads)
            held.callback(reference.close)
            candidate = self.backend.load(built.plan, graph.signature, _achieved(spec, built))
            held.callback(candidate.close)
            prepared = held.enter_context(self._preparation(_achieved(spec, built)))
            frames, report = self._frames(), self.stages.report
            verdict = accuracy_check.verify(candidate, reference, frames, bounds, report, prepared.kernel)
            if built.precision is Precision.INT8 and graph.signature.layout is Layout.RAW:
                self._require_faithful(candidate, reference, prepared)
        if built.precision is Precision.INT8 and not verdict.figures.judged:
            remedy = "int8 is not used until it can be judged"
            raise VerifyError(verdict.figures.reason, remedy=remedy, report=verdict)
        return verdict

    def _preparation(self, spec: EngineSpec) -> contextlib.AbstractContextManager[Preparation]:
        """What prepares frames when a plan of ``spec`` serves."""
        return preparation.production(self.backend, spec, self._graph.signature, self.request.state_dir)

    @contextlib.contextmanager
    def _calibrating(self, images: CalibrationSet, spec: EngineSpec) -> Iterator[CalibrationSet]:
        """Images for calibrating, as the plan gets its frames in service."""
        with self._preparation(spec) as prepared:
            yield replace(images, preparation=prepared)

    def _require_faithful(self, candidate: Runner, reference: Runner, prepared: Preparation) -> None:
        """What the plan itself computes, anchor by anchor; the choice of layers knew only what ONNX Runtime would.

        The accuracy check counts boxes, which stay matched while points are lost: TensorRT's calibrator passed it with
        VajraV1-nano and cost 2 points of mAP50-95, with YOLOX-nano 34 (10.6).

        Raises:
            VerifyError: the drift is beyond ``layer_search.WORST``.
            CalibrationError: an image cannot be read.
        """
        images = self._images and (self._images.judged or self._images.fitted)
        if not images:
            return
        outputs: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        shown = replace(images.some(FAITHFUL_IMAGES), preparation=prepared)
        for image in shown.inputs(reference.signature.resolution_hw):
            outputs.append((reference.infer(image)[0].copy(), candidate.infer(image)[0].copy()))
            self.stages.report(Progress("verify", None, f"measuring drift: image {len(outputs)}"))
        found = drift([expected for expected, _ in outputs], [made for _, made in outputs])
        if not found.within(WORST):
            raise VerifyError(
                f"the int8 plan drifts from FP32 by {found.score:.3f} in scores and {found.box:.3f} in boxes on "
                f"{len(outputs)} images of {images.source}, over the limits of {WORST.score:g} and {WORST.box:g}",
                remedy="choose a higher precision, or calibrate on images of the scene",
                drift=found,
            )

    def _loaded(self, one: Passed) -> Runner:
        spec = one.rung.of(self.request.spec)
        return self.backend.load(one.built.plan, one.signature, _achieved(spec, one.built))

    def _frames(self) -> Frames:
        held_out = self._images.judged if self._images else None
        if self.request.frames is None and held_out is not None:
            return reference_frames.of_dataset(held_out.pictures, f"{held_out.source} (held out of calibration)")
        cameras = self.request.calibration.cameras
        return reference_frames.frames_of(self.request.frames, self.request.state_dir, cameras=cameras)


def _achieved(spec: EngineSpec, built: Built) -> EngineSpec:
    return replace(spec, precision=built.precision, target=built.target)
