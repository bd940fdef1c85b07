"""Prove: build a plan, put it through the gate, and step to the next higher precision where it fails."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from vajra_edge.engine import onnxrt, verify
from vajra_edge.engine.backend import Backend, Built, Report
from vajra_edge.engine.request import BuildRequest
from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.engine.stages import Stages
from vajra_edge.engine.verify import VerifyReport
from vajra_edge.errors import VerifyError
from vajra_edge.graph.signature import Signature

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proved:
    """A plan that may serve.

    Attributes:
        built: the plan.
        verdict: of the gate.
        rejected: what the gate refused before it: precision, reason and report each.
    """

    built: Built
    verdict: VerifyReport
    rejected: tuple[dict[str, Any], ...]


def prove(request: BuildRequest, backend: Backend, graph: bytes, signature: Signature, stages: Stages) -> Proved:
    """Build and verify; a plan that fails gives way to the next higher precision, if the settings allow it.

    Args:
        request: what is wanted.
        backend: builds and runs it.
        graph: FP32, from ``graph.prepare``.
        signature: of the graph.
        stages: told what is being done.

    Raises:
        VerifyError: no precision that may be used agrees with the reference.
        BuildError, InferenceError: the backend failed.
    """
    wanted = request.spec.precision
    rungs = (wanted, *(wanted.fallbacks if request.spec.allow_lower_precision else ()))
    rejected: list[dict[str, Any]] = []
    for rung in rungs:
        spec = replace(request.spec, precision=rung)
        if rejected and backend.check(spec) is not None:
            continue
        with stages("build", f"building {rung.value} for {spec.target} with {backend.name}"):
            built = backend.build(graph, signature, spec, stages.report)
        try:
            with stages("verify", "comparing with the FP32 reference"):
                verdict = _verdict(request, backend, graph, signature, spec, built, stages.report)
                return Proved(built, verdict, tuple(rejected))
        except VerifyError as error:
            _LOGGER.warning("the %s plan is not used: %s", rung.value, error)
            rejected.append({"precision": rung.value, "reason": str(error), "report": error.values.get("report")})
            refusal = error
    raise refusal


def _verdict(
    request: BuildRequest,
    backend: Backend,
    graph: bytes,
    signature: Signature,
    spec: EngineSpec,
    built: Built,
    report: Report,
) -> VerifyReport:
    """The gate.

    Raises:
        VerifyError: the plan does not agree, or is INT8 and could not be judged.
    """
    achieved = replace(spec, precision=built.precision, target=built.target)
    bounds = verify.BOUNDS[built.precision]
    if (reason := backend.cannot_run(achieved)) is not None:
        return verify.not_run(reason, bounds)
    frames = verify.reference_frames(request.frames)
    reference = onnxrt.reference(graph, signature, threads=request.threads)
    candidate = backend.load(built.plan, signature, achieved)
    try:
        verdict = verify.verify(candidate, reference, frames, bounds, report)
    finally:
        candidate.close()
        reference.close()
    if built.precision is Precision.INT8 and not verdict.judged:
        raise VerifyError(verdict.reason, remedy="int8 is not used until it can be judged", report=verdict.to_json())
    return verdict
