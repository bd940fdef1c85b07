"""Sink: takes what the frame loop finds as the publisher does, to the last byte, and sends it nowhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vajra_edge.inference.detector import StageTimes
from vajra_edge.inference.pipeline import FrameResult
from vajra_edge.mqtt.messages import EngineTag, encode_detections

_EPOCH = "0" * 8  # as long as the outbox has it


@dataclass(frozen=True)
class Heard:
    """One message.

    Attributes:
        camera: whose.
        at_s: when it was ready.
        latency_ms: from the arrival of its frame until then.
        publish_ms: of that, encoding and numbering it.
        times: of its batch; messages of one batch share them.
    """

    camera: str
    at_s: float
    latency_ms: float
    publish_ms: float
    times: StageTimes

    @property
    def waiting_ms(self) -> float:
        """Of the latency, what nobody worked on this frame."""
        worked_ms = self.times.prepare_ms + self.times.inference_ms + self.times.decode_ms + self.publish_ms
        return max(self.latency_ms - worked_ms, 0.0)


class CountingSink:
    """Encodes and numbers each message, notes its time, and counts its bytes. Used by the loop's thread.

    Args:
        device: the device's id.
        clock_ns: the clock of ``Frame.captured_ns``.

    Attributes:
        heard: every message since it was made.
        size_bytes: of their payloads.
    """

    def __init__(self, device: str, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._device, self._clock_ns = device, clock_ns
        self._numbers: Counter[str] = Counter()
        self.heard: list[Heard] = []
        self.size_bytes = 0

    def __call__(self, result: FrameResult[EngineTag]) -> None:
        """One frame's result."""
        frame, began_ns = result.frame, self._clock_ns()
        draft = encode_detections(frame, result.found, result.plan, self._device, began_ns)
        payload = draft.numbered(_EPOCH, self._numbers[frame.camera])
        ended_ns = self._clock_ns()
        self._numbers[frame.camera] += 1
        self.size_bytes += len(payload)
        latency_ms, publish_ms = (ended_ns - frame.captured_ns) / 1e6, (ended_ns - began_ns) / 1e6
        self.heard.append(Heard(frame.camera, ended_ns / 1e9, latency_ms, publish_ms, result.times))
