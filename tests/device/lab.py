"""What cells share: where things lie, how engines are built with little effort, run, timed and scored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import ledger
import numpy as np
from cells import TIMINGS

from vajra_edge import device
from vajra_edge.backends import cuda, onnxruntime
from vajra_edge.backends.base import Built, Runner
from vajra_edge.backends.cuda.check import check
from vajra_edge.backends.tensorrt import library as tensorrt_library
from vajra_edge.backends.tensorrt import limits
from vajra_edge.backends.tensorrt.backend import TensorRT
from vajra_edge.backends.tensorrt.log import LibraryLog
from vajra_edge.backends.tensorrt.runner import deserialise, dtype_of
from vajra_edge.graph import signature
from vajra_edge.graph.signature import Signature
from vajra_edge.plans.spec import EngineSpec, NmsSpec, Precision, Target
from vajra_edge.quantization.calibration_set import CalibrationSet

BENCH = Path(__file__).parents[1] / "bench"
FEW_TACTICS = 2
NETWORKS = {"nano": "vajra-v1-nano-det-cctv.onnx", "yolox": "yolox_nano_v8layout.onnx"}


class Unavailable(Exception):
    """The machine lacks what the cell needs."""


class Unfinished(Exception):
    """The time did not suffice; what was found so far is kept, and the cell is due again."""


@dataclass(frozen=True)
class Lab:
    """One cell's surroundings.

    Attributes:
        data: laid out like the shared data: images, labels, models, videos.
        work: engines and other intermediate files of this machine; kept between runs.
        partial: where the cell keeps what it has found so far.
        level: optimization level of builds that are timed.
        dry: no GPU: TensorRT-RTX builds, ONNX Runtime plays the runner; the figures mean nothing.
        search: INT8 layers are chosen by trials in the cells that ask only whether it builds.
        sample: so many small graphs only; 0: all.
        limit_s: time for the cell.
    """

    data: Path
    work: Path
    partial: Path
    level: int = 0
    dry: bool = False
    search: bool = False
    sample: int = 0
    limit_s: float = 600.0

    def keep(self, findings: Any) -> None:
        """Write down what is known so far; it survives the cell's death."""
        ledger.replace_file(self.partial, plain(findings))

    def earlier(self) -> dict[str, Any]:
        """What an earlier, unfinished run of this cell kept."""
        return ledger.load(self.partial)

    def model(self, network: str) -> Path:
        return self.data / "models" / NETWORKS[network]

    def photos(self) -> list[Path]:
        return sorted((self.data / "images" / "coco128").glob("*.jpg"))

    def engine(self, name: str) -> Path:
        """Where an engine lies between the cell that builds and the one that times."""
        return self.work / "engines" / f"{ledger.slug(name)}.plan"


def plain(findings: Any) -> dict[str, Any]:
    """JSON values of a frozen dataclass or a dict of them."""
    if is_dataclass(findings) and not isinstance(findings, type):
        return asdict(findings)
    return {key: asdict(one) if is_dataclass(one) else one for key, one in findings.items()}


def bench(module: str) -> Any:
    """A module of ``tests/bench``."""
    if str(BENCH) not in sys.path:
        sys.path.append(str(BENCH))
    return __import__(module)


def absence() -> str | None:
    """Why there is nothing to measure here, in one line; None where a GPU and the real TensorRT are."""
    try:
        library = tensorrt_library.load()
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        return f"no TensorRT here ({error}): nothing was run"
    if library.ahead_of_time:
        return f"only {library} is here, which cannot answer for TensorRT: nothing was run"
    reason = cuda.absence(0)
    return None if reason is None else f"no GPU here ({reason.message}): nothing was run"


def machine() -> dict[str, Any]:
    """Card, driver, clocks as they are now, libraries."""
    return {**card(), "python": sys.version.split()[0], "libraries": _versions()}


