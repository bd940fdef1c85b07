"""The frame loop: newest frames in, detections out, ``swap(detector)`` between two frames.

Only the loop's own thread touches a detector that serves, so only it can publish what the one that leaves has in
flight. Whoever swaps asks, and hears by an event when it is done.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np

from vajra_edge.backends.device_runner import SLOTS
from vajra_edge.errors import EngineError
from vajra_edge.inference.detector import Batch, Detector, Filter, StageTimes
from vajra_edge.types import Detections, Frame

Tag = TypeVar("Tag")

IDLE_S = 0.25
"""Longest wait for a frame before the loop beats and looks at its stop flag."""

WINDOW = 512
"""Batches and frames over which medians and percentiles are taken."""


class FrameSource(Protocol):
    """What the pipeline takes frames from (``capture.camera.Mailboxes``)."""

    def take(self, limit: int, timeout_s: float, gather_s: float) -> Sequence[Frame]:
        """Up to ``limit`` newest frames of different cameras; empty after ``timeout_s`` without one."""
        ...


@dataclass(frozen=True)
class FrameResult(Generic[Tag]):
    """One frame and what came of it.

    Attributes:
        frame: the image, its camera and when it was taken.
        found: what its camera's filter lets through, in pixels of it.
        unfiltered: see ``Batch.unfiltered``.
        plan: the tag that the plan which found it was swapped in with.
        times: of its batch.
    """

    frame: Frame
    found: Detections
    unfiltered: Detections
    plan: Tag
    times: StageTimes


@dataclass(frozen=True)
class Swapped(Generic[Tag]):
    """Event: this plan takes the frames, and the one before it has nothing in flight; one for each ``swap``, in order.

    The loop does not touch the detector before it again, so that it may be closed.
    """

    plan: Tag


@dataclass(frozen=True)
class LoopFailed(Generic[Tag]):
    """Event: this plan failed and is out of the loop, which waits for another.

    A plan may fail on its last batches, when another is to take over already: ``Swapped`` follows then.
    """

    reason: str
    plan: Tag


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
        sink: takes what came of each frame, in the loop's thread.
        post: takes ``Swapped``, ``InferFailed`` and ``Exhausted``; only enqueues.
        beat: called at each turn, and while waiting for frames on purpose.
        gather_s: longest wait for other cameras' frames to fill a batch.
        max_frames: end after this many published messages; None: never.
    """

    def __init__(
        self,
        frames: FrameSource,
        sink: Callable[[FrameResult[Tag]], None],
        post: Callable[[Swapped[Tag] | LoopFailed[Tag] | Exhausted], None],
        beat: Callable[[], None],
        gather_s: float = 0.005,
        max_frames: int | None = None,
    ) -> None:
        self._frames, self._sink, self._post, self._beat = frames, sink, post, beat
        self._gather_s, self._left = gather_s, max_frames
        self._asked: deque[Callable[[], None]] = deque()
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

    def swap(self, detector: Detector, tag: Tag, filters: Mapping[str, Filter] | None = None) -> None:
        """Ask for ``detector`` to take the frames from the next one on; ``Swapped`` is posted once it does.

        What the one before it has in flight is published first, under its own tag and filters. Callable from any
        thread; what is asked is done in the order of asking. A loop that ends first leaves ``detector`` as it is.

        Args:
            detector: whoever made it closes it.
            tag: of its plan.
            filters: as for ``apply``; class ids belong to a plan, so they change with it. None: as they are.
        """
        self._asked.append(partial(self._take_over, detector, tag, filters))

    def apply(self, filters: Mapping[str, Filter], gather_s: float) -> None:
        """Use these thresholds and class filters, by camera id, from the next frame on, or after a swap asked before.

        Callable from any thread.
        """
        self._asked.append(partial(self._set, dict(filters), gather_s))

    def counters(self) -> PipelineCounters:
        """A snapshot; callable from any thread."""
        stages, ages = list(self._stages), list(self._ages_ms)
        if not stages or not ages:
            return PipelineCounters(dict(self._published))
        medians = np.median(np.array(stages), axis=0)
        p50, p99 = np.percentile(np.array(ages), (50, 99))
        return PipelineCounters(dict(self._published), *(float(value) for value in (*medians, p50, p99)))

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat()
            self._do_asked()
            if self._served is None:
                self._stop.wait(IDLE_S / 10)
            else:
                self._guarded(self._turn)
        self._leave()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Let the plan that serves do ``step``; whatever it fails with becomes an event, and the plan is out."""
        try:
            step()
        except EngineError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001  libraries raise what they like, and this is the top of a thread
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        _, tag = self._serving()
        self._served = None
        self._post(LoopFailed(reason, tag))

    def _serving(self) -> tuple[Detector, Tag]:
        if self._served is None:
            raise AssertionError("a step without a plan")
        return self._served

    def _turn(self) -> None:
        """Take at most one batch, then publish at most one."""
        detector, tag = self._serving()
        busy = detector.in_flight > 0
        if busy:
            self._let_it_run(detector)
            if self._asked:
                return
        taken = self._frames.take(detector.signature.batch, 0.0 if busy else IDLE_S, self._gather_s)
        if not busy:  # a plan that is asked for while there are no frames gets the next one
            self._do_asked()
            detector, tag = self._serving()
        if taken and not self._stop.is_set():
            for start in range(0, len(taken), detector.signature.batch):
                self._submit(detector, tag, taken[start : start + detector.signature.batch])
        if detector.in_flight and (busy or not taken):
            self._publish(detector.collect(), tag)

    def _do_asked(self) -> None:
        while self._asked:
            self._asked.popleft()()

    def _take_over(self, detector: Detector, tag: Tag, filters: Mapping[str, Filter] | None) -> None:
        self._leave()
        self._served = detector, tag
        self._filters = self._filters if filters is None else dict(filters)
        self._typical_s = self._lead_s = 0.0
        self._post(Swapped(tag))

    def _set(self, filters: Mapping[str, Filter], gather_s: float) -> None:
        self._filters, self._gather_s = filters, gather_s

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
        times = batch.times
        for frame, found, unfiltered in zip(batch.frames[: self._left], batch.found, batch.unfiltered, strict=False):
            self._sink(FrameResult(frame, found, unfiltered, tag, times))
            self._published[frame.camera] += 1
            self._ages_ms.append((time.monotonic_ns() - frame.captured_ns) / 1e6)
        publish_ms = (time.monotonic() - self._submitted_s) * 1e3
        self._stages.append((times.prepare_ms, times.inference_ms, times.decode_ms, publish_ms))
        self._typical_s = (
            times.inference_ms / 1e3 if not self._typical_s else _ease(self._typical_s, times.inference_ms)
        )
        self._lead_s = 2 * times.prepare_ms / 1e3
        if self._left is not None and not self._stop.is_set():
            self._left = max(self._left - len(batch.frames), 0)
            if self._left == 0:
                self._stop.set()
                self._post(Exhausted(sum(self._published.values())))

    def _leave(self) -> None:
        """Let the plan that serves, if there is one, publish what it has in flight; the next is not to blame for it."""
        if self._served is not None:
            self._guarded(self._drain)

    def _drain(self) -> None:
        detector, tag = self._serving()
        while detector.in_flight:
            self._beat()
            self._publish(detector.collect(), tag)


def _ease(typical_s: float, latest_ms: float) -> float:
    """A running mean that follows a change within some ten batches."""
    return 0.9 * typical_s + 0.1 * latest_ms / 1e3
