"""The build child with an ONNX Runtime that refuses INT8 after a while, as TensorRT refuses some networks."""

from __future__ import annotations

import sys

from vajra_edge.engine import build, onnxrt
from vajra_edge.engine.backend import Built
from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.errors import BuildError
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Progress, Report


class Refusing(onnxrt.OnnxRuntime):
    """Has no tactic for INT8."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        if spec.precision is Precision.INT8:
            report(Progress("build", 60.0, "choosing tactics"))
            raise BuildError("no tactic for node mean2", layer="no such layer")
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxrt.OnnxRuntime = Refusing  # type: ignore[misc]
sys.exit(build.main(sys.argv[1:]))
