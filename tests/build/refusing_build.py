"""The build child with an ONNX Runtime that refuses INT8 after a while, as TensorRT refuses some networks."""

from __future__ import annotations

import sys

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.build import worker
from vajra_edge.errors import BuildError
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.progress import Progress, Report


class Refusing(onnxruntime.OnnxRuntime):
    """Has no tactic for INT8."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        if spec.precision is Precision.INT8:
            report(Progress("build", 60.0, "choosing tactics"))
            raise BuildError("no tactic for node mean2", layer="no such layer")
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxruntime.OnnxRuntime = Refusing  # type: ignore[misc]
sys.exit(worker.main(sys.argv[1:]))
