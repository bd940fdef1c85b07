"""``bench``: the whole frame path against the bare engine, measured in one run with the same plan and threads.

Blocks alternate: the bare engine in a tight loop with nothing else running, then the real pipeline (capture, letterbox,
inference, decode, encode, a broker) as fast as it goes, then the same at the camera's own pace for latency. Each figure
is the median over blocks, so that a busy machine spoils single blocks and not the ratio.
"""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from vajra_edge.build.request import nms_of
from vajra_edge.capture.camera import Grabber, Mailboxes
from vajra_edge.capture.children import Children
from vajra_edge.cli.rebuild import ready_plan
from vajra_edge.config.settings import CameraSettings, Settings, load
from vajra_edge.demo.settings import broker_settings, overrides
from vajra_edge.errors import VajraError
from vajra_edge.inference.detector import Detector
from vajra_edge.inference.open_detector import Loadable, open_detector
from vajra_edge.inference.pipeline import FrameResult, Pipeline, PipelineCounters
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import topics_of
from vajra_edge.privileges import become_service_user

BLOCK_S = 1.5
"""Long enough for tens of frames on a slow CPU, short enough that neighbouring blocks meet the machine alike."""


def bench(
    seconds: float, *, config: Path | None, source: str | None, weights: Path | None, threads: int | None, as_json: bool
) -> int:
    """Print the figures."""
    with ExitStack() as stack:
        settings = _settings(config, source, weights, threads, stack)
        figures = _measure(settings, seconds)
    if as_json:
        print(orjson.dumps(figures).decode())  # noqa: T201
    else:
        Console().print(_table(figures))
    return 0


def _settings(
    config: Path | None,
    source: str | None,
    weights: Path | None,
    threads: int | None,
    stack: ExitStack,
) -> Settings:
    given: dict[str, Any] = {}
    if config is None:
        state_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vajra-bench-")))
        given = overrides(state_dir, broker_settings(None, stack), source=source, weights=weights)
    if threads is not None:
        given = {**given, "service": {**given.get("service", {}), "threads": threads}}
    settings = load(config, given)
    if config is not None:  # the plan is built in the service's store, from cameras that anybody may send
        become_service_user(settings.store.state_dir)
    if not settings.cameras:
        raise VajraError("no camera to measure with", remedy="name a clip with --source")
    return settings


def _measure(settings: Settings, seconds: float) -> dict[str, Any]:
    with opened(settings) as run:
        return {**run.measure(seconds), "engine": run.tag.fingerprint[:12], "threads": settings.service.threads}


@contextmanager
def opened(settings: Settings) -> Iterator[Run]:
    """The parts around the plan of ``settings``, built if it is not there."""
    plan = ready_plan(settings)
    detector = open_detector(Loadable.of(plan), threads=settings.service.threads, nms=nms_of(settings.engine))
    manifest = plan.manifest
    tag = EngineTag(plan.fingerprint, manifest.precision.value, str(manifest.target), manifest.signature.class_names)
    run = Run(settings, detector, tag)
    try:
        yield run
    finally:
        run.close()
        detector.close()


class _BenchCamera:
    """A grabber with mailboxes of its own."""

    def __init__(self, camera: CameraSettings, post: Callable[[object], None], children: Children) -> None:
        self.mailboxes = Mailboxes()
        self._grabber = Grabber(camera, self.mailboxes, post, _no_beat, children)
        self._grabber.start()

    def close(self) -> None:
        self.mailboxes.close()
        self._grabber.stop(5.0)


