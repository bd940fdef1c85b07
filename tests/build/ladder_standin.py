"""A library that refuses, takes its time and runs out of memory as it is told, over a real ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vajra_edge.backends import onnxruntime
from vajra_edge.backends.base import Built
from vajra_edge.errors import EngineError
from vajra_edge.graph.signature import Signature
from vajra_edge.graph.topology import load
from vajra_edge.plans.spec import EngineSpec, Precision
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import CalibrationSet

BUILD_S = 100.0


@dataclass
class Clock:
    """Seconds that pass when somebody says so."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Asked:
    """One call of ``build``."""

    rung: str
    images: int | None
    fresh: bool
    quantized: frozenset[str]


@dataclass
class Standin(onnxruntime.OnnxRuntime):
    """The library.

    Attributes:
        answers: what happens to a rung, build after build: an exception to raise, or None; None for good at the end.
        ways: see ``Backend.routes``.
        compares: see ``Backend.compares_speed``.
        slow_s: what the build of a rung takes.
        loads: an exception for the plan of a rung that does not load.
        forbidden: see ``Backend.check``, by precision.
        asked: what was built, in order.
    """

    clock: Clock = field(default_factory=Clock)
    answers: Mapping[str, list[Exception | None]] = field(default_factory=dict)
    ways: tuple[str, ...] = ("qdq", "calibrator")
    compares: bool = False
    slow_s: Mapping[str, float] = field(default_factory=dict)
    loads: Mapping[str, Exception] = field(default_factory=dict)
    forbidden: Mapping[str, EngineError] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    release: str = "standin 1.0"
    threads: int | None = 1

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        return {"library": self.release}

    def check(self, spec: EngineSpec) -> EngineError | None:  # type: ignore[override]
        return self.forbidden.get(spec.precision.value)

    def routes(self, spec: EngineSpec) -> tuple[str, ...]:
        return self.ways if spec.quantization == "auto" else (spec.quantization,)

    def compares_speed(self, spec: EngineSpec) -> bool:
        return self.compares

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
        rung = rung_of(spec)
        self.asked.append(Asked(rung, None if images is None else len(images), fresh, quantized(onnx_bytes)))
        for part in range(1, 5):
            self.clock.now_s += self.slow_s.get(rung, BUILD_S) / 4
            report(Progress("build", 25.0 * part, "choosing tactics", self.slow_s.get(rung, BUILD_S) * (1 - part / 4)))
        answers = self.answers.get(rung, [])
        answer = answers.pop(0) if answers else None
        if answer is not None:
            raise answer
        built = super().build(onnx_bytes, signature, replace(spec, precision=Precision.FP32), lambda _: None)
        return replace(built, precision=spec.precision)

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> onnxruntime.OnnxRunner:
        if (error := self.loads.get(rung_of(spec))) is not None:
            raise error
        return super().load(plan, signature, spec)

    @property
    def rungs(self) -> list[str]:
        """What was built, in order."""
        return [one.rung for one in self.asked]


def rung_of(spec: EngineSpec) -> str:
    way = spec.quantization if spec.precision is Precision.INT8 else ""
    return f"{spec.precision.value} {way}".strip()


def quantized(onnx_bytes: bytes) -> frozenset[str]:
    """Keys of the convolutions in INT8: those that read a dequantized weight."""
    nodes = load(onnx_bytes).graph.node
    return frozenset(str(node.output[0]) for node in nodes if node.op_type == "Conv" and node.input[1].endswith("_dq"))
