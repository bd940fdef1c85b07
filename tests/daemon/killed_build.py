"""The build child with an ONNX Runtime whose INT8 builds the kernel kills, as on a board without memory for them."""

from __future__ import annotations

import os
import signal
import sys

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.build import worker
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.progress import Report


class Large(onnxruntime.OnnxRuntime):
    """Has memory for FP32 only."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        if spec.precision is Precision.INT8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxruntime.OnnxRuntime = Large  # type: ignore[misc]
sys.exit(worker.main(sys.argv[1:]))
