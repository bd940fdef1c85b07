"""Plans put into a store as a build would, without building."""

from __future__ import annotations

from pathlib import Path

import tiny

from vajra_edge.build.request import BuildRequest
from vajra_edge.daemon.reconciler import DesiredPlan
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.report import BuildReport
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.plans.store import EngineStore

SIGNATURE = Signature("images", "output0", Layout.RAW, 1, (256, 256), False, False, 32, tiny.NAMES)


def plan_manifest(weights: str) -> Manifest:
    """Of a plan of weights that nobody has; each name has its own fingerprint."""
    request = BuildRequest(Path("/w") / weights, f"{ord(weights[0]):064x}", "onnxruntime", EngineSpec(), Path("/s"), 1)
    return Manifest(
        fingerprint=Fingerprint.of(request, {"library": "onnxruntime 1.0"}),
        backend="onnxruntime",
        signature=SIGNATURE,
        wanted=request.spec,
        precision=request.spec.precision,
        target=request.spec.target,
        verify=None,
        report=BuildReport(),
        weights_name=f"{weights}.onnx",
        build_s=1.0,
        created_at="2026-11-22T00:00:00+00:00",
    )


def commit(store: EngineStore, desired: DesiredPlan) -> str:
    """Store a plan under a desired plan's fingerprint, as its build would."""
    spec = desired.request.spec
    manifest = Manifest(
        fingerprint=desired.fingerprint,
        backend=desired.request.backend,
        signature=SIGNATURE,
        wanted=spec,
        precision=spec.precision,
        target=spec.target,
        verify=None,
        report=BuildReport(),
        weights_name="net.onnx",
        build_s=1.0,
        created_at="2026-11-22T00:00:00+00:00",
    )
    return store.commit(b"plan", manifest).fingerprint
