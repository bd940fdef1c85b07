"""Prove: build a plan, put it through the gate, and step to the next higher precision where it fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vajra_edge.engine import evidence, leftovers, onnxrt, trt_calibration, verify
from vajra_edge.engine.backend import Backend, Built
from vajra_edge.engine.calibration import CalibrationSet
from vajra_edge.engine.evidence import Frames
from vajra_edge.engine.holdout import Holdout
from vajra_edge.engine.prepare import MEASURED_NOW, Calibration, Notes, prepare_int8, ranges_for
from vajra_edge.engine.ranges import RangeCache
from vajra_edge.engine.request import BuildRequest
from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.engine.stages import Stages
from vajra_edge.engine.trt import TensorRT
from vajra_edge.engine.verify import VerifyReport
from vajra_edge.errors import CalibrationError, VerifyError
from vajra_edge.graph import dla_ranges
from vajra_edge.graph.signature import Signature

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proved:
    """A plan that may serve.

    Attributes:
        built: the plan.
        verdict: of the gate.
        rejected: what the gate refused before it: precision, reason, report and notes each.
    """

    built: Built
    verdict: VerifyReport
    rejected: tuple[dict[str, Any], ...]


def prove(
    request: BuildRequest,
    backend: Backend,
    graph: bytes,
    signature: Signature,
    stages: Stages,
    images: CalibrationSet | None = None,
) -> Proved:
    """Build and verify; a plan that fails gives way to the next higher precision, if the settings allow it.

    Args:
        request: what is wanted.
        backend: builds and runs it.
        graph: FP32, with NMS where it is wanted.
        signature: of the graph.
        stages: told what is being done.
        images: for INT8; some of them are held out for the gate. None for any other precision.

    Raises:
        VerifyError: no precision that may be used agrees with the reference.
        CalibrationError: the images are failing, or INT8 has none.
        BuildError, InferenceError: the backend failed.
    """
    return _Attempts(request, backend, graph, signature, stages, Holdout.of(images) if images else None).run()


@dataclass(frozen=True)
class _Attempts:
    """One build's way along the ladder."""

    request: BuildRequest
    backend: Backend
    graph: bytes
    signature: Signature
    stages: Stages
    images: Holdout | None

    def run(self) -> Proved:
        wanted = self.request.spec
        rungs = (wanted.precision, *(wanted.precision.fallbacks if wanted.allow_lower_precision else ()))
        rejected: list[dict[str, Any]] = []
        for rung in rungs:
            spec = replace(wanted, precision=rung)
            if rejected and self.backend.check(spec) is not None:
                continue
            try:
                return self._proved(spec, rejected)
            except VerifyError as error:
                refusal = error
        raise refusal

    def _proved(self, spec: EngineSpec, rejected: list[dict[str, Any]]) -> Proved:
        """One precision; where its ranges were kept from an earlier build it is tried once more with fresh ones."""
        try:
            return self._attempt(spec, rejected, fresh=self.request.force)
        except VerifyError:
            if _ranges(rejected[-1]).get("source", MEASURED_NOW) == MEASURED_NOW or not _disagrees(rejected[-1]):
                raise
        _LOGGER.warning("measuring the ranges anew")
        return self._attempt(spec, rejected, fresh=True)

    def _attempt(self, spec: EngineSpec, rejected: list[dict[str, Any]], *, fresh: bool) -> Proved:
        """Build and verify; what is refused is added to ``rejected``, and its ranges are forgotten."""
        notes: Notes = {}
        try:
            built = self._build(spec, fresh=fresh)
            notes = dict(built.notes)
            return Proved(built, self._verdict(spec, built), tuple(rejected))
        except VerifyError as error:
            _LOGGER.warning("the %s plan is not used: %s", spec.precision.value, error)
            known = {"report": error.values.get("report"), "notes": notes or error.values.get("notes", {})}
            made = {"precision": spec.precision.value, "reason": str(error), **known}
            rejected.append(made)
            if (key := _ranges(made).get("key")) and _disagrees(made):
                self._cache.drop(key)
            raise

    @property
    def _cache(self) -> RangeCache:
        return RangeCache(self.request.state_dir / leftovers.RANGES.path)

    def _build(self, spec: EngineSpec, *, fresh: bool) -> Built:
        graph, notes = self.graph, Notes()
        if spec.precision is Precision.INT8:
            if self.images is None:
                raise CalibrationError("int8 has no calibration images", remedy="name some, or ask for fp16")
            with self.stages("calibrate", f"calibrating on {len(self.images.fitted)} images"):
                graph, notes = self._int8(spec, self.images, fresh=fresh)
        with self.stages("build", f"building {spec.precision.value} for {spec.target} with {self.backend.name}"):
            built = self.backend.build(graph, self.signature, spec, self.stages.report)
        return replace(built, notes={**built.notes, "int8": notes}) if notes else built

    def _int8(self, spec: EngineSpec, images: Holdout, *, fresh: bool) -> tuple[bytes, Notes]:
        """The graph in the form of INT8 that the backend takes. FP16 and FP32 are every backend's own affair."""
        wanted = self.request.calibration
        calibration = Calibration(
            images.fitted,
            algorithm=wanted.algorithm,
            cache=self._cache,
            reuse=wanted.reuse,
            fresh=fresh,
            threads=self.request.threads,
            fused=isinstance(self.backend, onnxrt.OnnxRuntime),
            observe=trt_calibration.observer(self.backend, spec),
        )
        if isinstance(self.backend, TensorRT) and self.backend.wants_ranges(spec):
            ranges, source = ranges_for(self.graph, self.signature, calibration, self.stages.report)
            return dla_ranges.attach(self.graph, ranges.amax()), {"ranges": source}
        return prepare_int8(self.graph, self.signature, calibration, self.stages.report)

    def _verdict(self, spec: EngineSpec, built: Built) -> VerifyReport:
        """The gate.

        Raises:
            VerifyError: the plan does not agree, or is INT8 and could not be judged.
        """
        achieved = replace(spec, precision=built.precision, target=built.target)
        bounds = verify.BOUNDS[built.precision]
        if (reason := self.backend.cannot_run(achieved)) is not None:
            return verify.not_run(reason, bounds)
        with self.stages("verify", "comparing with the FP32 reference"):
            reference = onnxrt.reference(self.graph, self.signature, threads=self.request.threads)
            candidate = self.backend.load(built.plan, self.signature, achieved)
            try:
                verdict = verify.verify(candidate, reference, self._frames(), bounds, self.stages.report)
            finally:
                candidate.close()
                reference.close()
        if built.precision is Precision.INT8 and not verdict.judged:
            remedy = "int8 is not used until it can be judged"
            raise VerifyError(verdict.reason, remedy=remedy, report=verdict.to_json())
        return verdict

    def _frames(self) -> Frames:
        held_out = self.images.judged if self.images else None
        if self.request.frames is None and held_out is not None:
            return evidence.of_dataset(held_out.pictures, f"{held_out.source} (held out of calibration)")
        cameras = self.request.calibration.cameras
        return evidence.frames_of(self.request.frames, self.request.state_dir, cameras=cameras)


def _ranges(rejected: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the ranges of a refused plan came from; empty unless it is INT8."""
    found: Mapping[str, Any] = rejected["notes"].get("int8", {}).get("ranges", {})
    return found


def _disagrees(rejected: Mapping[str, Any]) -> bool:
    """Whether a plan was refused for what it finds; one that could not be judged says nothing of its ranges."""
    report = rejected["report"]
    return report is None or bool(report["judged"])
