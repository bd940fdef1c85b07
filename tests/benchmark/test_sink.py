from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest

from vajra_edge.benchmark.sink import CountingSink, Heard
from vajra_edge.config.settings import MqttSettings
from vajra_edge.inference.detector import StageTimes
from vajra_edge.inference.pipeline import FrameResult
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topics
from vajra_edge.types import Detections, Frame

TIMES = StageTimes(1.0, 7.0, 0.5)
TAG = EngineTag("ab" * 32, "fp16", "gpu:0", ("person", "car"))
AT_NS = 3_000_000_000


def result(camera="yard", seq=0, objects=3):
    found = Detections(
        np.tile(np.array([1.5, 2.25, 30.0, 40.0], np.float32), (objects, 1)),
        np.linspace(0.9, 0.5, objects, dtype=np.float32),
        np.zeros(objects, np.int32),
    )
    image = np.zeros((48, 64, 3), np.uint8)
    frame = Frame(image, AT_NS, datetime(2026, 11, 28, tzinfo=timezone.utc), seq, camera)
    return FrameResult(frame, found, found, TAG, TIMES)


class Ticking:
    """Each look at it takes 2 ms."""

    def __init__(self):
        self.now_ns = AT_NS + 10_000_000

    def __call__(self):
        self.now_ns += 2_000_000
        return self.now_ns


def test_messages_are_the_publishers_to_the_byte():
    """What would be sent, taken out of a publisher that has no broker, but for the name of the count."""
    publisher = Publisher(MqttSettings(), Topics("vajra", "bench"), lambda event: None)
    publisher.expect(("yard", "door"))
    sink, sent = CountingSink("bench", Ticking()), []
    for one in (result(), result(seq=1, objects=0), result("door")):
        publisher._clock_ns = sink._clock_ns = Ticking()
        publisher.detections(one.frame, one.found, one.plan)
        sink._clock_ns = Ticking()
        sink(one)
        sent.append(publisher._backlog.take(publisher._topics, publisher._now_s()).payload)
    assert sink.size_bytes == sum(len(payload) for payload in sent)
    assert [len(json.loads(payload)["detections"]) for payload in sent] == [3, 0, 3]
    publisher.close(0.1)


def test_latency_ends_when_the_message_is_encoded():
    sink = CountingSink("bench", Ticking())
    sink(result())
    (heard,) = sink.heard
    assert heard.latency_ms == pytest.approx(14.0)
    assert heard.publish_ms == pytest.approx(2.0)
    assert heard.waiting_ms == pytest.approx(14.0 - 2.0 - 1.0 - 7.0 - 0.5)
    assert heard.times is TIMES


def test_waiting_is_never_below_nothing():
    heard = Heard("yard", 0.0, 5.0, 1.0, replace(TIMES, inference_ms=50.0))
    assert heard.waiting_ms == 0.0


def test_the_real_clock_is_that_of_frames():
    sink = CountingSink("bench")
    one = result()
    sink(replace(one, frame=replace(one.frame, captured_ns=time.monotonic_ns())))
    assert 0.0 <= sink.heard[0].latency_ms < 60_000.0
