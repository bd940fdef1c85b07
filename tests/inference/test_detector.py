from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
import tiny
from colours import stored
from waiting import LIMIT_S

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.build.accuracy_check import counted
from vajra_edge.errors import InferenceError, NotFinite
from vajra_edge.graph import signature
from vajra_edge.graph.passes.nms import add_nms
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.heads.detect import best_class
from vajra_edge.inference.detector import Filter, HostDetector
from vajra_edge.pixel_format import USUAL, PixelFormat
from vajra_edge.plans.spec import EngineSpec, NmsSpec
from vajra_edge.types import Frame

SIGNATURE = Signature(
    "images", "detections", Layout.DETECTIONS, 2, (64, 64), False, False, 32, ("cat", "dog"), 0.7, 3, 10
)
ROWS = [[16, 16, 48, 48, 0.9, 1], [0, 0, 64, 64, 0.4, 0], [0, 0, 0, 0, 0, 0]]


class FixedRunner:
    """Answers every image with its rows, and may be held or made to fail."""

    def __init__(self):
        self.signature, self.closed = SIGNATURE, 0
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False
        self.seen = []
        self.rows = [list(row) for row in ROWS]

    def infer(self, batch):
        self.gate.wait(LIMIT_S)
        self.seen.append(batch.copy())
        if self.fails:
            raise InferenceError("refused")
        return np.array([self.rows] * len(batch), np.float32)

    def close(self):
        self.closed += 1


def frame(value=0, camera="gate", size=(64, 128)):
    return Frame(np.full((*size, 3), value, np.uint8), 0, datetime.now(timezone.utc), 0, camera)


@pytest.fixture
def runner():
    return FixedRunner()


@pytest.fixture
def detector(runner):
    detector = HostDetector(runner)
    yield detector
    runner.gate.set()
    detector.close()


def test_boxes_are_in_pixels_of_the_frame(detector):
    found = detector.detect(frame())
    np.testing.assert_allclose(found.xyxy, [[32, 0, 96, 64], [0, 0, 128, 64]])
    assert found.class_id.tolist() == [1, 0]


def test_each_frame_has_its_own_filter(detector):
    detector.submit([frame(camera="a"), frame(camera="b")], [Filter(0.5), Filter(0.1, frozenset({0}))])
    batch = detector.collect()
    assert [found.class_id.tolist() for found in batch.found] == [[1], [0]]
    assert [one.camera for one in batch.frames] == ["a", "b"]


def test_what_the_gate_would_count_is_told_whatever_is_published(detector, runner):
    filters = [Filter(), Filter(0.8), Filter(0.01), Filter(0.25, frozenset()), Filter(0.01, frozenset({0}))]
    runner.rows[2] = [0, 0, 9, 9, 0.2, 0]
    found, certain, weakest = [], [], []
    for one in filters:
        detector.submit([frame()], [one])
        batch = detector.collect()
        found += map(len, batch.found)
        certain += map(counted, batch.unfiltered)
        weakest.append(round(float(batch.unfiltered[0].confidence.min()), 2))
    assert found == [2, 1, 3, 0, 2]
    assert certain == [2] * 5
    assert weakest == [0.4, 0.4, 0.2, 0.4, 0.2]


@pytest.mark.parametrize("confidence", [0.3, 0.6])
def test_counting_changes_nothing_that_is_published_of_a_raw_output(confidence):
    dice = np.random.default_rng(0)
    raw = np.concatenate([dice.uniform(10, 50, (4, 200)), dice.uniform(0, 0.9, (2, 200))]).astype(np.float32)
    runner = FixedRunner()
    runner.rows, runner.signature = raw.tolist(), replace(SIGNATURE, layout=Layout.RAW, nms_iou=None, max_det=None)
    detector = HostDetector(runner, NmsSpec(max_det=20))
    found = detector.detect(frame(size=(64, 64)), Filter(confidence))
    detector.close()
    alone = best_class(raw, confidence, 0.7, 20)
    np.testing.assert_array_equal(found.confidence, alone.confidence)
    np.testing.assert_array_equal(found.class_id, alone.class_id)


