"""The GPU's path against the bare engine and against the host's path, on a machine with an NVIDIA GPU.

After ``python tests/bench/gpu_path.py``:

    build OUT WEIGHTS.onnx PRECISION [LEVEL [BATCH]]    a TensorRT plan (level 0: few tactics)
    build OUT WEIGHTS.onnx PRECISION onnxruntime
    export OUT WEIGHTS LEVEL [KEY=VALUE ...]            an .engine, by all steps of ``vajra-edge export``
    measure PLANS IMAGES OUT.json [SECONDS]             every plan of the folder
    cameras PLANS IMAGES SECONDS NAME                   1, 4, 16 and 64 cameras on plans of this name
    soak PLANS IMAGES SECONDS NAME
    formats PLANS IMAGES SECONDS NAME                   BGR, BGRx and NV12 of every matrix and range

Each plan is measured in turns: the bare engine, one 1080p source as fast as possible through the frame loop to encoded
messages, one frame at a time. Its boxes on every picture are compared with the host path's first.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "device"))

from colours import MEANINGS, stored

from vajra_edge.__main__ import main as vajra_edge
from vajra_edge.backends import cuda
from vajra_edge.backends.base import select
from vajra_edge.benchmark.memory_cameras import MemoryCameras, laid_together
from vajra_edge.benchmark.sink import CountingSink
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.cuda_detector import CudaDetector
from vajra_edge.inference.detector import Detector, Filter, HostDetector
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.inference.open_detector import Loadable, open_detector, open_runner
from vajra_edge.inference.pipeline import FrameResult, Pipeline
from vajra_edge.mqtt.messages import EngineTag, encode_detections
from vajra_edge.pixel_format import USUAL, Colorimetry, PixelFormat
from vajra_edge.plans.spec import EngineSpec, Precision, Target
from vajra_edge.tasks import load
from vajra_edge.types import Frame, Memory

SOURCE_WH = (1920, 1080)
ROUNDS = 5
CONFIDENCE = 0.25


def now_frame(
    image: Any,
    seq: int,
    memory: Memory | None = None,
    pixels: PixelFormat = PixelFormat.BGR,
    meaning: Colorimetry = USUAL,
) -> Frame:
    at = time.monotonic_ns(), datetime.now(timezone.utc)
    return Frame(image, *at, seq, "gate", memory=memory, pixels=pixels, colorimetry=meaning)


class Ring:
    """Pictures as a camera's lie in memory."""

    def __init__(
        self, images: Sequence[Any], pixels: PixelFormat = PixelFormat.BGR, meaning: Colorimetry = USUAL
    ) -> None:
        self.memory, self._images = laid_together(images)
        self._meant = pixels, meaning

    def frame(self, seq: int) -> Frame:
        return now_frame(self._images[seq % len(self._images)], seq, self.memory, *self._meant)


class Endless:
    """A source that always has a frame, which arrives when it is taken."""

    def __init__(self, ring: Ring) -> None:
        self._ring, self._numbers = ring, itertools.count()

    def take(self, limit: int, timeout_s: float, gather_s: float) -> list[Frame]:
        del timeout_s, gather_s
        return [self._ring.frame(next(self._numbers)) for _ in range(limit)]


@dataclass(frozen=True)
class Pace:
    """One block of frames as fast as possible; milliseconds.

    Attributes:
        period: from message to message.
        age: median from arrival to encoded message; ``age_p99`` its 99th percentile.
        prepare, inference, decode, publish: medians of the loop.
    """

    period: float
    age: float
    age_p99: float
    prepare: float
    inference: float
    decode: float
    publish: float


