"""Detector: frames in, detections out, with two batches in flight so that preparation overlaps inference."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends.base import Runner
from vajra_edge.backends.device_runner import SLOTS
from vajra_edge.build.accuracy_check import CONFIDENCE
from vajra_edge.errors import InferenceError, NotFinite
from vajra_edge.geometry.letterbox import Letterbox, LetterboxTransform
from vajra_edge.graph.signature import Signature
from vajra_edge.heads import Limits, head_of
from vajra_edge.media.bgr import interleaved
from vajra_edge.plans.spec import NmsSpec
from vajra_edge.types import Detections, Frame
from vajra_edge.wording import Setting, say

ON_HOST = "letterbox and boxes on the CPU"


@dataclass(frozen=True)
class Filter:
    """What a camera wants to hear of; changes in place.

    Attributes:
        confidence: lowest confidence that is kept.
        class_ids: kept classes; None: all.
    """

    confidence: float = 0.25
    class_ids: frozenset[int] | None = None

    def apply(self, found: Detections) -> Detections:
        """The rows that pass, order kept."""
        kept = found.confidence >= self.confidence
        if self.class_ids is not None:
            kept &= np.isin(found.class_id, list(self.class_ids))
        return found if kept.all() else found.take(kept)


@dataclass(frozen=True)
class StageTimes:
    """What one batch took.

    Attributes:
        prepare_ms: letterboxing all frames.
        inference_ms: the runner's call alone.
        decode_ms: from network output to detections.
    """

    prepare_ms: float
    inference_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Batch:
    """What came of one ``submit``.

    Attributes:
        frames: as submitted.
        found: one ``Detections`` a frame, in pixels of that frame: what its filter lets through.
        unfiltered: likewise everything from ``CONFIDENCE`` on, or from the filter's where that is lower.
        times: of all frames together.
    """

    frames: tuple[Frame, ...]
    found: tuple[Detections, ...]
    unfiltered: tuple[Detections, ...]
    times: StageTimes


class Detector(Protocol):
    """One loaded plan behind submit and collect. Used by one thread, but for ``set_nms``.

    Attributes:
        signature: what its tensors mean.
    """

    signature: Signature

    @property
    def path(self) -> str:
        """What computes where, for people."""
        ...

    def set_nms(self, nms: NmsSpec) -> None:
        """Suppress by these figures from the next batch on, where the network leaves that to others."""
        ...

    @property
    def in_flight(self) -> int:
        """Batches submitted and not yet collected, at most ``SLOTS``."""
        ...

    def submit(self, frames: Sequence[Frame], filters: Sequence[Filter]) -> None:
        """Prepare up to ``signature.batch`` frames and start inference behind what is in flight."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Wait until the oldest batch is done, at most ``timeout_s``; whether it is."""
        ...

    def collect(self) -> Batch:
        """The oldest batch, waiting for it.

        Raises:
            InferenceError: the runner failed; the batch is lost, the detector may be collected further and closed.
            NotFinite: likewise, for a frame's scores are no numbers.
        """
        ...

    def warm_up(self, frame: Frame, times: int) -> None:
        """Infer a frame for nothing, before anybody is served."""
        ...

    def bare_ms(self, seconds: float, count: int = 1) -> float:
        """Mean milliseconds of the network alone on ``count`` images, run for about ``seconds`` without a pause.

        Raises:
            InferenceError: the library refused, or a batch is in flight.
        """
        ...

    def close(self) -> None:
        """Wait for what is in flight, then release the runner; a second call does nothing."""
        ...


def require_room(signature: Signature, count: int, in_flight: int) -> None:
    """Let a batch pass that a plan can take now.

    Raises:
        InferenceError: too many frames for the plan, or two batches are in flight already.
    """
    if not 0 < count <= signature.batch or in_flight == SLOTS:
        raise InferenceError(
            f"{count} frames with {in_flight} batches in flight do not fit a plan of batch {signature.batch}",
            remedy=say(Setting.BATCH.given(), " to the number of cameras"),
        )


@dataclass(frozen=True)
class _Slot:
    frames: tuple[Frame, ...]
    filters: tuple[Filter, ...]
    placements: tuple[LetterboxTransform, ...]
    prepare_ms: float
    output: Future[tuple[NDArray[np.float32], float]]


