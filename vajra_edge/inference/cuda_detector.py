"""CudaDetector: frames in, detections out, with nothing of the host's between them but queuing.

Two streams: while the network computes one batch, the next is copied in and letterboxed beside it. From the network's
input on, a batch is one CUDA graph where the library allows it, and what changes from frame to frame (size, thresholds)
lies in a block of memory that the kernels read, so that nothing is ever recorded anew.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.detections import MOST_CANDIDATES
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.device_runner import SLOTS, DeviceRunner
from vajra_edge.build.accuracy_check import CONFIDENCE
from vajra_edge.errors import InferenceError
from vajra_edge.heads import Limits
from vajra_edge.inference.cuda_slot import CudaSlot, Scratch
from vajra_edge.inference.detector import Batch, Filter, StageTimes, require_room
from vajra_edge.plans.spec import NmsSpec
from vajra_edge.types import Frame

_NAP_S = 0.0005
"""Between two looks at a batch that somebody waits for with a limit."""

_TO_RECORD = 2
"""Batches of one size in each slot until it is recorded and was launched once."""

_REFUSED = (cuda.CudaRefused, cuda.CudaUnavailable)

_BARE_BLOCK = 100
"""Runs that are queued before somebody waits, so that the pause is none to speak of."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Flying:
    slot: CudaSlot
    frames: tuple[Frame, ...]
    filters: tuple[Filter, ...]
    submit_ms: float


