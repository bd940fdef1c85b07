"""The build child with an ONNX Runtime that takes its time over INT8, as TensorRT does; for the first boot."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vajra_edge.engine import build, onnxrt
from vajra_edge.engine.backend import Built
from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.graph.signature import Signature
from vajra_edge.progress import Progress, Report

GO = Path(sys.argv[1])
"""INT8 is not done before this file exists."""


class Slow(onnxrt.OnnxRuntime):
    """Builds INT8 slowly, with progress."""

    def build(
        self, onnx_bytes: bytes, signature: Signature, spec: EngineSpec, report: Report, **options: object
    ) -> Built:
        percent = 0.0
        while spec.precision is Precision.INT8 and not GO.exists():
            percent = min(percent + 0.1, 99.0)
            report(Progress("build", percent, "choosing tactics"))
            time.sleep(0.05)
        return super().build(onnx_bytes, signature, spec, report, **options)


onnxrt.OnnxRuntime = Slow  # type: ignore[misc]
sys.exit(build.main(sys.argv[2:]))
