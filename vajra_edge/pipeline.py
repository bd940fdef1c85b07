"""The frame loop: newest frames in, detections out, ``swap(detector)`` between two frames."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from vajra_edge.detect.detector import SLOTS, Batch, Detector, Filter
from vajra_edge.detections import Detections
from vajra_edge.errors import EngineError
from vajra_edge.frames import Frame

Tag = TypeVar("Tag")
log = logging.getLogger(__name__)

IDLE_S = 0.25
"""Longest wait for a frame before the loop beats and looks at its stop flag."""

WINDOW = 512
"""Batches and frames over which medians and percentiles are taken."""


class FrameSource(Protocol):
    """What the pipeline takes frames from (``capture.grabber.Mailboxes``)."""

    def take(self, limit: int, timeout_s: float, gather_s: float) -> Sequence[Frame]:
        """Up to ``limit`` newest frames of different cameras; empty after ``timeout_s`` without one."""
        ...


@dataclass(frozen=True)
class InferFailed:
    """Event: the runner refused or failed; the loop has ended."""

    reason: str


@dataclass(frozen=True)
class Exhausted:
    """Event: as many detection messages were published as were asked for; the loop has ended."""

    published: int


@dataclass(frozen=True)
class PipelineCounters:
    """What the loop did so far; medians over the last ``WINDOW`` batches, ages over as many frames.

    Attributes:
        published: detection messages by camera.
        prepare_ms: median letterbox time a batch.
        inference_ms: median runner time a batch.
        decode_ms: median decode time a batch.
        publish_ms: median encode-and-offer time a batch.
        age_p50_ms: median from capture to published.
        age_p99_ms: its 99th percentile.
    """

    published: Mapping[str, int] = field(default_factory=dict)
    prepare_ms: float = 0.0
    inference_ms: float = 0.0
    decode_ms: float = 0.0
    publish_ms: float = 0.0
    age_p50_ms: float = 0.0
    age_p99_ms: float = 0.0


class Pipeline(Generic[Tag]):
    """One thread between the mailboxes and the publisher.

    Args:
        frames: where frames come from.
        sink: takes each frame with what was found in it, the tag of the plan that found it, and ``Batch.certain``.
        post: takes ``InferFailed`` and ``Exhausted``; only enqueues.
        beat: called at each turn, and while waiting for frames on purpose.
        gather_s: longest wait for other cameras' frames to fill a batch.
        max_frames: end after this many published messages; None: never.
    """

    def __init__(
        self,
        frames: FrameSource,
        sink: Callable[[Frame, Detections, Tag, int], None],
        post: Callable[[object], None],
        beat: Callable[[], None],
        gather_s: float = 0.005,
        max_frames: int | None = None,
    ) -> None:
        self._frames, self._sink, self._post, self._beat = frames, sink, post, beat
        self._gather_s, self._left = gather_s, max_frames
        self._lock = threading.Lock()
        self._served: tuple[Detector, Tag] | None = None
        self._filters: Mapping[str, Filter] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
        self._published: Counter[str] = Counter()
        self._stages: deque[tuple[float, float, float, float]] = deque(maxlen=WINDOW)
        self._ages_ms: deque[float] = deque(maxlen=WINDOW)
        self._lead_s = self._typical_s = 0.0
        self._submitted_s = 0.0

    def start(self) -> None:
        """Start the loop; without a detector it only waits."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Publish what is in flight and end the loop; whether it ended in time."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def swap(
        self, detector: Detector | None, tag: Tag | None = None, filters: Mapping[str, Filter] | None = None
    ) -> Detector | None:
        """Serve ``detector`` from the next frame on.

        What the old one has in flight is published first, under its own tag and filters.

        Args:
            detector: None: frames wait.
            tag: of its plan.
            filters: as for ``apply``; class ids belong to a plan, so they change with it. None: as they are.

        Returns:
            The old detector, for the caller to close.
        """
        with self._lock:
            old = self._served
            if old is not None and not self._stop.is_set():
                try:
                    self._drain(*old)
                except EngineError as error:  # it goes with the plan that leaves; the new one is not to blame
                    log.warning("the replaced engine failed on its last frame: %s", error)
            self._served = None if detector is None or tag is None else (detector, tag)
            self._filters = self._filters if filters is None else dict(filters)
            self._typical_s = self._lead_s = 0.0
            return old[0] if old else None

    def apply(self, filters: Mapping[str, Filter], gather_s: float) -> None:
        """Use these thresholds and class filters, by camera id, from the next frame on."""
        self._filters, self._gather_s = dict(filters), gather_s

    def counters(self) -> PipelineCounters:
        """A snapshot; callable from any thread."""
        stages, ages = list(self._stages), list(self._ages_ms)
        if not stages or not ages:
            return PipelineCounters(dict(self._published))
        medians = np.median(np.array(stages), axis=0)
        p50, p99 = np.percentile(np.array(ages), (50, 99))
        return PipelineCounters(dict(self._published), *(float(value) for value in (*medians, p50, p99)))

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._beat()
                self._turn()
            with self._lock:
                if self._served is not None:
                    self._drain(*self._served)
        except EngineError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001  the top of a thread: it becomes an event
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        self._stop.set()
        self._post(InferFailed(reason))

    def _turn(self) -> None:
        """Take at most one batch, then publish at most one."""
        served = self._served
        if served is None:
            self._stop.wait(IDLE_S / 10)
            return
        busy = served[0].in_flight > 0
        if busy:
            self._let_it_run(served[0])
        taken = self._frames.take(served[0].signature.batch, 0.0 if busy else IDLE_S, self._gather_s)
        with self._lock:
            if self._served is None:
                return
            detector, tag = self._served
            if taken and not self._stop.is_set():
                for start in range(0, len(taken), detector.signature.batch):
                    self._submit(detector, tag, taken[start : start + detector.signature.batch])
            if detector.in_flight and (busy or not taken):
                self._publish(detector.collect(), tag)

    def _let_it_run(self, detector: Detector) -> None:
        """Leave the newest frame in its mailbox until the batch in flight is nearly done: it would only grow old."""
        nearly_done_s = self._submitted_s + 0.9 * self._typical_s - self._lead_s
        left_s = nearly_done_s - time.monotonic()
        if left_s > 0:
            detector.wait(left_s)

    def _submit(self, detector: Detector, tag: Tag, frames: Sequence[Frame]) -> None:
        if detector.in_flight == SLOTS:
            self._publish(detector.collect(), tag)
        default = Filter()
        detector.submit(frames, [self._filters.get(frame.camera, default) for frame in frames])
        if detector.in_flight == 1:
            self._submitted_s = time.monotonic()

    def _publish(self, batch: Batch, tag: Tag) -> None:
        self._submitted_s = time.monotonic()
        for frame, found, certain in zip(batch.frames[: self._left], batch.found, batch.certain, strict=False):
            self._sink(frame, found, tag, certain)
            self._published[frame.camera] += 1
            self._ages_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
        publish_ms = (time.monotonic() - self._submitted_s) * 1e3
        self._stages.append((batch.prepare_ms, batch.inference_ms, batch.decode_ms, publish_ms))
        self._typical_s = (
            batch.inference_ms / 1e3 if not self._typical_s else _ease(self._typical_s, batch.inference_ms)
        )
        self._lead_s = 2 * batch.prepare_ms / 1e3
        if self._left is not None and not self._stop.is_set():
            self._left = max(self._left - len(batch.frames), 0)
            if self._left == 0:
                self._stop.set()
                self._post(Exhausted(sum(self._published.values())))

    def _drain(self, detector: Detector, tag: Tag) -> None:
        while detector.in_flight:
            self._publish(detector.collect(), tag)


def _ease(typical_s: float, latest_ms: float) -> float:
    """A running mean that follows a change within some ten batches."""
    return 0.9 * typical_s + 0.1 * latest_ms / 1e3