def looped(detector: Detector, ring: Ring, seconds: float, tag: EngineTag, done: Callable[[Frame], None]) -> Any:
    """One source as fast as possible through the frame loop, each message encoded; returns the loop's counters."""
    number = itertools.count()

    def sink(result: FrameResult[EngineTag]) -> None:
        draft = encode_detections(result.frame, result.found, result.plan, "bench", time.monotonic_ns())
        draft.numbered("00000000", next(number))
        done(result.frame)

    failed: list[object] = []
    loop: Pipeline[EngineTag] = Pipeline(Endless(ring), sink, failed.append, lambda: None)
    loop.swap(detector, tag)
    loop.start()
    time.sleep(seconds)
    loop.stop(10.0)
    if (many := next(number)) < 10:
        raise SystemExit(f"the loop gave {many} frames: {failed}")
    return loop.counters()


def paced(detector: Detector, ring: Ring, seconds: float, tag: EngineTag) -> Pace:
    ended_s: list[float] = []
    ages_ms: list[float] = []

    def done(frame: Frame) -> None:
        ended_s.append(time.perf_counter())
        ages_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)

    told = looped(detector, ring, seconds, tag, done)
    skip = len(ended_s) // 10
    return Pace(
        period=float(np.diff(ended_s[skip:]).mean()) * 1e3,
        age=float(np.median(ages_ms[skip:])),
        age_p99=float(np.percentile(ages_ms[skip:], 99)),
        prepare=told.prepare_ms,
        inference=told.inference_ms,
        decode=told.decode_ms,
        publish=told.publish_ms,
    )


def singly(detector: Detector, ring: Ring, seconds: float, tag: EngineTag) -> dict[str, float]:
    """One frame after the other: from its arrival to its encoded message, and how the host spends that time."""
    taken: dict[str, list[float]] = {"submit": [], "wait": [], "encode": [], "all": []}
    until_s = time.perf_counter() + seconds
    for seq in itertools.count():
        began = time.perf_counter()
        if began > until_s:
            break
        detector.submit([ring.frame(seq)], [Filter(CONFIDENCE)])
        queued = time.perf_counter()
        batch = detector.collect()
        found = time.perf_counter()
        encode_detections(batch.frames[0], batch.found[0], tag, "bench", time.monotonic_ns()).numbered("00000000", seq)
        done = time.perf_counter()
        for name, one in (
            ("submit", queued - began),
            ("wait", found - queued),
            ("encode", done - found),
            ("all", done - began),
        ):
            taken[name].append(one * 1e3)
    figures = {name: float(np.median(one)) for name, one in taken.items()}
    return {**figures, "all_p99": float(np.percentile(taken["all"], 99)), "frames": len(taken["all"])}


def boxes(detector: Detector, host: HostDetector, frames: Sequence[Frame]) -> dict[str, Any]:
    """How far the GPU's boxes are those of the host's path around the same engine."""
    differing, most_px, most_score, count = 0, 0.0, 0.0, 0
    for frame in frames:
        pair = []
        for one in (detector, host):
            one.submit([frame], [Filter(CONFIDENCE)])
            pair.append(one.collect().found[0])
        found, wanted = pair
        count += len(wanted)
        if len(found) != len(wanted) or sorted(found.class_id) != sorted(wanted.class_id):
            differing += 1
            continue
        for row in range(len(wanted)):
            same = np.flatnonzero(found.class_id == wanted.class_id[row])
            apart = np.abs(found.xyxy[same] - wanted.xyxy[row]).max(axis=1)
            best = int(apart.argmin())
            most_px = max(most_px, float(apart[best]))
            most_score = max(most_score, abs(float(found.confidence[same[best]]) - float(wanted.confidence[row])))
    return {"images": len(frames), "boxes": count, "images that differ": differing, "most px": most_px,
            "most score": most_score}  # fmt: skip


