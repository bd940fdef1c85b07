"""DeviceRunner: a loaded plan that computes from and to memory of the GPU, whatever library runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vajra_edge.backends import cuda
from vajra_edge.graph.signature import Signature

SLOTS = 2
"""Batches in flight: one is inferred while the next is prepared; more would only add latency."""


@dataclass(frozen=True)
class DeviceSlot:
    """Where one batch lies; the addresses stay for the runner's life.

    Attributes:
        input_address: (batch, 3, H, W) RGB 0..1, C-contiguous.
        output_address: the signature's output, C-contiguous.
    """

    input_address: int
    output_address: int


class DeviceRunner(Protocol):
    """One loaded plan on one GPU. Used by one thread at a time.

    Attributes:
        signature: what its tensors mean; its layout is RAW. It computes at ``resolution_hw``.
        gpu: CUDA's number of the device.
        stream: where it computes; two batches queued there never overlap.
        slots: ``SLOTS`` of them.
        input_dtype: float32 or float16.
        output_dtype: likewise.
        anchors: columns of the output.
        not_recorded: why what it queues may not be recorded into a CUDA graph; empty where it may.
    """

    signature: Signature
    gpu: int
    stream: cuda.Stream
    slots: tuple[DeviceSlot, ...]
    input_dtype: np.dtype[Any]
    output_dtype: np.dtype[Any]
    anchors: int
    not_recorded: str

    def enqueue(self, slot: int, count: int) -> None:
        """Queue inference of the first ``count`` images of a slot; the first time for a pair of both may wait.

        Raises:
            InferenceError: the library refused.
        """
        ...

    def close(self) -> None:
        """Wait for what is queued, then release everything; a second call does nothing."""
        ...
