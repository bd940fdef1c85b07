"""Values that every test of the store and the builds needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vajra_edge.build.request import BuildRequest
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.report import BuildReport, OnnxReport, PlanReport
from vajra_edge.plans.spec import EngineSpec

SIGNATURE = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, ("person", "Fußgänger"))


@pytest.fixture
def manifest_of() -> Callable[[str], Manifest]:
    """Makes the manifest of a plan; each name has its own fingerprint."""

    def make(name: str) -> Manifest:
        request = BuildRequest(
            Path("/weights") / name, f"{ord(name[0]):064x}", "onnxruntime", EngineSpec(), Path("/s"), 1
        )
        return Manifest(
            fingerprint=Fingerprint.of(request, {"library": "onnxruntime 1.0"}),
            backend="onnxruntime",
            signature=SIGNATURE,
            wanted=request.spec,
            precision=request.spec.precision,
            target=request.spec.target,
            verify=None,
            report=BuildReport(PlanReport(onnx=OnnxReport("1.0", 3, "raw"))),
            weights_name=f"{name}.onnx",
            build_s=1.5,
            created_at="2026-11-22T00:00:00+00:00",
        )

    return make