def kernels(detector: CudaDetector, images: Sequence[Any]) -> dict[str, float]:
    """Microseconds of each kernel and of moving as many bytes, by events around 200 launches."""
    slot, stream = detector._slots[0], detector._runner.stream
    detector.submit([now_frame(images[0], 0)], [Filter(CONFIDENCE)])
    detector.collect()
    letterbox, rest = slot._launches_of(1)
    told: dict[str, float] = {}
    with cuda.Event(timed=True) as began, cuda.Event(timed=True) as ended:

        def timed(name: str, work: Any, times: int = 200) -> None:
            work()
            began.record(stream)
            for _ in range(times):
                work()
            ended.record(stream)
            ended.synchronize()
            told[name] = ended.ms_since(began) / times * 1e3

        timed("letterbox", lambda: letterbox.queue(stream))

        def chosen() -> None:
            for one in rest:
                one.queue(stream)

        with cuda.Graph(stream, chosen) as graph:
            timed("detections", lambda: graph.launch(stream))
        with cuda.DeviceBuffer(64 << 20) as a, cuda.DeviceBuffer(64 << 20) as b:
            timed("copy of 64 MiB on the device", lambda: stream.copy(a.address, b.address, 64 << 20), 50)
            with cuda.PinnedBuffer((SOURCE_WH[0] * SOURCE_WH[1] * 3,), np.uint8) as host:
                timed("copy of a frame to it", lambda: stream.copy(a.address, host.address, host.nbytes), 100)
    return told


def loadables(folder: Path) -> Iterator[tuple[str, Loadable]]:
    """What ``build`` and ``export`` left in a folder."""
    for path in sorted(folder.glob("*.engine")):
        read = load.read(path)
        spec = EngineSpec(target=read.target, precision=read.precision or Precision.FP32)
        yield path.stem, Loadable(path.stem, "tensorrt", partial(_same, read.plan), read.signature, spec)
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        fields = told["signature"]
        fields["layout"] = Layout(fields["layout"])
        fields["class_names"] = tuple(fields["class_names"])
        fields = {name: tuple(one) if isinstance(one, list) else one for name, one in fields.items()}
        spec = EngineSpec(target=Target("gpu", 0), precision=Precision(told["precision"]))
        plan = path.with_suffix(".plan")
        yield path.stem, Loadable(path.stem, told["backend"], plan.read_bytes, Signature(**fields), spec)


def _same(plan: bytes) -> bytes:
    return plan