class Run:
    """The real parts around one detector: grabbers and a publisher with a broker."""

    def __init__(self, settings: Settings, detector: Detector, tag: EngineTag) -> None:
        self._detector, self.tag = detector, tag
        self._inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._publisher = Publisher(settings.mqtt, topics_of(settings), self._inbox.put)
        self._publisher.start()
        self._children = Children()
        camera = settings.cameras[0].model_copy(update={"loop": True})
        eager = camera.model_copy(update={"id": "eager", "realtime": False, "fps": None})
        self._eager = _BenchCamera(eager, self._inbox.put, self._children)
        self._paced = camera.model_copy(update={"id": "paced", "realtime": True})

    def close(self) -> None:
        """Stop the threads; a second call does nothing."""
        self._eager.close()
        self._children.close()
        self._publisher.close(5.0)

    def measure(self, seconds: float) -> dict[str, Any]:
        """Alternate blocks for about ``seconds``."""
        self._pipelined(self._eager, BLOCK_S / 3)
        blocks: list[tuple[float, float, PipelineCounters]] = []
        ages_ms: list[float] = []
        until_s = time.monotonic() + seconds
        while len(blocks) < 2 or time.monotonic() < until_s:  # noqa: PLR2004  a median needs a pair
            before_ms = self.bare(BLOCK_S / 2)
            published, counters = self._pipelined(self._eager, BLOCK_S)
            if len(published) < 3:  # noqa: PLR2004  two gaps
                raise VajraError(
                    f"only {len(published)} frames in {BLOCK_S} s", remedy="check the clip, or try a smaller network"
                )
            whole_ms = float(np.diff([seen.at_s for seen in published]).mean()) * 1e3
            blocks.append(((before_ms + self.bare(BLOCK_S / 2)) / 2, whole_ms, counters))
            paced = _BenchCamera(self._paced, self._inbox.put, self._children)
            ages_ms += [seen.age_ms for seen in self._pipelined(paced, BLOCK_S)[0]]
            paced.close()
        return _figures(blocks, ages_ms)

    def frames(self, seconds: float) -> list[float]:
        """When each message of one block as fast as it goes was handed to the publisher, in seconds."""
        return [seen.at_s for seen in self._pipelined(self._eager, seconds)[0]]

    def bare(self, seconds: float) -> float:
        """Mean milliseconds a call of the engine alone."""
        return self._detector.bare_ms(seconds)

    def _pipelined(self, camera: _BenchCamera, seconds: float) -> tuple[list[_Seen], PipelineCounters]:
        """Run the frame loop on one camera; when each message was handed to the publisher."""
        seen: list[_Seen] = []

        def sink(result: FrameResult[EngineTag]) -> None:
            self._publisher.detections(result.frame, result.found, result.plan)
            seen.append(_Seen(time.perf_counter(), (time.monotonic_ns() - result.frame.captured_ns) / 1e6))

        pipeline: Pipeline[EngineTag] = Pipeline(camera.mailboxes, sink, self._inbox.put, _no_beat)
        pipeline.swap(self._detector, self.tag)
        pipeline.start()
        time.sleep(seconds)
        pipeline.stop(5.0)
        return seen, pipeline.counters()


@dataclass(frozen=True)
class _Seen:
    at_s: float
    age_ms: float


def _figures(blocks: list[tuple[float, float, PipelineCounters]], ages_ms: list[float]) -> dict[str, Any]:
    bare_ms = median(bare for bare, _, _ in blocks)
    whole_ms = median(whole for _, whole, _ in blocks)
    stages = {
        name: round(median(getattr(counters, f"{name}_ms") for _, _, counters in blocks), 3)
        for name in ("prepare", "inference", "decode", "publish")
    }
    p50, p99 = np.percentile(ages_ms, (50, 99))
    return {
        "inference_ms": round(bare_ms, 3),
        "frame_ms": round(whole_ms, 3),
        "frames_per_s": round(1e3 / whole_ms, 2),
        "ratio": round(median(whole / bare for bare, whole, _ in blocks), 4),
        "stage_ms": stages,
        "latency_ms": {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "frames": len(ages_ms)},
        "blocks": len(blocks),
        "ratios": [round(whole / bare, 4) for bare, whole, _ in blocks],
    }


def _table(figures: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    stages = ", ".join(f"{name} {value}" for name, value in figures["stage_ms"].items())
    latency = figures["latency_ms"]
    table.add_row("bare inference", f"{figures['inference_ms']} ms")
    table.add_row("whole path", f"{figures['frame_ms']} ms a frame, {figures['frames_per_s']} frames/s")
    table.add_row("ratio", f"{figures['ratio']} (1.0: everything but inference is hidden)")
    table.add_row("stages, median ms", stages)
    table.add_row("capture to publish", f"p50 {latency['p50']} ms, p99 {latency['p99']} ms at the camera's own pace")
    return table


def _no_beat() -> None:
    """Nobody watches a bench."""
