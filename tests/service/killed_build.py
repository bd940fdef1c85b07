"""The build child with an ONNX Runtime whose INT8 builds the kernel kills, as on a board without memory for them."""

from __future__ import annotations

import os
import signal
import sys

from vajra_edge.engine import build, onnxrt
from vajra_edge.engine.backend import Built
from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Report


class Large(onnxrt.OnnxRuntime):
    """Has memory for FP32 only."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        if spec.precision is Precision.INT8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxrt.OnnxRuntime = Large  # type: ignore[misc]
sys.exit(build.main(sys.argv[1:]))