def measure(name: str, loadable: Loadable, pictures: Sequence[Any], seconds: float) -> dict[str, Any]:
    tag = EngineTag("0" * 64, loadable.spec.precision.value, "gpu:0", loadable.signature.class_names)
    full = [cv2.resize(one, SOURCE_WH, interpolation=cv2.INTER_LINEAR) for one in pictures[:8]]
    ring = Ring(full)
    told: dict[str, Any] = {"plan": name}
    with closing(open_detector(loadable)) as detector, closing(HostDetector(open_runner(loadable))) as host:
        told["path"] = detector.path
        told["boxes"] = boxes(detector, host, [now_frame(one, seq) for seq, one in enumerate(pictures)])
        if isinstance(detector, CudaDetector):
            told["kernels_us"] = {key: round(one, 2) for key, one in kernels(detector, full).items()}
        for which, one in (("gpu", detector), ("host", host)):
            rounds = []
            for _ in range(ROUNDS):
                before = detector.bare_ms(seconds / 4)
                pace = paced(one, ring, seconds, tag)
                rounds.append((pace, (before + detector.bare_ms(seconds / 4)) / 2))
            middle = sorted(rounds, key=lambda pair: pair[0].period / pair[1])[ROUNDS // 2]
            told[which] = {
                "bare_ms": round(median(bare for _, bare in rounds), 4),
                "ratio": round(middle[0].period / middle[1], 4),
                "frames_per_s": round(1e3 / median(pace.period for pace, _ in rounds), 1),
                "pace_ms": {key: round(value, 4) for key, value in asdict(middle[0]).items()},
                "singly_ms": {key: round(value, 4) for key, value in singly(one, ring, seconds, tag).items()},
            }
    return told


def cameras(detector: Detector, images: Sequence[Any], many: int, seconds: float, tag: EngineTag) -> dict[str, float]:
    """So many cameras at 30 frames/s: from a frame's arrival to its encoded message, and what was dropped."""
    boxes = Mailboxes()
    fed = MemoryCameras(images, many, 30.0, boxes)
    sink, failed = CountingSink("bench"), list[object]()
    loop: Pipeline[EngineTag] = Pipeline(boxes, sink, failed.append, lambda: None)
    loop.apply({}, 0.004 if detector.signature.batch > 1 else 0.0)
    loop.swap(detector, tag)
    loop.start()
    fed.start()
    time.sleep(seconds / 4)
    begun, cpu_s, began_s = len(sink.heard), time.process_time(), time.perf_counter()
    time.sleep(seconds)
    took_s, cpu_s, heard = time.perf_counter() - began_s, time.process_time() - cpu_s, sink.heard[begun:]
    fed.close()
    loop.stop(10.0)
    ages = [one.latency_ms for one in heard]
    p50, p99 = (float(value) for value in np.percentile(ages, (50, 99)))
    shown = len(heard) / took_s
    return {
        "cameras": many,
        "frames_per_s": round(shown, 1),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "dropped": round(max(0.0, 1 - shown / (30 * many)), 4),
        "cores": round(cpu_s / took_s, 2),
    }


def crowds(plans: Path, images: Path, seconds: float, match: str) -> list[dict[str, Any]]:
    made = []
    pictures = [cv2.imread(str(path)) for path in sorted(images.glob("*.jpg"))[:8]]
    full = [cv2.resize(one, SOURCE_WH, interpolation=cv2.INTER_LINEAR) for one in pictures]
    for name, loadable in loadables(plans):
        if match not in name:
            continue
        tag = EngineTag("0" * 64, loadable.spec.precision.value, "gpu:0", loadable.signature.class_names)
        with closing(open_detector(loadable)) as detector:
            for many in (1, 4, 16, 64):
                made.append({"plan": name, **cameras(detector, full, many, seconds, tag)})
                print(json.dumps(made[-1]), flush=True)
    return made


def formats(plans: Path, images: Path, seconds: float, match: str) -> None:
    """Each picture in each format, as a camera of that format would have it in memory."""
    name, loadable = next(one for one in loadables(plans) if match in one[0])
    tag = EngineTag("0" * 64, loadable.spec.precision.value, "gpu:0", loadable.signature.class_names)
    pictures = [cv2.imread(str(path)) for path in sorted(images.glob("*.jpg"))[:32]]
    even = [one[: one.shape[0] & ~1, : one.shape[1] & ~1] for one in pictures]
    full = [cv2.resize(one, SOURCE_WH, interpolation=cv2.INTER_LINEAR) for one in pictures[:8]]
    kinds = [(PixelFormat.BGR, USUAL), (PixelFormat.BGRX, USUAL), *((PixelFormat.NV12, one) for one in MEANINGS)]
    with closing(open_detector(loadable)) as detector, closing(HostDetector(open_runner(loadable))) as host:
        for pixels, meaning in kinds:
            ring = Ring([stored(one, pixels, meaning) for one in full], pixels, meaning)
            own = [stored(one, pixels, meaning) for one in even]
            frames = [now_frame(one, seq, None, pixels, meaning) for seq, one in enumerate(own)]
            frames += [ring.frame(seq) for seq in range(len(full))]
            told = boxes(detector, host, frames)
            pace, alone = paced(detector, ring, seconds, tag), singly(detector, ring, seconds, tag)
            times = {"frame_ms": pace.period, "alone_ms": alone["all"], "alone_p99_ms": alone["all_p99"]}
            kind = f"{pixels.name} {meaning.matrix.name} {'full' if meaning.full_range else 'limited'}"
            print(json.dumps({"plan": name, "format": kind, **told, **times}), flush=True)


def soak(plans: Path, images: Path, seconds: float, match: str) -> None:
    """Memory of the process and of the GPU, looked at again and again while one loop takes frames."""
    name, loadable = next(one for one in loadables(plans) if match in one[0])
    tag = EngineTag("0" * 64, loadable.spec.precision.value, "gpu:0", loadable.signature.class_names)
    ring = Ring([cv2.resize(cv2.imread(str(one)), SOURCE_WH) for one in sorted(images.glob("*.jpg"))[:8]])
    over = threading.Event()

    def look() -> None:
        while not over.wait(seconds / 6):
            rss = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)
            free_mib = cuda.call("cudaMemGetInfo")[0] >> 20
            print(name, rss.split()[1], "KiB; free on the GPU", free_mib, "MiB", flush=True)

    with closing(open_detector(loadable)) as detector:
        looking = threading.Thread(target=look)
        looking.start()
        print(looped(detector, ring, seconds, tag, lambda _frame: None))
        over.set()
        looking.join()


