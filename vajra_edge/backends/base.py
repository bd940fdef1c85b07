"""Backend and Runner: what a library must answer, and which library is taken."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from vajra_edge import device
from vajra_edge.backends import cuda
from vajra_edge.backends.device_runner import DeviceRunner
from vajra_edge.backends.tensorrt import library, start
from vajra_edge.errors import BackendAbsent, BackendUnavailable, EngineError
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.report import PlanReport
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Report
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.ranges import Observe
from vajra_edge.wording import Setting, say

BACKENDS = {
    "onnxruntime": ("vajra_edge.backends.onnxruntime", "OnnxRuntime"),
    "tensorrt": ("vajra_edge.backends.tensorrt.backend", "TensorRT"),
}
"""Name -> module and class; imported when it is chosen."""


class Int8Graph(Enum):
    """The form in which a library takes an INT8 graph that we made."""

    QDQ = "Q/DQ nodes around the layers"
    QOPERATOR = "quantized operators, see graph.qlinear"
    RANGES = "FP32 with a range for each tensor, see graph.dla_ranges"


@dataclass(frozen=True)
class Built:
    """What a backend made.

    Attributes:
        plan: the serialized engine.
        precision: what was achieved, where the builder could not do what was asked.
        target: likewise.
        report: layers, timings, report cards.
    """

    plan: bytes
    precision: Precision
    target: Target
    report: PlanReport


class Runner(Protocol):
    """One loaded plan, able to run. Not thread-safe: one caller at a time."""

    signature: Signature

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run (n, 3, H, W) RGB 0..1 with n <= ``signature.batch``.

        Returns:
            The signature's output for n images, float32; valid until the next call but one (two slots are in flight).

        Raises:
            InferenceError: n is too large, the shape is wrong, or the library refused.
        """
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...


class Backend(Protocol):
    """A module that builds and loads plans of one library. What it can do is asked here, never guessed from its name.

    Attributes:
        name: as settings, manifests and the log have it.
    """

    name: str

    def nms_inside(self, target: Target) -> bool:
        """Whether the daemon has NMS in its plans; otherwise it does NMS itself, see ``inference``."""
        ...

    def auto_target(self) -> Target:
        """Where its plans run if nobody says."""
        ...

    def auto_precision(self, target: Target) -> Precision:
        """The precision of its plans if nobody says."""
        ...

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        """What must void a plan when it changes: library version, device, driver, DLA core, power mode."""
        ...

    def check(self, spec: EngineSpec) -> EngineError | None:
        """What a build of ``spec`` would fail with on this machine, before any work; None if nothing stands in its way.

        ``UnsupportedSpec`` lasts; anything else may pass: a library that is not up yet, want of memory to find out.
        """
        ...

    def routes(self, spec: EngineSpec) -> tuple[str, ...]:
        """Ways to INT8 that this library has for ``spec``, the best first; see ``spec.QUANTIZATIONS``."""
        ...

    def compares_speed(self, spec: EngineSpec) -> bool:
        """Whether INT8 has to be faster than FP16 here to be used."""
        ...

    def simplifies(self, spec: EngineSpec) -> bool:
        """Whether onnxslim would be for nothing, since the library makes the same plan without it."""
        ...

    def int8_graph(self, spec: EngineSpec) -> Int8Graph:
        """The form in which it takes an INT8 graph that was made for the route ``qdq``."""
        ...

    def observer(self, spec: EngineSpec) -> Observe:
        """Who measures the ranges of INT8 for it."""
        ...

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
        """Turn a graph into a plan. Slow; runs in the build child.

        Args:
            onnx_bytes: FP32, or prepared for the route to INT8.
            signature: of the graph.
            spec: what is wanted; ``quantization`` is one of ``routes``.
            report: takes progress; raises ``BuildCancelled`` to stop.
            images: for the calibrator, which measures ranges itself; None for everything else.
            fresh: it measures even what it measured before.

        Raises:
            BuildError: the library refuses the graph.
            BuildCancelled: the report raised it.
            OutOfMemory: the memory did not suffice.
            GraphError, UnsupportedSpec: likewise of the graph, or of this device.
        """
        ...

    def cannot_run(self, spec: EngineSpec) -> str | None:
        """Why this machine can build plans for ``spec`` but not run them; None if it can run them."""
        ...

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> Runner:
        """Make a stored plan able to run.

        Raises:
            PlanError: the library refuses it; the message says why.
            BackendUnavailable: the library does not load.
        """
        ...

    def computes_on_gpu(self, spec: EngineSpec) -> int | None:
        """CUDA's number of the GPU that its plans for ``spec`` compute on; None: they do on the CPU."""
        ...

    def load_on_gpu(self, plan: bytes, signature: Signature, spec: EngineSpec) -> DeviceRunner:
        """Make a stored plan able to run between memory of the GPU and memory of the GPU.

        Raises:
            PlanError: the library refuses it; the message says why.
            BackendUnavailable: the library does not load.
        """
        ...


