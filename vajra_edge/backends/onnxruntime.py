"""The ONNX Runtime backend: the embedded default, on a CPU or through the CUDA provider.

The plan is the graph as ONNX Runtime's extended level leaves it: constants folded, activations and attention-like
patterns fused, and still free of the blocked weight layout that the level above bakes in for one kind of CPU. That last
step is repeated at each load, costs 0.1 s on a nano network, and runs as fast as a plan that holds it already (217
against 209 ms of CPU time on one thread, within the noise of 15 %; without it 274).
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge import device
from vajra_edge.backends import cuda
from vajra_edge.backends.base import Built, Int8Graph
from vajra_edge.backends.onnxruntime_cuda import PROVIDER, OnnxDeviceRunner
from vajra_edge.backends.onnxruntime_errors import failures, first_line
from vajra_edge.errors import BackendUnavailable, BuildError, InferenceError, OutOfMemory, PlanError, UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.report import OnnxReport, PlanReport
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.observer import observe
from vajra_edge.quantization.ranges import Observe
from vajra_edge.wording import Command, Setting, say

if TYPE_CHECKING:
    import onnxruntime

TENSORRT = Setting.BACKEND.to("tensorrt")

_ERRORS_ONLY = 3
_VNNI = {"avx512_vnni", "avx_vnni"}


class OnnxRuntime:
    """The backend.

    Args:
        threads: CPU inference threads; None: all that this process may use.
    """

    name = "onnxruntime"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def nms_inside(self, target: Target) -> bool:
        """On a CPU; on a GPU its many small kernels took 1.7 ms of VajraV1-nano's 4.9 ms (H200)."""
        return target.kind == "cpu"

    def auto_target(self) -> Target:
        """The first GPU where ONNX Runtime's CUDA build is installed and the driver has a GPU for it, else the CPU."""
        built = device.package_version("onnxruntime-gpu") is not None
        return Target("gpu", 0) if built and bool(device.gpus()) and cuda.count() > 0 else Target("cpu")

    def auto_precision(self, target: Target) -> Precision:
        """FP32, in which its CPU kernels are fastest."""
        del target
        return Precision.FP32

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        """Library version and the processor or GPU; from files, without loading the library."""
        version = device.package_version("onnxruntime-gpu") or device.package_version("onnxruntime")
        library = {"library": f"onnxruntime {version}" if version else ""}
        if spec.target.kind == "cpu":
            return {**library, "device": f"{platform.machine()} {device.cpu_name()}"}
        gpu = next((gpu for gpu in device.gpus() if gpu.index == spec.target.index), None)
        known = {"device": gpu.name, "driver": gpu.driver or ""} if gpu else {"device": "", "driver": ""}
        return {**library, **known}

    def check(self, spec: EngineSpec) -> UnsupportedSpec | None:
        """Why ONNX Runtime cannot build or run ``spec`` here; None if it can."""
        if spec.target.kind == "dla":
            return UnsupportedSpec(
                f"ONNX Runtime cannot use {spec.target}", remedy=say(TENSORRT | Setting.TARGET.to("cpu"))
            )
        if (missing := calibrator_missing(spec)) is not None:
            return missing
        on_gpu = spec.target.kind == "gpu"
        if not on_gpu and spec.precision is Precision.FP16:
            # It has a handful of FP16 kernels for CPUs and would convert to FP32 and back around everything else.
            remedy = say(Setting.PRECISION.to("fp32") | Setting.PRECISION.to("int8"))
            return UnsupportedSpec("ONNX Runtime computes fp16 on a GPU only", remedy=remedy)
        if not on_gpu and spec.precision is Precision.TF32:
            remedy = say(Setting.PRECISION.to("fp32"))
            return UnsupportedSpec("ONNX Runtime computes tf32 on a GPU only", remedy=remedy)
        if on_gpu and spec.precision is Precision.INT8:
            remedy = say(Setting.PRECISION.to("fp16") | TENSORRT)
            return UnsupportedSpec("ONNX Runtime computes int8 on a CPU only", remedy=remedy)
        return _check_gpu(spec) if on_gpu else None

    def cannot_run(self, spec: EngineSpec) -> str | None:
        """ONNX Runtime builds nothing that it cannot run: always None."""
        del spec
        return None

    def routes(self, spec: EngineSpec) -> tuple[str, ...]:
        """INT8 is what our own graph passes make of it."""
        del spec
        return ("qdq",)

    def compares_speed(self, spec: EngineSpec) -> bool:
        """No: FP16 is not computed on a CPU, and INT8 is not computed on a GPU."""
        del spec
        return False

    def simplifies(self, spec: EngineSpec) -> bool:
        """In FP32, and onnxslim would take a third of the time to a first plan.

        Its plans are the same with it and without, node by node and bit by bit (both VajraV1-nano files, YOLOX-nano).
        """
        return spec.precision.is_single

    def int8_graph(self, spec: EngineSpec) -> Int8Graph:
        """Its CPU kernels have quantized operators."""
        del spec
        return Int8Graph.QOPERATOR

    def observer(self, spec: EngineSpec) -> Observe:
        """Itself, on the CPU."""
        del spec
        return observe

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
        """Optimise the graph for the target's provider; the plan is an ONNX file again.

        Args:
            onnx_bytes: FP32, which is turned into FP16 here where that is asked for; for INT8 as
                ``graph.passes.qoperator`` writes it.
            signature: of the graph.
            spec: what is wanted.
            report: takes progress; raises to stop.
            images: not looked at.
            fresh: not looked at.

        Raises:
            UnsupportedSpec: see ``check``.
            BuildError: ONNX Runtime refuses the graph.
            OutOfMemory: the machine's memory did not suffice.
        """
        import onnx
        import onnxruntime

        del images, fresh
        if (refused := self.check(spec)) is not None:
            raise refused
        report(Progress("build", None, f"optimising for {spec.target}"))
        if spec.precision is Precision.FP16:
            from vajra_edge.quantization.ptq import prepare_half

            onnx_bytes = prepare_half(onnx_bytes)
        with tempfile.TemporaryDirectory(prefix="vajra-edge-") as folder:
            path = Path(folder) / "plan.onnx"
            options = _options(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, self.threads)
            options.optimized_model_filepath = str(path)
            try:
                _open(onnx_bytes, options, spec.target, _provider(spec))
            except failures() as error:
                raise BuildError(
                    f"ONNX Runtime refuses the graph: {first_line(error)}",
                    remedy=say("check the weights with '", Command.DOCTOR, "'"),
                ) from error
            except MemoryError as error:
                raise OutOfMemory(
                    "not enough memory to optimise the graph", remedy="free memory and try again"
                ) from error
            plan = path.read_bytes()
        report(Progress("build", 100.0, "optimised"))
        graph = onnx.load_from_string(plan).graph
        made = OnnxReport(onnxruntime.__version__, len(graph.node), signature.layout.value)
        precision = _inside(graph)
        if precision.is_single and spec.precision.is_single:
            precision = spec.precision  # the provider rounds to TF32, the file has nothing of it
        return Built(plan, precision, spec.target, PlanReport(onnx=made))

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> OnnxRunner:
        """Open a session over a plan.

        Raises:
            PlanError: ONNX Runtime refuses it.
            BackendUnavailable: the target's provider does not load.
        """
        import onnxruntime

        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return _runner(plan, signature, spec, level, self.threads)

    def computes_on_gpu(self, spec: EngineSpec) -> int | None:
        """The target's number, where it is a GPU; the output of a plan of open size has none that is known before."""
        return spec.target.index if spec.target.kind == "gpu" and not spec.dynamic else None

    def load_on_gpu(self, plan: bytes, signature: Signature, spec: EngineSpec) -> OnnxDeviceRunner:
        """Open a session that computes between memory of the GPU and memory of the GPU; raises as ``load`` does."""
        import onnxruntime

        options = _options(onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, self.threads)
        return OnnxDeviceRunner(plan, signature, spec.target.index, options, _provider(spec))