class HostDetector:
    """Letterbox and decode on the CPU around any runner.

    A RAW output is suppressed here, while the next batch is inferred, which takes 0.4 ms (x86-64).

    Args:
        runner: taken over; closed with the detector. ``bench`` measures it alone.
        nms: for a RAW output, None: the defaults; a DETECTIONS output has its own baked in.
        path: what computes where, for people.
    """

    def __init__(
        self, runner: Runner, nms: NmsSpec | None = None, path: str = "letterbox and boxes on the CPU"
    ) -> None:
        self.signature = runner.signature
        self.path = path
        self.runner = runner
        self._head = head_of(self.signature)
        self._nms = nms or NmsSpec()
        self._letterbox = Letterbox(self.signature.resolution_hw)
        self._buffers = [self._letterbox.blank(self.signature.batch) for _ in range(SLOTS)]
        self._turn = 0
        self._slots: deque[_Slot] = deque()
        self._thread = ThreadPoolExecutor(1, "inference")
        self._infer = _timed
        self._closed = False

    def set_nms(self, nms: NmsSpec) -> None:
        """Suppress by these figures from the next ``collect`` on; any thread may say so."""
        self._nms = nms

    @property
    def in_flight(self) -> int:
        """Batches submitted and not yet collected."""
        return len(self._slots)

    def submit(self, frames: Sequence[Frame], filters: Sequence[Filter]) -> None:
        """Letterbox ``frames`` and queue them for inference.

        Raises:
            InferenceError: too many frames for the plan, or two batches are in flight already.
        """
        require_room(self.signature, len(frames), self.in_flight)
        started = time.perf_counter()
        buffer = self._buffers[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        images = map(interleaved, frames)  # one at a time: of NV12 each is a new picture
        places = tuple(self._letterbox.apply(image, row) for image, row in zip(images, buffer, strict=False))
        prepare_ms = (time.perf_counter() - started) * 1e3
        output = self._thread.submit(self._infer, self.runner.infer, buffer[: len(frames)])
        self._slots.append(_Slot(tuple(frames), tuple(filters), places, prepare_ms, output))

    def wait(self, timeout_s: float) -> bool:
        """Wait until the oldest batch is done, at most ``timeout_s``; whether it is."""
        if not self._slots:
            return True
        try:
            self._slots[0].output.exception(timeout_s)
        except FutureTimeout:
            return False
        return True

    def collect(self) -> Batch:
        """The oldest batch, waiting for it."""
        slot = self._slots.popleft()
        output, inference_ms = slot.output.result()
        started, nms = time.perf_counter(), self._nms
        unfiltered = tuple(
            self._decode(rows, frame, one, place, nms)
            for rows, frame, one, place in zip(output, slot.frames, slot.filters, slot.placements, strict=True)
        )
        found = tuple(one.apply(everything) for one, everything in zip(slot.filters, unfiltered, strict=True))
        decode_ms = (time.perf_counter() - started) * 1e3
        return Batch(slot.frames, found, unfiltered, StageTimes(slot.prepare_ms, inference_ms, decode_ms))

    def detect(self, frame: Frame, filter_: Filter | None = None) -> Detections:
        """One frame, start to end."""
        self.submit([frame], [filter_ or Filter()])
        return self.collect().found[0]

    def warm_up(self, frame: Frame, times: int) -> None:
        """Infer a frame for nothing, before anybody is served: a crash meanwhile is one of loading, see ``_first``."""
        self._infer = _first
        for _ in range(times):
            self.detect(frame)
        self._infer = _timed

    def bare_ms(self, seconds: float, count: int = 1) -> float:
        """Mean milliseconds of the network alone on ``count`` images, run for about ``seconds`` without a pause."""
        require_room(self.signature, count, self.in_flight and SLOTS)
        return self._thread.submit(_mean_ms, self.runner.infer, self._buffers[0][:count], seconds).result()

    def close(self) -> None:
        """Wait for what is in flight, then release the runner."""
        if self._closed:
            return
        self._closed = True
        self._thread.shutdown(wait=True)
        self._slots.clear()
        self.runner.close()

    def _decode(
        self, output: NDArray[np.float32], frame: Frame, filter_: Filter, place: LetterboxTransform, nms: NmsSpec
    ) -> Detections:
        """Everything, down to what the filter and the accuracy check want to know of.

        Weaker boxes than the filter lets through change nothing of what passes: none gives way to a weaker one.

        Raises:
            NotFinite: the network's scores for the frame are not finite.
        """
        limits = Limits(min(filter_.confidence, CONFIDENCE), nms.iou, nms.max_det, nms.top_k)
        try:
            found = self._head.decode(self.signature, output, limits)
        except NotFinite:
            raise NotFinite(frame.camera) from None
        return self._head.to_image(found, place, frame.resolution_wh)


def _first(
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """In a traceback of the fault handler this name tells the plan that is warmed up from the one that serves."""
    return _timed(infer, batch)


def _timed(
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    started = time.perf_counter()
    output = infer(batch)
    return output, (time.perf_counter() - started) * 1e3


def _mean_ms(
    infer: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: NDArray[np.float32], seconds: float
) -> float:
    calls, began_s = 0, time.perf_counter()
    while (took_s := time.perf_counter() - began_s) < seconds or not calls:
        infer(batch)
        calls += 1
    return took_s / calls * 1e3
