"""What our kernels take on this GPU, each, for as many candidates as asked; no library of networks is needed.

python tests/bench/kernel_times.py
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.cuda.module import Launch
from vajra_edge.backends.device_runner import DeviceSlot
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.heads import Limits
from vajra_edge.heads.detect import best_class
from vajra_edge.inference.cuda_slot import CudaSlot, Scratch
from vajra_edge.types import Frame

ANCHORS, CLASSES, TIMES = 8400, 80, 100
NAMES = ("candidates", "ranked", "overlaps", "kept")


def output_of(candidates: int, seed: int) -> Any:
    """(1, 84, 8400) with so many anchors above 0.25, in clusters."""
    rng = np.random.default_rng(seed)
    scores = rng.random((CLASSES, ANCHORS), np.float32) * 0.2
    chosen = rng.permutation(ANCHORS)[:candidates]
    scores[rng.integers(0, CLASSES, candidates), chosen] = 0.3 + 0.7 * rng.random(candidates, np.float32)
    centres = rng.uniform(0, 640, (60, 2))[rng.integers(0, 60, ANCHORS)] + rng.normal(0, 12, (ANCHORS, 2))
    sizes = rng.uniform(20, 120, (ANCHORS, 2))
    return np.concatenate([centres.T, sizes.T, scores]).astype(np.float32)[None]


def queued(launches: Sequence[Launch], stream: cuda.Stream) -> None:
    for one in launches:
        one.queue(stream)


def main() -> None:
    with ExitStack() as held:
        device = held.enter_context(cuda.DeviceBuffer(4 * 3 * 640 * 640))
        made = held.enter_context(cuda.DeviceBuffer(4 * 84 * ANCHORS))
        stream, ahead = (held.enter_context(cuda.Stream()) for _ in range(2))
        names = tuple(str(one) for one in range(CLASSES))
        signature = Signature("images", "output0", Layout.RAW, 1, (640, 640), False, False, 32, names)
        slots = (DeviceSlot(device.address, made.address),)
        runner = SimpleNamespace(
            signature=signature, slots=slots, stream=stream, anchors=ANCHORS, gpu=0, not_recorded="",
            input_dtype=np.dtype(np.float32), output_dtype=np.dtype(np.float32), enqueue=lambda slot, count: None,
        )  # fmt: skip
        kernels = held.enter_context(Kernels(0, None))
        scratch = Scratch.of(1, ANCHORS, held)
        slot = held.enter_context(CudaSlot(0, cast("Any", runner), kernels, scratch, integrated=False))
        marks = [held.enter_context(cuda.Event(timed=True)) for _ in range(len(NAMES) + 1)]
        frame = Frame(np.zeros((1080, 1920, 3), np.uint8), 0, datetime.now(timezone.utc), 0, "gate")
        for candidates in (30, 500, 2000, ANCHORS):
            output = output_of(candidates, candidates)
            made.fill(output)
            limits = Limits(0.25, 0.7, 300, 500)
            slot.prepare([frame], [limits], ahead)
            slot.infer(1)
            stream.synchronize()
            (found,), wanted = slot.found([frame]), best_class(output[0], 0.25, 0.7, 300, 500)
            same = bool(np.array_equal(found.confidence, wanted.confidence)) and bool(
                np.array_equal(found.class_id, wanted.class_id)
            )
            launches, spent_us = slot._launches_of(1)[1], np.zeros(len(NAMES))
            for _ in range(TIMES):
                marks[0].record(stream)
                for index, one in enumerate(launches):
                    one.queue(stream)
                    marks[index + 1].record(stream)
                stream.synchronize()
                spent_us += [marks[index + 1].ms_since(marks[index]) * 1e3 / TIMES for index in range(len(NAMES))]
            told = ", ".join(f"{name} {each_us:.1f}" for name, each_us in zip(NAMES, spent_us, strict=True))
            with cuda.Graph(stream, partial(queued, launches, stream)) as graph:
                marks[0].record(stream)
                for _ in range(TIMES):
                    graph.launch(stream)
                marks[1].record(stream)
                stream.synchronize()
                whole_us = marks[1].ms_since(marks[0]) * 1e3 / TIMES
            print(f"{candidates} candidates, {len(found)} objects, as on the host: {same}")
            print(f"  us: {told}; all as a graph: {whole_us:.1f}")


if __name__ == "__main__":
    main()