def test_nms_of_a_raw_output_changes_between_two_frames():
    runner = FixedRunner()
    anchors = [(20, 20, 20, 20, 0.9, 0), (22, 20, 20, 20, 0.8, 0), (50, 50, 9, 9, 0.7, 0)]
    runner.rows = np.array(anchors, np.float32).T.tolist()
    runner.signature = replace(SIGNATURE, layout=Layout.RAW, nms_iou=None, max_det=None)
    detector = HostDetector(runner, NmsSpec(iou=0.9))
    counts = [len(detector.detect(frame(size=(64, 64))))]
    for nms in (NmsSpec(iou=0.5), NmsSpec(iou=0.5, max_det=1), NmsSpec(iou=0.9, top_k=2), NmsSpec(iou=0.9)):
        detector.set_nms(nms)
        counts.append(len(detector.detect(frame(size=(64, 64)))))
    detector.close()
    assert counts == [3, 2, 1, 2, 3]


def test_nms_that_is_baked_in_stays(detector):
    detector.set_nms(NmsSpec(max_det=1))
    assert len(detector.detect(frame())) == 2


def test_the_second_batch_is_prepared_while_the_first_is_inferred(detector, runner):
    runner.gate.clear()
    detector.submit([frame(10)], [Filter()])
    detector.submit([frame(200)], [Filter()])
    assert detector.in_flight == 2
    assert not detector.wait(0.01)
    runner.gate.set()
    detector.collect()
    detector.collect()
    assert [batch[0, 0, 32, 32].round(4) for batch in runner.seen] == [round(10 / 255, 4), round(200 / 255, 4)]


def test_a_third_batch_and_too_many_frames_are_refused(detector, runner):
    with pytest.raises(InferenceError, match=r"3 frames.*batch 2"):
        detector.submit([frame()] * 3, [Filter()] * 3)
    runner.gate.clear()
    detector.submit([frame()], [Filter()])
    detector.submit([frame()], [Filter()])
    with pytest.raises(InferenceError, match="2 batches in flight"):
        detector.submit([frame()], [Filter()])


def test_a_failing_runner_raises_at_collect(detector, runner):
    runner.fails = True
    detector.submit([frame()], [Filter()])
    with pytest.raises(InferenceError, match="refused"):
        detector.collect()
    assert detector.in_flight == 0


@pytest.mark.parametrize("in_graph", [False, True], ids=["NMS on the host", "NMS in the network"])
def test_a_picture_whose_scores_are_no_numbers_is_no_empty_scene_and_the_next_one_is_found(in_graph):
    content = tiny.dazzled(tiny.network(128))
    content = add_nms(content, NmsSpec()) if in_graph else content
    detector = HostDetector(OnnxRuntime().load(content, signature.read(content), EngineSpec()))
    scene = tiny.scene(128, 3)
    detector.submit([frame(255, "yard", (128, 128))], [Filter()])
    detector.submit([replace(frame(), image=scene.image)], [Filter()])
    with pytest.raises(NotFinite, match=r"scores for 'yard' are not finite; choose a higher precision"):
        detector.collect()
    assert len(detector.collect().found[0]) == len(scene.class_id)
    detector.close()


def test_close_waits_and_may_be_called_twice(detector, runner):
    detector.submit([frame()], [Filter()])
    detector.close()
    detector.close()
    assert runner.closed == 1
    assert len(runner.seen) == 1


@pytest.mark.parametrize("pixels", PixelFormat)
@pytest.mark.parametrize("size", [(64, 64), (128, 96), (30, 50)])
def test_frames_of_each_format_are_seen_in_the_same_colours(detector, runner, pixels, size):
    image = np.full((*size, 3), (40, 90, 200), np.uint8)
    plain = replace(frame(), image=image)
    detector.detect(replace(plain, image=stored(image, pixels, USUAL), pixels=pixels))
    detector.detect(plain)
    np.testing.assert_allclose(runner.seen[0], runner.seen[1], rtol=0, atol=2.1 / 255)
    if pixels is PixelFormat.BGRX:
        np.testing.assert_array_equal(runner.seen[0], runner.seen[1])