class CudaDetector:
    """A ``Detector`` around any ``DeviceRunner``.

    Args:
        runner: taken over, also on failure.
        kernels: taken over likewise.
        nms: None: the defaults.

    Attributes:
        path: how a batch is queued, for people.

    Raises:
        CudaRefused: there is no memory for it.
    """

    def __init__(self, runner: DeviceRunner, kernels: Kernels, nms: NmsSpec | None = None) -> None:
        self.signature, self._runner = runner.signature, runner
        self.set_nms(nms or NmsSpec())
        self._not_recorded = runner.not_recorded
        self._flying: deque[_Flying] = deque()
        self._turn = 0
        self._held = ExitStack()
        with ExitStack() as taken:
            taken.callback(runner.close)
            taken.enter_context(kernels)
            with cuda.device(runner.gpu):
                integrated = cuda.describe(runner.gpu).integrated
                self._ahead = taken.enter_context(cuda.Stream())
                self._scratch = Scratch.of(self.signature.batch, runner.anchors, taken)
                self._slots = [
                    taken.enter_context(CudaSlot(index, runner, kernels, self._scratch, integrated=integrated))
                    for index in range(SLOTS)
                ]
                self._waiter = taken.enter_context(cuda.Waiter(runner.stream))
                self._held = taken.pop_all()

    @property
    def path(self) -> str:
        """How a batch is queued, for people."""
        way = f"call by call: {self._not_recorded}" if self._not_recorded else "one CUDA graph a batch"
        cut = f"; of {self._asked} candidates the best {MOST_CANDIDATES}" if self._asked > MOST_CANDIDATES else ""
        return f"GPU, {way}{cut}"

    @property
    def in_flight(self) -> int:
        """Batches submitted and not yet collected."""
        return len(self._flying)

    def set_nms(self, nms: NmsSpec) -> None:
        """Suppress by these figures, but for candidates beyond ``MOST_CANDIDATES``, from the next ``submit`` on."""
        self._asked, self._nms = nms.top_k, replace(nms, top_k=min(nms.top_k, MOST_CANDIDATES))

    def submit(self, frames: Sequence[Frame], filters: Sequence[Filter]) -> None:
        """Queue everything that has to be done for ``frames``.

        Raises:
            InferenceError: too many frames for the plan, two batches are in flight already, or a call was refused.
        """
        require_room(self.signature, len(frames), self.in_flight)
        began_s, nms = time.perf_counter(), self._nms
        cuda.call("cudaSetDevice", self._runner.gpu)  # the current device is a thread's own
        cuda.relax_this_thread()
        slot = self._slots[self._turn]
        limits = [Limits(min(one.confidence, CONFIDENCE), nms.iou, nms.max_det, nms.top_k) for one in filters]
        try:
            slot.prepare(frames, limits, self._ahead)
            self._infer(slot, len(frames))
            slot.done.record(self._runner.stream)
        except BaseException:
            self._settle()  # what was queued reads the slot's memory
            with suppress(*_REFUSED):
                self._scratch.clear()  # of half a batch
            raise
        self._turn = (self._turn + 1) % SLOTS
        submit_ms = (time.perf_counter() - began_s) * 1e3
        self._flying.append(_Flying(slot, tuple(frames), tuple(filters), submit_ms))

    def wait(self, timeout_s: float) -> bool:
        """Wait until the oldest batch is done, at most ``timeout_s``; whether it is."""
        if not self._flying:
            return True
        until_s = time.monotonic() + timeout_s
        while not self._flying[0].slot.done.reached():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, _NAP_S))
        return True

    def collect(self) -> Batch:
        """The oldest batch, waiting for it."""
        flying = self._flying[0]
        try:
            flying.slot.done.synchronize()
        finally:
            self._flying.popleft()  # not before: the GPU may read the frames
        began_s = time.perf_counter()
        unfiltered = flying.slot.found(flying.frames)
        found = tuple(one.apply(everything) for one, everything in zip(flying.filters, unfiltered, strict=True))
        ahead_ms, inference_ms = flying.slot.times_ms()
        decode_ms = (time.perf_counter() - began_s) * 1e3
        times = StageTimes(flying.submit_ms + ahead_ms, inference_ms, decode_ms)
        return Batch(flying.frames, found, unfiltered, times)

    def warm_up(self, frame: Frame, times: int) -> None:
        """Infer a frame for nothing, in a batch of every size, before anybody is served: nothing is recorded later."""
        for count in range(1, self.signature.batch + 1):
            for _ in range(max(times, _TO_RECORD) * SLOTS if count == 1 else _TO_RECORD * SLOTS):
                self.submit([frame] * count, [Filter()] * count)
                self.collect()
        log.info("%s; %s", self.path, self._wait_better(frame))

    def bare_ms(self, seconds: float, count: int = 1) -> float:
        """Mean milliseconds of the network alone on ``count`` images, run for about ``seconds`` without a pause.

        Raises:
            InferenceError: the library or CUDA refused, or a batch is in flight.
        """
        require_room(self.signature, count, self.in_flight and SLOTS)
        stream, times, began_s = self._runner.stream, 0, time.perf_counter()
        with ExitStack() as held:
            held.enter_context(cuda.device(self._runner.gpu))
            began, ended = (held.enter_context(cuda.Event(timed=True)) for _ in range(2))
            self._runner.enqueue(0, count)
            once = self._bare(count, held)
            began.record(stream)
            while not times or time.perf_counter() - began_s < seconds:
                for _ in range(_BARE_BLOCK):
                    once()
                times += _BARE_BLOCK
                ended.record(stream)
                ended.synchronize()
            return ended.ms_since(began) / times

    def close(self) -> None:
        """Wait for what is in flight, then release everything; a second call does nothing."""
        with cuda.device(self._runner.gpu):
            self._settle()
            self._flying.clear()  # not before: the GPU may have read the frames
            self._held.close()

    def _infer(self, slot: CudaSlot, count: int) -> None:
        """Launch what was recorded; the first time queue it call by call, then record it for the next."""
        graph = slot.graphs.get(count)
        if graph is not None:
            graph.launch(self._runner.stream)
            return
        slot.infer(count)
        if self._not_recorded:
            return
        try:
            slot.graphs[count] = cuda.Graph(self._runner.stream, lambda: slot.infer(count))
        except (InferenceError, cuda.CudaUnavailable) as error:
            self._not_recorded = str(error)
            log.warning("the network's work cannot be recorded into a CUDA graph: %s", error)

    def _wait_better(self, frame: Frame) -> cuda.WaitCost:
        """Wait asleep from now on if that costs little, else polling."""

        def once() -> None:
            self.submit([frame], [Filter()])
            self._waiter.wait()
            self.collect()

        cost = self._waiter.measure(once)
        if not cost.sleeps:
            for slot in self._slots:
                slot.poll()
        return cost

    def _bare(self, count: int, held: ExitStack) -> Callable[[], None]:
        """One run of the network alone, recorded where that can be."""
        stream = self._runner.stream

        def queued() -> None:
            self._runner.enqueue(0, count)

        if self._not_recorded:
            return queued
        graph = held.enter_context(cuda.Graph(stream, queued))
        return lambda: graph.launch(stream)

    def _settle(self) -> None:
        """Wait until nothing is queued; what failed was told to whoever waited for it."""
        for stream in (self._ahead, self._runner.stream):
            with suppress(*_REFUSED):
                stream.synchronize()
