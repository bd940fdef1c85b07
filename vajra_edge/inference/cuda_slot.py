"""CudaSlot: one batch on the GPU, from frames in host memory to objects in host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.detections import (
    MOST_CANDIDATES,
    OVERLAPS_BYTES,
    RANKED_THREADS,
    ROW_BYTES,
    TALLY_BYTES,
    THREADS,
    Answer,
    ImageBlock,
    image_block,
)
from vajra_edge.backends.cuda.intake import Intake
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.cuda.letterbox import BLOCK_XY, FrameBlock, frame_block
from vajra_edge.backends.cuda.module import Launch
from vajra_edge.backends.cuda.resources import Resource
from vajra_edge.backends.device_runner import DeviceRunner
from vajra_edge.errors import InferenceError, NotFinite
from vajra_edge.geometry.letterbox import placement
from vajra_edge.heads import Limits
from vajra_edge.types import Detections, Frame

_ROW_VALUES = ROW_BYTES // 4


@dataclass(frozen=True)
class Scratch:
    """Memory of the kernels that choose objects, which lasts one batch only.

    Attributes:
        keys: (batch, anchors) uint64, of candidates as they come.
        labels: (batch, anchors) int32, each anchor's best class.
        tallies: (batch, 2) int32, candidates and whether a score is not finite; zero between two batches.
        rows: (batch, MOST_CANDIDATES, 6) float32, the best of them in order.
        overlapped: (batch, MOST_CANDIDATES, MOST_CANDIDATES) bits, who overlaps whom.
    """

    keys: cuda.DeviceBuffer
    labels: cuda.DeviceBuffer
    tallies: cuda.DeviceBuffer
    rows: cuda.DeviceBuffer
    overlapped: cuda.DeviceBuffer

    @classmethod
    def of(cls, batch: int, anchors: int, held: ExitStack) -> Scratch:
        """Take it; ``held`` gives it back."""
        of_image = anchors * 8, anchors * 4, TALLY_BYTES, MOST_CANDIDATES * ROW_BYTES, OVERLAPS_BYTES
        made = cls(*(held.enter_context(cuda.DeviceBuffer(batch * size)) for size in of_image))
        made.clear()
        return made

    def clear(self) -> None:
        """Forget what half a batch left.

        Raises:
            CudaRefused: the runtime refused it.
        """
        self.tallies.fill(np.zeros(self.tallies.nbytes // 4, np.int32))


class CudaSlot(Resource):
    """The memory, marks and launches of one batch. Its owner says when which part is queued.

    Args:
        index: of the slot in ``runner``.
        runner: computes between input and output.
        kernels: of its device.
        scratch: shared with the other slot.
        integrated: the GPU shares the host's memory.

    Attributes:
        done: reached when the objects are in host memory.
        graphs: of a batch's work from the input on, by number of images.
    """

    def __init__(
        self, index: int, runner: DeviceRunner, kernels: Kernels, scratch: Scratch, *, integrated: bool
    ) -> None:
        self.index = index
        self.graphs: dict[int, cuda.Graph] = {}
        self._runner, self._kernels, self._scratch = runner, kernels, scratch
        self._launches: dict[int, tuple[Launch, tuple[Launch, ...]]] = {}
        self._ticket = 0
        batch = runner.signature.batch
        self._held = ExitStack()
        with ExitStack() as taken:
            self._intakes = [taken.enter_context(Intake(integrated=integrated)) for _ in range(batch)]
            self._arrived, self._ready, self._begun = (taken.enter_context(cuda.Event(timed=True)) for _ in range(3))
            self.done = taken.enter_context(cuda.Event(timed=True))
            frames_bytes, images_bytes = batch * ctypes.sizeof(FrameBlock), batch * ctypes.sizeof(ImageBlock)
            self._told = taken.enter_context(cuda.PinnedBuffer((frames_bytes + images_bytes,), np.uint8))
            self._blocks = taken.enter_context(cuda.DeviceBuffer(self._told.nbytes))
            self._images_address = self._blocks.address + frames_bytes
            self._frames_told = (FrameBlock * batch).from_address(self._told.address)
            self._images_told = (ImageBlock * batch).from_address(self._told.address + frames_bytes)
            self._answers_bytes = batch * ctypes.sizeof(Answer)
            said_bytes = self._answers_bytes + batch * MOST_CANDIDATES * ROW_BYTES
            self._said = taken.enter_context(cuda.PinnedBuffer((said_bytes,), np.uint8))
            self._found = taken.enter_context(cuda.DeviceBuffer(said_bytes))
            self._answers = (Answer * batch).from_address(self._said.address)
            rows = self._said.array[self._answers_bytes :].view(np.float32)
            self._rows: NDArray[np.float32] = rows.reshape(batch, MOST_CANDIDATES, _ROW_VALUES)
            self._held = taken.pop_all()

    def prepare(self, frames: Sequence[Frame], limits: Sequence[Limits], stream: cuda.Stream) -> None:
        """Queue what brings frames into the network's input, and let what is queued in the runner wait for it.

        Raises:
            CudaRefused: a call was refused, or there is no memory.
            UnsupportedSpec: see ``image_block``.
        """
        self._ticket += 1
        self._arrived.record(stream)
        for row, (frame, limit) in enumerate(zip(frames, limits, strict=True)):
            place = placement(frame.resolution_wh, self._runner.signature.resolution_hw)
            self._images_told[row] = image_block(limit, place, frame.resolution_wh, self._ticket_of(row))
            there = self._intakes[row].put(frame.image, frame.memory, stream, frame.pixels, frame.colorimetry)
            self._frames_told[row] = frame_block(there, place)
        stream.copy(self._blocks.address, self._told.address, self._told.nbytes)
        self._launches_of(len(frames))[0].queue(stream)
        self._ready.record(stream)
        self._runner.stream.wait_for(self._ready)
        self._begun.record(self._runner.stream)

    def infer(self, count: int) -> None:
        """Queue all from the network's input to objects in host memory; it may be recorded.

        Raises:
            InferenceError: the library or CUDA refused.
        """
        self._runner.enqueue(self.index, count)
        for launch in self._launches_of(count)[1]:
            launch.queue(self._runner.stream)
        self._runner.stream.copy(self._said.address, self._found.address, self._said_bytes(count))

    def times_ms(self) -> tuple[float, float]:
        """Of a batch that is done: what the GPU took to bring the frames into the input, and from there to the end."""
        return self._ready.ms_since(self._arrived), self.done.ms_since(self._begun)

    def found(self, frames: Sequence[Frame]) -> tuple[Detections, ...]:
        """What was found in the frames of a batch that is done, in pixels of each, best first.

        Raises:
            InferenceError: the GPU answered for another batch.
            NotFinite: the network's scores for a frame are not finite.
        """
        return tuple(self._found_in(row, frame) for row, frame in enumerate(frames))

    def poll(self) -> None:
        """Have whoever waits for ``done`` ask all the time instead of sleeping. Nothing is queued meanwhile."""
        self.done, asleep = self._held.enter_context(cuda.Event(timed=True, sleeps=False)), self.done
        asleep.close()

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        for graph in self.graphs.values():
            graph.close()
        self.graphs.clear()
        self._held.close()

    def _ticket_of(self, row: int) -> int:
        return (self._ticket * len(self._intakes) + row) & 0x7FFFFFFF

    def _said_bytes(self, count: int) -> int:
        """Answers lie before all rows, and only the rows of the last image can be left away."""
        return self._answers_bytes + count * MOST_CANDIDATES * ROW_BYTES

    def _found_in(self, row: int, frame: Frame) -> Detections:
        answer, ticket = self._answers[row], self._ticket_of(row)
        if answer.ticket != ticket:
            raise InferenceError(
                f"the GPU answered for image {answer.ticket} where {ticket} was asked for",
                remedy="restart the service; if it comes back, report it with the log",
            )
        if answer.broken:
            raise NotFinite(frame.camera)
        kept = self._rows[row, : answer.rows]
        return Detections(kept[:, :4].copy(), kept[:, 4].copy(), kept[:, 5].astype(np.int32))

    def _launches_of(self, count: int) -> tuple[Launch, tuple[Launch, ...]]:
        """Letterbox, and what reads the output, for so many images."""
        known = self._launches.get(count)
        if known is None:
            known = self._launches[count] = self._letterbox(count), self._detections(count)
        return known

    def _letterbox(self, count: int) -> Launch:
        height, width = self._runner.signature.resolution_hw
        grid = -(-width // BLOCK_XY[0]), -(-height // BLOCK_XY[1]), count
        given = [*_addresses(self._blocks.address, self._input), ctypes.c_int(width), ctypes.c_int(height)]
        kernel = f"letterbox_f{self._runner.input_dtype.itemsize * 8}"
        return self._kernels.letterbox.prepared(kernel, grid, (*BLOCK_XY, 1), given)

    def _detections(self, count: int) -> tuple[Launch, ...]:
        runner, scratch, module = self._runner, self._scratch, self._kernels.detections
        bits = runner.output_dtype.itemsize * 8
        anchors = ctypes.c_int(runner.anchors)
        classes, most = ctypes.c_int(len(runner.signature.class_names)), ctypes.c_int(MOST_CANDIDATES)
        output, images, keys, labels, tallies, rows, overlapped, answers, found = _addresses(
            *(runner.slots[self.index].output_address, self._images_address),
            *(one.address for one in (scratch.keys, scratch.labels, scratch.tallies, scratch.rows, scratch.overlapped)),
            *(self._found.address, self._found.address + self._answers_bytes),
        )
        every, block, few = (-(-runner.anchors // THREADS), count, 1), (THREADS, 1, 1), (RANKED_THREADS, 1, 1)
        pairs = MOST_CANDIDATES * MOST_CANDIDATES // 32 // THREADS, count, 1
        best = [output, images, keys, labels, tallies, anchors, classes]
        order = [output, images, keys, labels, tallies, rows, anchors, classes]
        return (
            module.prepared(f"candidates_f{bits}", every, block, best),
            module.prepared(f"ranked_f{bits}", (-(-runner.anchors // RANKED_THREADS), count, 1), few, order),
            module.prepared("overlaps", pairs, block, [rows, tallies, images, overlapped]),
            module.prepared("kept", (count, 1, 1), block, [rows, overlapped, images, tallies, found, answers, most]),
        )

    @property
    def _input(self) -> int:
        return self._runner.slots[self.index].input_address


def _addresses(*values: int) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(value) for value in values]