def card() -> dict[str, str]:
    """Of nvidia-smi; empty without it."""
    fields = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "memory.total")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", f"--id={seen}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        return dict(zip(fields, (part.strip() for part in done.stdout.split(",")), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def _versions() -> dict[str, str]:
    names = ("torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "ultralytics", "cuda-bindings")
    try:
        library = str(tensorrt_library.load())
    except Exception as error:  # noqa: BLE001  for the record only
        library = str(error)
    return {**{name: device.package_version(name) or "absent" for name in names}, "tensorrt": library}


@contextmanager
def effort(level: int = 0, tactics: int | None = FEW_TACTICS) -> Iterator[None]:
    """Builds at this optimization level, with few tactics a layer.

    ``export`` offers no such argument and needs none: level 3 is right for a product, and takes minutes here. So the
    first rung of the memory ladder, through which every build passes, is told it in the tests alone.
    """
    usual = limits.limits

    def lowered(*arguments: Any, **named: Any) -> limits.BuildLimits:
        return replace(usual(*arguments, **named), optimization_level=level, max_tactics=tactics)

    with mock.patch.object(limits, "limits", lowered):
        yield


@contextmanager
def of_level(level: int) -> Iterator[None]:
    """The level of timed builds; few tactics only where the level is 0."""
    with effort(level, FEW_TACTICS if level == 0 else None):
        yield


@contextmanager
def quick_choice(lab: Lab) -> Iterator[None]:
    """INT8 layers by the static rules alone: trials take minutes of CPU and say nothing of whether a build works.

    Nor of whether the plan is close enough to FP32: VajraV1-nano on photos is not so, and FP16 comes instead.
    """
    from vajra_edge.build import attempt

    if lab.search:
        yield
        return
    usual = attempt.Calibration

    def quick(*arguments: Any, **named: Any) -> Any:
        return usual(*arguments, **{**named, "search": False})

    with mock.patch.object(attempt, "Calibration", quick):
        yield


def quiet(_step: object) -> None:
    """Takes progress."""


def spec_of(precision: str, *, nms: bool = False, batch: int = 1, quantization: str = "auto") -> EngineSpec:
    return EngineSpec(
        Target("gpu", 0), Precision(precision), batch=batch, nms=NmsSpec() if nms else None, quantization=quantization
    )


@dataclass(frozen=True)
class Timed:
    """A build and what it took."""

    built: Built
    signature: Signature
    seconds: float


def build(onnx_bytes: bytes, found: Signature, spec: EngineSpec, *, images: CalibrationSet | None = None) -> Timed:
    """Through the product's backend; the caller has set the effort."""
    timings = os.environ.get(TIMINGS)
    began_s = time.monotonic()
    built = TensorRT(Path(timings) if timings else None).build(onnx_bytes, found, spec, quiet, images=images)
    return Timed(built, found, round(time.monotonic() - began_s, 1))


def assembled(onnx_bytes: bytes, spec: EngineSpec) -> tuple[bytes, Signature]:
    """The FP32 graph that a build of ``spec`` starts from."""
    from vajra_edge.graph.assemble import assemble

    names = signature.read(onnx_bytes).class_names
    return assemble(onnx_bytes, spec, class_names=names, stride=32)


@contextmanager
def running(lab: Lab, plan: bytes, found: Signature, spec: EngineSpec, stand_in: bytes) -> Iterator[Runner]:
    """The plan's runner; in a dry run ONNX Runtime with the graph ``stand_in``."""
    runner = onnxruntime.reference(stand_in, found) if lab.dry else TensorRT().load(plan, found, spec)
    try:
        yield runner
    finally:
        runner.close()


@dataclass(frozen=True)
class Points:
    """100 times mean average precision, on so many images."""

    map50_95: float
    map50: float
    images: int


def score(runner: Runner, scored: Any) -> Points:
    """As tests/bench/int8_accuracy.py scores: letterbox, every class of an anchor, NMS, COCO's mAP."""
    from vajra_edge.datasets.labels import Truth
    from vajra_edge.geometry.letterbox import Letterbox
    from vajra_edge.heads.detect import multi_label
    from vajra_edge.tasks import val

    letterbox, found, truths = Letterbox(runner.signature.resolution_hw), [], []
    batch = letterbox.blank(1)
    for picture in scored:
        where = letterbox.apply(picture.image, batch[0])
        boxes = multi_label(np.array(runner.infer(batch)[0]), val.CONFIDENCE, val.NMS_IOU, val.MAX_DET)
        height, width = picture.image.shape[:2]
        found.append(replace(boxes, xyxy=where.to_image(boxes.xyxy, (width, height))))
        truths.append(picture.truth or Truth.of([]))
    scores = val.score(truths, found, runner.signature.class_names)
    return Points(round(100 * scores.map50_95, 2), round(100 * scores.map50, 2), len(truths))


@dataclass(frozen=True)
class Bare:
    """Times of an engine by itself in ms, a synchronization a run."""

    plain_median_ms: float
    plain_p95_ms: float
    graph_median_ms: float
    graph_p95_ms: float


def bare(plan: bytes, seconds: float = 3.0) -> Bare:
    """Time plain enqueue, and the same as one CUDA graph; images are noise in device memory."""
    library = tensorrt_library.load()
    runtime, engine, context = deserialise(library, LibraryLog(), plan)
    with ExitStack() as held:
        stream = held.enter_context(cuda.Stream())
        for index in range(engine.num_io_tensors):
            _feed(library, engine, context, engine.get_tensor_name(index), held)
        found = _both_ways(context, stream, seconds)
    del context, engine, runtime  # in this order, which is TensorRT's
    return found


def _both_ways(context: Any, stream: cuda.Stream, seconds: float) -> Bare:
    plain_ms = _times_ms(lambda: context.execute_async_v3(stream.handle), stream, seconds)
    mode = graph_calls().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    graph_call("cudaStreamBeginCapture", stream.handle, mode)
    context.execute_async_v3(stream.handle)
    graph = graph_call("cudaGraphInstantiate", graph_call("cudaStreamEndCapture", stream.handle), 0)
    graph_ms = _times_ms(lambda: graph_call("cudaGraphLaunch", graph, stream.handle), stream, seconds)
    graph_call("cudaGraphExecDestroy", graph)
    return Bare(*plain_ms, *graph_ms)


def graph_calls() -> Any:
    """cuda-python itself, for the calls that the product does not make."""
    from cuda.bindings import runtime

    return runtime


def graph_call(name: str, *arguments: Any) -> Any:
    """One of them, checked."""
    status, *values = getattr(graph_calls(), name)(*arguments)
    check(name, int(status), str(status), "see cuda-python")
    return values[0] if values else None


def _feed(library: Any, engine: Any, context: Any, name: str, held: ExitStack) -> None:
    shape = tuple(int(side) for side in context.get_tensor_shape(name))
    if -1 in shape and engine.get_tensor_mode(name) == library.trt.TensorIOMode.INPUT:
        shape = tuple(int(side) for side in engine.get_tensor_profile_shape(name, 0)[1])
        context.set_input_shape(name, shape)
    kind = dtype_of(library, engine, name)
    buffer = held.enter_context(cuda.DeviceBuffer(prod(shape) * kind.itemsize))
    context.set_tensor_address(name, buffer.address)
    if engine.get_tensor_mode(name) == library.trt.TensorIOMode.INPUT:
        noise = np.random.default_rng(0).random(shape).astype(kind)
        buffer.fill(noise)


def _times_ms(launch: Callable[[], object], stream: cuda.Stream, seconds: float) -> tuple[float, float]:
    for _ in range(30):
        launch()
    stream.synchronize()
    taken_ms, end_s = [], time.monotonic() + seconds
    while time.monotonic() < end_s or len(taken_ms) < 20:
        began_s = time.perf_counter()
        launch()
        stream.synchronize()
        taken_ms.append((time.perf_counter() - began_s) * 1e3)
    return round(float(np.median(taken_ms)), 4), round(float(np.percentile(taken_ms, 95)), 4)


@dataclass(frozen=True)
class Whole:
    """The product's detector on one 1080p frame after the other, in ms: letterbox, engine, decode."""

    p50_ms: float
    p99_ms: float
    prepare_ms: float
    inference_ms: float
    decode_ms: float
    boxes: int


def whole_frame(lab: Lab, runner: Runner, frames: int = 400) -> Whole:
    """Closes the runner."""
    import contextlib
    from datetime import datetime, timezone

    from vajra_edge.inference.detector import Filter, HostDetector
    from vajra_edge.types import Frame

    frame = Frame(frame_1080p(lab), time.monotonic_ns(), datetime.now(timezone.utc), 0, "bench")
    stages, taken_ms = [], []
    with contextlib.closing(HostDetector(runner)) as detector:
        for number in range(frames + 20):
            began_s = time.perf_counter()
            detector.submit([frame], [Filter()])
            made = detector.collect()
            if number >= 20:
                taken_ms.append((time.perf_counter() - began_s) * 1e3)
                stages.append((made.times.prepare_ms, made.times.inference_ms, made.times.decode_ms))
    medians = (round(float(one), 4) for one in np.median(stages, axis=0))
    p50, p99 = (round(float(np.percentile(taken_ms, share)), 4) for share in (50, 99))
    return Whole(p50, p99, *medians, boxes=len(made.found[0]))


def frame_1080p(lab: Lab) -> Any:
    """A street scene as a 1080p camera gives it."""
    import cv2

    clip = cv2.VideoCapture(str(lab.data / "videos" / "vtest.avi"))
    seen, image = clip.read()
    clip.release()
    assert seen, "vtest.avi cannot be read"
    return cv2.resize(image, (1920, 1080))


@dataclass(frozen=True)
class Inspected:
    """What the engine inspector says of an engine's layers.

    Attributes:
        layers: all.
        with_weights: those that tell their weights (convolutions outside of compiled regions).
        int8_weights: of those, with INT8 weights.
        int8_tensors: layers that read or write an INT8 tensor.
        int8_share: of the multiply-adds of ``with_weights``; None where none tells.
        kinds: how many layers of each kind.
    """

    layers: int
    with_weights: int
    int8_weights: int
    int8_tensors: int
    int8_share: float | None
    kinds: dict[str, int]


def inspect(plan: bytes) -> Inspected:
    """Ask the inspector."""
    library = tensorrt_library.load()
    runtime, engine, context = deserialise(library, LibraryLog(), plan)
    text = engine.create_engine_inspector().get_engine_information(library.trt.LayerInformationFormat.JSON)
    del context, engine, runtime
    return inspected(json.loads(text)["Layers"])


def inspected(layers: list[Any]) -> Inspected:
    """Of the inspector's JSON; engines without details list names only."""
    known = [layer for layer in layers if isinstance(layer, dict)]
    kinds: dict[str, int] = {}
    for layer in known:
        kind = str(layer.get("LayerType", "?"))
        kinds[kind] = kinds.get(kind, 0) + 1
    weighty = [layer for layer in known if _count(layer)]
    macs = {id(layer): _count(layer) * _pixels(layer) for layer in weighty}
    int8 = [layer for layer in weighty if str(layer["Weights"].get("Type", "")).lower() == "int8"]
    whole = sum(macs.values())
    share = round(sum(macs[id(layer)] for layer in int8) / whole, 4) if whole else None
    return Inspected(len(layers), len(weighty), len(int8), sum(map(_is_int8, known)), share, kinds)


def _count(layer: dict[str, Any]) -> int:
    weights = layer.get("Weights")
    return int(weights.get("Count", 0)) if isinstance(weights, dict) else 0


def _pixels(layer: dict[str, Any]) -> int:
    sides = layer["Outputs"][0].get("Dimensions", []) if layer.get("Outputs") else []
    return prod(int(side) for side in sides[2:]) or 1


def _is_int8(layer: dict[str, Any]) -> bool:
    tensors = [*layer.get("Inputs", []), *layer.get("Outputs", [])]
    return any("int8" in str(one.get("Format/Datatype", "")).lower() for one in tensors if isinstance(one, dict))
