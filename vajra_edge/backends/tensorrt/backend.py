"""TensorRT: builds plans with NVIDIA's own parser and builder, and loads them.

One code path for 10.3 to 11.x and TensorRT-RTX (see ``library``). Building runs in the build child, loading in the
daemon.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from vajra_edge import device
from vajra_edge.backends import cuda
from vajra_edge.backends.base import Built, Int8Graph, Runner
from vajra_edge.backends.device_runner import DeviceRunner
from vajra_edge.backends.tensorrt import calibration_engine, calibrator, dla, start, timing_cache
from vajra_edge.backends.tensorrt import library as tensorrt_library
from vajra_edge.backends.tensorrt import limits as tensorrt_limits
from vajra_edge.backends.tensorrt.builder import BuildJob, build
from vajra_edge.backends.tensorrt.calibrator import CalibrationFeed
from vajra_edge.backends.tensorrt.device_runner import TrtDeviceRunner
from vajra_edge.backends.tensorrt.library import Library, Typing
from vajra_edge.backends.tensorrt.log import LibraryLog, listening
from vajra_edge.backends.tensorrt.network import parse, prepare
from vajra_edge.backends.tensorrt.runner import TrtRunner
from vajra_edge.errors import BackendUnavailable, BuildError, EngineError, OutOfMemory, UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.plans import caches
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.progress import Progress, Report
from vajra_edge.quantization.calibration_set import CalibrationSet
from vajra_edge.quantization.ranges import Observe
from vajra_edge.wording import Setting, say


class TensorRT:
    """The backend.

    Args:
        state_dir: timings and caches of the library's calibrator are kept below it, see ``leftovers``; None: none are.
    """

    name = "tensorrt"

    def __init__(self, state_dir: Path | None = None) -> None:
        self.state_dir = state_dir

    def nms_inside(self, target: Target) -> bool:
        """No: as many small kernels it took about 1 ms of VajraV1-nano's 2.2 to 3.2 ms on an H100."""
        del target
        return False

    def auto_target(self) -> Target:
        """The first GPU."""
        return Target("gpu", 0)

    def auto_precision(self, target: Target) -> Precision:
        """FP16, which every GPU and DLA core computes."""
        return Precision.FP32 if target.kind == "cpu" else Precision.FP16

    def identity(self, spec: EngineSpec) -> Mapping[str, str]:
        """What voids a plan when it changes: library, GPU, driver, Jetson Linux, power mode, DLA core.

        Raises:
            BackendUnavailable: the library does not load.
        """
        facts = {"library": str(tensorrt_library.load()), "target": str(spec.target)}
        gpu = _gpu_index(spec)
        if cuda.count() > gpu:
            found = cuda.describe(gpu)
            facts |= {"gpu": found.name, "compute_capability": found.compute_capability, "driver": found.driver}
        facts |= {"l4t": device.l4t() or "", "power_mode": device.power_mode() or ""}
        return {name: value for name, value in facts.items() if value}

    def check(self, spec: EngineSpec) -> EngineError | None:
        """What a build of ``spec`` would fail with on this machine; None if nothing stands in its way."""
        try:
            with _on(spec):
                _require(tensorrt_library.load(), spec)
        except (BackendUnavailable, UnsupportedSpec, BuildError, OutOfMemory) as error:
            return error
        return None

    def cannot_run(self, spec: EngineSpec) -> str | None:
        """Why this machine can build plans for ``spec`` but not run them; None if it can run them."""
        absent = cuda.absence(_gpu_index(spec))
        return None if absent is None else str(absent)

    def simplifies(self, spec: EngineSpec) -> bool:
        """No: what its parser makes of a graph that was not simplified may be another plan."""
        del spec
        return False

    def int8_graph(self, spec: EngineSpec) -> Int8Graph:
        """Q/DQ nodes, but for a DLA core with weak typing, which takes ranges alone.

        Raises:
            BackendUnavailable, UnsupportedSpec: the library is absent or has no such typing.
        """
        on_dla = spec.target.kind == "dla"
        weak = on_dla and not tensorrt_library.typing_of(tensorrt_library.load(), spec.typing, on_dla=True).strong
        return Int8Graph.RANGES if weak else Int8Graph.QDQ

    def observer(self, spec: EngineSpec) -> Observe:
        """Itself on the GPU that will run the plan, where that can be."""
        return calibration_engine.observer(self, spec)

    def routes(self, spec: EngineSpec) -> tuple[str, ...]:
        """Ways to INT8, the best first: the one that ``spec`` names; else Q/DQ nodes, then the library's calibrator.

        Q/DQ nodes come first since they keep the layers that cost accuracy out of INT8; see deploy/docs/int8.md.
        """
        if spec.quantization != "auto":
            return (spec.quantization,)
        library = tensorrt_library.load()
        calibrates = spec.target.kind == "gpu" and spec.typing != "strong" and calibrator.offered(library)
        return ("qdq", "calibrator") if calibrates and self.cannot_run(spec) is None else ("qdq",)

    def compares_speed(self, spec: EngineSpec) -> bool:
        """Whether INT8 has to be faster than FP16: wherever its plans can be run."""
        return self.cannot_run(spec) is None

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
        """Turn a graph into a plan.

        Args:
            onnx_bytes: an FP32 graph, or one with Q/DQ for INT8 (see ``int8_graph``).
            signature: of the graph.
            spec: what is wanted.
            report: takes progress; raises ``BuildCancelled`` to stop.
            images: what the library's calibrator is fed with, where ``spec.quantization`` names it.
            fresh: let it measure even what it measured before.

        Raises:
            UnsupportedSpec: this device or library cannot do it.
            GraphError: the parser refuses the graph; the node is named.
            BuildError, BuildCancelled, OutOfMemory: the builder failed; the layer is named where it is known.
            BackendUnavailable: the library does not load.
        """
        library = tensorrt_library.load()
        with _on(spec):
            typing = _require(library, spec)
            if spec.target.kind == "dla":
                dla.probe(library, spec.target.index, typing)
            report(Progress("build", 0.0, f"reading the graph with {library}, {typing} typing: {typing.reason}"))
            prepared = prepare(onnx_bytes, signature, spec, strong=typing.strong)
            timings = functools.partial(self._timings, tuple(self.identity(spec).items()))
            lines = LibraryLog()
            with listening(lines):
                net = parse(library, lines, prepared, typing)
                feed = self._feed(library, onnx_bytes, signature, spec, report, images, fresh=fresh)
                job = BuildJob(net, prepared, signature, spec, typing, _gpu_index(spec), timings, report, feed)
                return build(job)

    def load(self, plan: bytes, signature: Signature, spec: EngineSpec) -> Runner:
        """Make a plan able to run.

        Raises:
            PlanError: the library refuses it; the message says why.
            BackendUnavailable: the library or CUDA's bindings do not load, or there is no GPU.
        """
        library, core = self._runnable(spec)
        return TrtRunner(library, plan, signature, gpu=_gpu_index(spec), dla_core=core)

    def computes_on_gpu(self, spec: EngineSpec) -> int | None:
        """The plan's; what a DLA core computes begins and ends in the memory of the GPU too."""
        return _gpu_index(spec)

    def load_on_gpu(self, plan: bytes, signature: Signature, spec: EngineSpec) -> DeviceRunner:
        """Make a plan able to run between memory of the GPU and memory of the GPU; raises as ``load`` does."""
        library, core = self._runnable(spec)
        return TrtDeviceRunner(library, plan, signature, gpu=_gpu_index(spec), dla_core=core)

    def _runnable(self, spec: EngineSpec) -> tuple[Library, int | None]:
        """The library and the DLA core of a plan that can run here.

        Raises:
            BackendUnavailable: the library or CUDA's bindings do not load, or there is no GPU.
        """
        library = tensorrt_library.load()
        if (absent := cuda.absence(_gpu_index(spec))) is not None:
            raise BackendUnavailable(f"{library} cannot run plans here: {absent.message}", remedy=absent.remedy)
        return library, spec.target.index if spec.target.kind == "dla" else None

    def _feed(
        self,
        library: Library,
        onnx_bytes: bytes,
        signature: Signature,
        spec: EngineSpec,
        report: Report,
        images: CalibrationSet | None,
        *,
        fresh: bool,
    ) -> Callable[[], CalibrationFeed] | None:
        """What feeds the library's calibrator, made for each attempt; None where it has nothing to set."""
        if spec.precision is not Precision.INT8 or spec.quantization != "calibrator":
            return None
        if images is None:
            raise UnsupportedSpec("the calibrator has no images", remedy=say("name some in ", Setting.DATA))
        folder = self.state_dir and self.state_dir / caches.CALIBRATION_CACHES.path
        path = folder and calibrator.path_of(folder, library, onnx_bytes, signature.resolution_hw, images.digest)
        return functools.partial(CalibrationFeed, images, signature, report, path, fresh=fresh)

    def _timings(self, identity: tuple[tuple[str, str], ...], kind: str) -> Path | None:
        if self.state_dir is None:
            return None
        return timing_cache.path_of(
            self.state_dir / caches.TIMING.path, [kind, *(f"{name}={value}" for name, value in identity)]
        )


