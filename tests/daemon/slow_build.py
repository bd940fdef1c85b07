"""The build child with an ONNX Runtime that takes its time over one precision, as TensorRT does."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.build import worker
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.progress import Progress, Report

GO, SLOW = Path(sys.argv[1]), Precision(sys.argv[2])
"""Plans of this precision are not done before this file exists."""


class Slow(onnxruntime.OnnxRuntime):
    """Builds ``SLOW`` slowly, with progress."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        percent = 0.0
        while spec.precision is SLOW and not GO.exists():
            percent = min(percent + 0.1, 99.0)
            report(Progress("build", percent, "choosing tactics"))
            time.sleep(0.05)
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxruntime.OnnxRuntime = Slow  # type: ignore[misc]
sys.exit(worker.main(sys.argv[3:]))