@dataclass(frozen=True)
class BackendChoice:
    """Which backend is taken.

    Attributes:
        backend: it.
        reason: why, for the log and the status.
        instead: it is second best: there is a GPU, and something that can be mended keeps TensorRT from it.
    """

    backend: Backend
    reason: str
    instead: bool = False


def select(
    name: str,
    *,
    threads: int | None = None,
    state_dir: Path | None = None,
    gpus: Callable[[], Sequence[device.Gpu]] = device.gpus,
) -> BackendChoice:
    """Take a backend.

    Args:
        name: ``tensorrt``, ``onnxruntime`` or ``auto``: TensorRT where a GPU works and TensorRT starts on it, otherwise
            ONNX Runtime, which is slower and serves; the reason says what is missing and what to do about it.
        threads: of ONNX Runtime on a CPU; None: all that this process may use.
        state_dir: TensorRT keeps its timings and calibrations below it; None: nowhere.
        gpus: looks for GPUs.

    Raises:
        BackendUnavailable: the name is unknown, or the library is absent or does not load.
    """
    reason, instead = str(say("as set in ", Setting.BACKEND)), False
    if name == "auto":
        name, reason, instead = _automatic(gpus())
    if name == "tensorrt":
        reason += _through()
    if name not in BACKENDS:
        raise BackendUnavailable(f"unknown backend {name!r}", remedy=f"use auto, {' or '.join(BACKENDS)}", backend=name)
    _require(name)
    module, kind = BACKENDS[name]
    options = {"threads": threads} if name == "onnxruntime" else {"state_dir": state_dir}
    backend = cast("Backend", getattr(importlib.import_module(module), kind)(**options))
    return BackendChoice(backend, reason, instead)


def _automatic(gpus: Sequence[device.Gpu]) -> tuple[str, str, bool]:
    """Name, reason, and whether it is second best."""
    if not gpus:
        return "onnxruntime", "no NVIDIA GPU is seen", False
    if cuda.hidden():
        return "onnxruntime", "CUDA_VISIBLE_DEVICES hides every GPU", False
    seen = f"{gpus[0].name} is seen"
    try:
        found = library.load()
    except BackendUnavailable as error:
        broken = library.native() is not None or not isinstance(error, BackendAbsent)
        return "onnxruntime", f"{seen}, but {error}", broken
    if (missing := cuda.absence(0) or start.refusal(found)) is not None:
        return "onnxruntime", f"{seen} and {found} is installed, but {missing}", True
    return "tensorrt", f"{seen} and {found} loads", False


def _through() -> str:
    """How CUDA is reached; nothing where it is not, which whoever needs it is told then."""
    try:
        return f"; CUDA is called through {cuda.reason()}"
    except cuda.CudaUnavailable:
        return ""


def _require(name: str) -> None:
    if name == "tensorrt":
        library.load()
    elif importlib.util.find_spec("onnxruntime") is None:
        raise BackendUnavailable("ONNX Runtime is not installed", remedy="pip install onnxruntime", backend=name)