def build(folder: Path, weights: Path, precision: str, how: str, batch: int) -> None:
    import lab

    gpu = Target("gpu", 0)
    spec = EngineSpec(
        target=gpu, precision=Precision(precision), nms=None, simplify=False, batch=batch, dynamic=batch > 1
    )
    onnx_bytes, found = lab.assembled(weights.read_bytes(), replace(spec, precision=Precision.FP32))
    began_s = time.monotonic()
    if how == "onnxruntime":
        built = select("onnxruntime").backend.build(onnx_bytes, found, spec, lab.quiet)
    else:
        with lab.of_level(int(how)):
            built = lab.build(onnx_bytes, found, spec).built
    folder.mkdir(parents=True, exist_ok=True)
    library = "ort" if how == "onnxruntime" else f"trt-l{how}"
    path = folder / f"{weights.stem}.{precision}.{library}.b{batch}.plan"
    path.write_bytes(built.plan)
    told = {"signature": asdict(found), "precision": built.precision.value}
    told["signature"]["layout"] = found.layout.value
    told["backend"] = "onnxruntime" if how == "onnxruntime" else "tensorrt"
    path.with_suffix(".json").write_text(json.dumps(told))
    print(f"{path.name}: {len(built.plan) / 1e6:.1f} MB in {time.monotonic() - began_s:.0f} s", flush=True)


def export(folder: Path, weights: Path, level: int, given: Sequence[str]) -> None:
    """Through calibration, the choice of layers and the accuracy check; only the builder's effort is the test's."""
    import lab

    folder.mkdir(parents=True, exist_ok=True)
    arguments = dict(one.split("=", 1) for one in given)
    named = folder / f"{weights.stem}.{'-'.join(arguments)}.trt-l{level}{weights.suffix}"
    shutil.copyfile(weights, named)
    command = ["export", "--model", str(named), "format=engine", *given]
    with lab.of_level(level):
        code = vajra_edge(command)
    named.unlink()
    if code:
        raise SystemExit(code)


def main() -> None:
    verb, *rest = sys.argv[1:]
    if verb == "export":
        export(Path(rest[0]), Path(rest[1]), int(rest[2]), rest[3:])
        return
    if verb == "build":
        folder, weights, precision, *how = rest
        build(Path(folder), Path(weights), precision, how[0] if how else "1", int(how[1]) if len(how) > 1 else 1)
        return
    if verb in {"cameras", "soak", "formats"}:
        {"cameras": crowds, "soak": soak, "formats": formats}[verb](
            Path(rest[0]), Path(rest[1]), float(rest[2]), rest[3]
        )
        return
    plans, images, out, *seconds = rest
    pictures = [cv2.imread(str(path)) for path in sorted(Path(images).glob("*.jpg"))]
    made = []
    for name, loadable in loadables(Path(plans)):
        made.append(measure(name, loadable, pictures, float(seconds[0]) if seconds else 1.0))
        print(json.dumps(made[-1], indent=1), flush=True)
        Path(out).write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
