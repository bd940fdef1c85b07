"""The build child with an ONNX Runtime that lacks the memory for INT8 until a file says otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.build import worker
from vajra_edge.errors import OutOfMemory
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.progress import Report

ENOUGH = Path(sys.argv[1])
"""There is memory once this file exists."""


class Short(onnxruntime.OnnxRuntime):
    """Has no memory for INT8."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        if spec.precision is Precision.INT8 and not ENOUGH.exists():
            raise OutOfMemory("too little memory", remedy="stop other programs")
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxruntime.OnnxRuntime = Short  # type: ignore[misc]
sys.exit(worker.main(sys.argv[2:]))
