"""An ONNX file as a backend: its plan is the graph itself, in the wanted precision, for any library to run.

It lets ``format=onnx`` go through the same builds and the same accuracy check as every other plan.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from vajra_edge.backends.base import Built, Int8Graph, Runner
from vajra_edge.backends.device_runner import DeviceRunner
from vajra_edge.backends.onnxruntime import OnnxRuntime, calibrator_missing
from vajra_edge.errors import EngineError, UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.report import NO_PLAN
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Report
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.ptq import prepare_half
from vajra_edge.quantization.ranges import Observe

_LOGGER = logging.getLogger(__name__)


class OnnxFile:
    """The backend; ONNX Runtime runs what it makes."""

    name = "onnx"

    def __init__(self) -> None:
        self._runtime = OnnxRuntime()

    def nms_inside(self, target: Target) -> bool:
        """Wherever it is asked for: a file runs anywhere."""
        del target
        return True

    def auto_target(self) -> Target:
        """The CPU, where the accuracy check runs it; the file runs anywhere."""
        return Target("cpu")

    def auto_precision(self, target: Target) -> Precision:
        """FP32, that of the weights."""
        del target
        return Precision.FP32

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        """Of the library that runs it here."""
        return self._runtime.identity(spec)

    def check(self, spec: EngineSpec) -> EngineError | None:
        """Why ONNX Runtime cannot run ``spec`` here; its precision is in the graph and hinders nothing."""
        return calibrator_missing(spec) or self._runtime.check(replace(spec, precision=Precision.FP32))

    def cannot_run(self, spec: EngineSpec) -> str | None:
        """ONNX Runtime runs every graph that is made here."""
        return self._runtime.cannot_run(spec)

    def routes(self, spec: EngineSpec) -> tuple[str, ...]:
        """Q/DQ nodes are what INT8 looks like in a file."""
        del spec
        return ("qdq",)

    def compares_speed(self, spec: EngineSpec) -> bool:
        """No: the file will run elsewhere."""
        del spec
        return False

    def simplifies(self, spec: EngineSpec) -> bool:
        """No: the file is the graph as it was made."""
        del spec
        return False

    def int8_graph(self, spec: EngineSpec) -> Int8Graph:
        """Q/DQ nodes, which every library reads."""
        del spec
        return Int8Graph.QDQ

    def observer(self, spec: EngineSpec) -> Observe:
        """ONNX Runtime."""
        return self._runtime.observer(spec)

    def build(
        self,
        onnx_bytes: bytes,
        signature: Signature,
        spec: EngineSpec,
        report: Report,
        *,
        images: CalibrationSet | None = None,
        fresh: bool = False,
    ) -> Built:
        """The graph in the precision of ``spec``; one for INT8 comes with Q/DQ nodes, or without where no layer gains.

        Raises:
            GraphError: it cannot be converted.
        """
        del signature, report, images, fresh
        if spec.precision is Precision.FP16:
            onnx_bytes = prepare_half(onnx_bytes)
        inside = precision_of(onnx_bytes)
        if inside is not spec.precision:
            _LOGGER.warning("no layer of this network gains from %s: it stays %s", spec.precision.value, inside.value)
        return Built(onnx_bytes, inside, spec.target, NO_PLAN)

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> Runner:
        """Open the graph in ONNX Runtime.

        Raises:
            PlanError: it is refused.
        """
        return self._runtime.load(plan, signature, spec)

    def computes_on_gpu(self, spec: EngineSpec) -> int | None:
        """None: here it runs on the CPU."""
        del spec
        return None

    def load_on_gpu(self, plan: bytes, signature: Signature, spec: EngineSpec) -> DeviceRunner:
        """Never asked for, see ``computes_on_gpu``."""
        del plan, signature
        raise UnsupportedSpec(f"an ONNX file is run on the CPU here, not on {spec.target}")


def precision_of(onnx_bytes: bytes) -> Precision:
    """The lowest precision that an ONNX graph computes in.

    Raises:
        GraphError: not ONNX.
    """
    import onnx

    from vajra_edge.graph.topology import parse

    graph = parse(onnx_bytes).graph
    if any(node.op_type == "DequantizeLinear" for node in graph.node):
        return Precision.INT8
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return Precision.FP16 if half else Precision.FP32