def _require(library: Library, spec: EngineSpec) -> Typing:
    """Everything that can be refused before any work.

    Raises:
        UnsupportedSpec: with what to set.
        BackendUnavailable: there is no GPU to build on, or the library does not start with its driver.
        BuildError, OutOfMemory: the library does not start here.
    """
    on_dla = spec.target.kind == "dla"
    if spec.target.kind == "cpu":
        raise UnsupportedSpec("TensorRT does not run on a CPU", remedy=say(Setting.BACKEND.to("onnxruntime")))
    if on_dla and spec.precision.is_single:
        raise UnsupportedSpec("a DLA core computes in FP16 and INT8 only", remedy=say(Setting.PRECISION.to("fp16")))
    if on_dla and spec.dynamic:
        raise UnsupportedSpec("a DLA core takes static shapes only", remedy=say(Setting.DYNAMIC.to(False)))
    gpu = _gpu_index(spec)
    absent = cuda.absence(gpu)
    if absent is not None and not library.ahead_of_time:
        raise BackendUnavailable(
            f"{library} builds only on the GPU that will run the plan: {absent.message}",
            remedy=say(absent.remedy, ", or ", Setting.BACKEND.to("onnxruntime")),
        )
    if spec.precision is Precision.TF32 and (refused := cuda.tf32_absence(gpu)) is not None:
        raise refused
    calibrates = spec.precision is Precision.INT8 and spec.quantization == "calibrator"
    if calibrates and on_dla:
        raise UnsupportedSpec(
            "TensorRT's MinMax calibrator is for the GPU", remedy=say(Setting.QUANTIZATION.to("auto"))
        )
    if calibrates and absent is not None:
        raise UnsupportedSpec(
            f"{library} calibrates on the GPU: {absent.message}", remedy=say(Setting.QUANTIZATION.to("qdq"))
        )
    if absent is None and (broken := start.refusal(library)) is not None:
        raise broken
    typing = tensorrt_library.typing_of(library, spec.typing, on_dla=on_dla, calibrates=calibrates)
    if on_dla:
        dla.require_core(library, spec.target.index)
    tensorrt_limits.require_workspace(tensorrt_limits.look(gpu), spec.workspace_gib)
    return typing


def _gpu_index(spec: EngineSpec) -> int:
    """The CUDA device of a plan; a DLA core's plan runs its other layers on the board's only GPU."""
    return spec.target.index if spec.target.kind == "gpu" else 0


@contextmanager
def _on(spec: EngineSpec) -> Iterator[None]:
    """The plan's GPU as the current one, where there is one."""
    gpu = _gpu_index(spec)
    with cuda.device(gpu) if cuda.absence(gpu) is None else nullcontext():
        yield