def calibrator_missing(spec: EngineSpec) -> UnsupportedSpec | None:
    """Why the asked route to INT8 is TensorRT's alone; None if it is not, or INT8 is not asked for."""
    if spec.precision is Precision.INT8 and spec.quantization == "calibrator":
        remedy = say(Setting.QUANTIZATION.to("qdq") | TENSORRT)
        return UnsupportedSpec("only TensorRT has a calibrator of its own", remedy=remedy)
    return None


def reference(onnx_bytes: bytes, signature: Signature, *, threads: int | None = None) -> OnnxRunner:
    """What the accuracy check compares with: the graph as it was exported, node by node on the CPU, nothing fused.

    Raises:
        PlanError: ONNX Runtime refuses the graph.
    """
    import onnxruntime

    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _runner(onnx_bytes, signature, EngineSpec(Target("cpu")), level, threads)


class OnnxRunner:
    """One session. Its outputs are new arrays at each call, so that they outlive any number of later ones.

    A plain ``run`` is used: it takes the input without a copy and returns a few kilobytes, and an IOBinding with
    buffers of its own measured the same (217 against 212 ms of CPU time, noise 15 %).

    Args:
        session: taken over.
        signature: what its tensors mean.
    """

    def __init__(self, session: onnxruntime.InferenceSession, signature: Signature) -> None:
        self.signature = signature
        self._session: onnxruntime.InferenceSession | None = session
        self._padded: NDArray[np.float32] = np.zeros((0,), np.float32)

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Runner.infer``."""
        if self._session is None:
            raise InferenceError("the runner is closed")
        count = self._check(batch)
        feed = batch if count == self.signature.batch or self.signature.dynamic_batch else self._pad(batch)
        try:
            (output,) = self._session.run([self.signature.output_name], {self.signature.input_name: feed})
        except failures() as error:
            raise InferenceError(f"ONNX Runtime failed on a batch of {count}: {first_line(error)}") from error
        found: NDArray[np.float32] = output[:count]
        return found

    def close(self) -> None:
        """Let the session go; a second call does nothing."""
        self._session = None

    def _check(self, batch: NDArray[np.float32]) -> int:
        """How many images there are.

        Raises:
            InferenceError: too many or none, or another shape or type than the signature's.
        """
        dynamic = self.signature.dynamic_size
        height, width = self.signature.most_hw if dynamic else self.signature.resolution_hw
        rank, channels = 4, 3
        right = batch.dtype == np.float32 and batch.ndim == rank and batch.shape[1] == channels
        if right and dynamic:
            stride = self.signature.stride
            right = all(
                0 < side <= most and side % stride == 0
                for side, most in zip(batch.shape[2:], (height, width), strict=True)
            )
        elif right:
            right = batch.shape[2:] == (height, width)
        if not right or not 1 <= len(batch) <= self.signature.batch:
            expected = f"float32 (1..{self.signature.batch}, 3, {height}, {width})"
            raise InferenceError(f"the batch is {batch.dtype} {batch.shape}, expected {expected}", shape=batch.shape)
        return len(batch)

    def _pad(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """A full batch whose last images are left over from earlier calls; their outputs are cut off."""
        shape = (self.signature.batch, *batch.shape[1:])
        if self._padded.shape != shape:
            self._padded = np.zeros(shape, np.float32)
        self._padded[: len(batch)] = batch
        return self._padded


def _check_gpu(spec: EngineSpec) -> UnsupportedSpec | None:
    import onnxruntime

    target = spec.target

    if cuda.hidden():
        return UnsupportedSpec(
            f"{target} is asked for, and {cuda.VISIBLE} hides every GPU from this process",
            remedy=say(f"unset {cuda.VISIBLE}, or ", Setting.TARGET.to("auto")),
        )
    providers = onnxruntime.get_available_providers()
    if PROVIDER not in providers:
        return UnsupportedSpec(
            f"this ONNX Runtime has no CUDA provider (it has {', '.join(providers)})",
            remedy=say("pip install onnxruntime-gpu, or ", Setting.TARGET.to("cpu")),
        )
    known = [gpu.index for gpu in device.gpus()]
    if target.index not in known:
        seen = f"{target} is not there (GPUs seen: {known or 'none'})"
        return UnsupportedSpec(seen, remedy=say(Setting.TARGET.given()))
    return cuda.tf32_absence(target.index) if spec.precision is Precision.TF32 else None


def _runner(plan: bytes, signature: Signature, spec: EngineSpec, level: Any, threads: int | None) -> OnnxRunner:
    try:
        session = _open(plan, _options(level, threads), spec.target, _provider(spec))
    except failures() as error:
        raise PlanError(f"ONNX Runtime refuses the plan: {first_line(error)}", remedy="rebuild it") from error
    return OnnxRunner(session, signature)


def _options(level: Any, threads: int | None) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads or device.usable_cpus()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Idle threads sleep instead of spinning: camera decoding and letterbox share these cores. On a 2-core machine with
    # other work, 390 against 463 ms an image (median).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI x86 adds pairs of INT8 products in 16 bits, which clip; this asks for the kernels that do not.
    if (flags := device.cpu_flags()) and not flags & _VNNI:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _provider(spec: EngineSpec) -> dict[str, str]:
    """Options of the CUDA provider, which rounds FP32 plans to TF32 without a word where nothing is said."""
    return {"use_tf32": str(int(spec.precision is Precision.TF32))}


def _open(
    onnx_bytes: bytes, options: onnxruntime.SessionOptions, target: Target, provider: Mapping[str, str]
) -> onnxruntime.InferenceSession:
    """A session on the target's provider and no other.

    Raises:
        BackendUnavailable: ONNX Runtime fell back to the CPU, which it does by itself when CUDA does not load.
    """
    import onnxruntime

    on_gpu = (PROVIDER, {"device_id": str(target.index), **provider})
    providers = [on_gpu, "CPUExecutionProvider"] if target.kind == "gpu" else ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=providers)
    if target.kind == "gpu" and PROVIDER not in session.get_providers():
        raise BackendUnavailable(
            "ONNX Runtime's CUDA provider does not load, see its message above",
            remedy=say("install the CUDA and cuDNN it was built for, or ", Setting.TARGET.to("cpu")),
        )
    return session


def _inside(graph: Any) -> Precision:
    """The lowest precision that an ONNX graph computes in."""
    import onnx

    kinds = {node.op_type for node in graph.node}
    if any("QuantizeLinear" in kind or kind.startswith("QLinear") for kind in kinds):
        return Precision.INT8
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in graph.initializer)
    return Precision.FP16 if half else Precision.FP32
