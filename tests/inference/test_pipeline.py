from __future__ import annotations

import queue
import threading
import time
from collections import deque
from datetime import datetime, timezone

import numpy as np
import pytest
from waiting import LIMIT_S, wait_for

from vajra_edge.errors import InferenceError
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.detector import Batch, Filter, StageTimes
from vajra_edge.inference.pipeline import Exhausted, LoopFailed, Pipeline, Swapped
from vajra_edge.types import Detections, Frame

SIGNATURE = Signature("images", "output0", Layout.RAW, 2, (64, 64), False, False, 32, ("cat",))


class Feed:
    """Mailboxes with any number of frames; hands out at most ``limit`` at a time."""

    def __init__(self):
        self.frames = queue.SimpleQueue()

    def put(self, seq, camera="gate"):
        image = np.zeros((8, 8, 3), np.uint8)
        self.frames.put(Frame(image, time.monotonic_ns(), datetime.now(timezone.utc), seq, camera))

    def take(self, limit, timeout_s, gather_s):
        taken = []
        try:
            taken.append(self.frames.get(timeout=timeout_s) if timeout_s else self.frames.get_nowait())
            while len(taken) < limit:
                taken.append(self.frames.get_nowait())
        except queue.Empty:
            pass
        return taken


class CountingDetector:
    """Finds nothing, quickly; remembers the filters; fails at the frame it is told to."""

    def __init__(self, fails_at=None, inference_s=0.001):
        self.signature, self.fails_at, self.inference_s = SIGNATURE, fails_at, inference_s
        self.pending, self.filters, self.deepest, self.made = deque(), [], 0, []

    @property
    def in_flight(self):
        return len(self.pending)

    def submit(self, frames, filters):
        assert len(frames) <= self.signature.batch
        self.pending.append((tuple(frames), time.monotonic() + self.inference_s))
        self.filters += filters
        self.deepest = max(self.deepest, self.in_flight)

    def wait(self, timeout_s):
        time.sleep(min(timeout_s, 0.01))
        return True

    def collect(self):
        frames, ready_s = self.pending.popleft()
        time.sleep(max(0.0, ready_s - time.monotonic()))
        if any(frame.seq == self.fails_at for frame in frames):
            raise InferenceError("engine refused frame")
        found, unfiltered = (tuple(Detections.empty() for _ in frames) for _ in range(2))
        self.made.append(Batch(frames, found, unfiltered, StageTimes(0.1, 1.0, 0.1)))
        return self.made[-1]

    def close(self):
        raise AssertionError("a detector is closed by whoever made it")


class HeldDetector(CountingDetector):
    """Its batches are done when the test says so; ``fails_with`` is raised then."""

    def __init__(self, fails_with=None):
        super().__init__()
        self.done, self.asked_for, self.fails_with = threading.Event(), threading.Event(), fails_with

    def collect(self):
        self.asked_for.set()
        assert self.done.wait(LIMIT_S)
        batch = super().collect()
        if self.fails_with is not None:
            raise self.fails_with
        return batch


class Run:
    def __init__(self, **options):
        self.feed, self.sunk, self.events, self.beats = Feed(), [], queue.SimpleQueue(), []
        self.threads, self.results = set(), []
        self.pipeline = Pipeline(
            self.feed,
            self.sink,
            self.events.put,
            lambda: self.beats.append(time.monotonic()),
            **options,
        )

    def sink(self, result):
        self.threads.add(threading.current_thread().name)
        self.results.append(result)
        self.sunk.append((result.frame.camera, result.frame.seq, result.plan))

    def until(self, count):
        wait_for(lambda: len(self.sunk) >= count, step_s=0.002)

    def heard(self):
        return self.events.get(timeout=LIMIT_S)

    def busy_with(self, detector, tag="old"):
        """Frame 0 is in flight, and the loop waits for it."""
        self.pipeline.swap(detector, tag)
        assert self.heard() == Swapped(tag)
        self.feed.put(0)
        assert detector.asked_for.wait(LIMIT_S)


@pytest.fixture
def run():
    made = Run()
    made.pipeline.start()
    yield made
    assert made.pipeline.stop(LIMIT_S)


def test_every_frame_is_published_once_in_order(run):
    detector = CountingDetector()
    for seq in range(40):
        run.feed.put(seq)
    run.pipeline.swap(detector, "one")
    run.until(40)
    assert [seq for _, seq, _ in run.sunk] == list(range(40))
    made = [(one, *each) for one in detector.made for each in zip(one.frames, one.found, one.unfiltered, strict=True)]
    for result, (batch, frame, found, unfiltered) in zip(run.results, made, strict=True):
        assert result.frame is frame
        assert result.found is found, "each frame with what was found in it"
        assert result.unfiltered is unfiltered
        assert result.times is batch.times
    assert detector.deepest == 2
    assert run.pipeline.counters().published == {"gate": 40}
    assert run.pipeline.counters().age_p99_ms > 0


def test_a_lone_frame_does_not_wait_for_the_next(run):
    run.pipeline.swap(CountingDetector(), "one")
    run.feed.put(0)
    run.until(1)


def test_swap_publishes_what_is_in_flight_under_the_old_tag_and_nothing_is_lost(run):
    first, second = CountingDetector(inference_s=0.005), CountingDetector()
    run.pipeline.swap(first, "old")
    for seq in range(30):
        run.feed.put(seq)
    run.until(5)
    run.pipeline.swap(second, "new")
    run.feed.put(30)  # the others may all have gone by
    assert [run.heard(), run.heard()] == [Swapped("old"), Swapped("new")]
    assert first.in_flight == 0
    run.until(31)
    tags = [tag for _, _, tag in run.sunk]
    assert [seq for _, seq, _ in run.sunk] == list(range(31))
    assert tags == sorted(tags, reverse=True)
    assert set(tags) == {"old", "new"}


def test_without_a_detector_it_waits_and_beats(run):
    run.feed.put(0)
    wait_for(lambda: len(run.beats) > 2)
    assert not run.sunk


def test_a_swap_returns_at_once_and_the_loop_alone_publishes_what_the_old_plan_has_in_flight(run):
    old, new = HeldDetector(), CountingDetector()
    run.busy_with(old)
    run.pipeline.swap(new, "new")
    assert run.events.empty(), "the old plan has a batch in flight"
    assert run.sunk == []
    old.done.set()
    assert run.heard() == Swapped("new")
    assert run.sunk == [("gate", 0, "old")]
    assert run.threads == {"pipeline"}


def test_swaps_are_done_in_the_order_of_asking_and_each_is_told(run):
    old, passing, new = HeldDetector(), CountingDetector(), CountingDetector()
    run.busy_with(old)
    run.pipeline.swap(passing, "passing")
    run.pipeline.swap(new, "new")
    old.done.set()
    assert [run.heard(), run.heard()] == [Swapped("passing"), Swapped("new")]
    run.feed.put(1)
    run.until(2)
    assert run.sunk == [("gate", 0, "old"), ("gate", 1, "new")]
    assert not passing.filters


def test_a_frame_that_comes_after_the_swap_was_asked_for_in_a_quiet_scene_goes_to_the_new_plan(run):
    run.pipeline.swap(CountingDetector(), "old")
    assert run.heard() == Swapped("old")
    run.pipeline.swap(CountingDetector(), "new")
    run.feed.put(0)
    run.until(1)
    assert run.sunk == [("gate", 0, "new")]


def test_a_stop_while_a_swap_is_asked_for_publishes_what_is_in_flight_and_swaps_nothing():
    run, old = Run(), HeldDetector()
    run.pipeline.start()
    run.busy_with(old)
    run.pipeline.swap(CountingDetector(), "new")
    assert not run.pipeline.stop(0)
    old.done.set()
    assert run.pipeline.stop(LIMIT_S)
    assert run.sunk == [("gate", 0, "old")]
    assert run.events.empty()


def test_a_refused_frame_becomes_an_event_and_the_loop_waits_for_another_plan(run):
    run.pipeline.swap(CountingDetector(fails_at=3), "one")
    assert run.heard() == Swapped("one")
    run.feed.put(3)
    assert run.heard() == LoopFailed("engine refused frame", "one")
    run.pipeline.swap(CountingDetector(), "two")
    assert run.heard() == Swapped("two")
    sunk = len(run.sunk)
    run.feed.put(6)
    run.until(sunk + 1)
    assert run.sunk[-1] == ("gate", 6, "two")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(InferenceError("engine refused frame"), "engine refused frame"), (RuntimeError("CUDA"), "RuntimeError: CUDA")],
)
def test_a_replaced_engine_that_fails_on_its_last_frame_is_told_and_the_new_one_serves(run, error, reason):
    bad = HeldDetector(fails_with=error)
    run.busy_with(bad)
    run.pipeline.swap(CountingDetector(), "new")
    bad.done.set()
    assert [run.heard(), run.heard()] == [LoopFailed(reason, "old"), Swapped("new")]
    run.feed.put(1)
    run.until(1)
    assert run.sunk == [("gate", 1, "new")]


def test_an_engine_that_fails_while_the_loop_ends_is_told_too():
    run, bad = Run(), HeldDetector(fails_with=RuntimeError("CUDA"))
    run.pipeline.start()
    run.busy_with(bad)
    assert not run.pipeline.stop(0)
    bad.done.set()
    assert run.pipeline.stop(LIMIT_S)
    assert run.heard() == LoopFailed("RuntimeError: CUDA", "old")


def test_it_ends_after_the_asked_number_of_messages():
    run = Run(max_frames=5)
    run.pipeline.swap(CountingDetector(), "one")
    for seq in range(20):
        run.feed.put(seq)
    run.pipeline.start()
    assert [run.heard(), run.heard()] == [Swapped("one"), Exhausted(5)]
    assert run.pipeline.stop(LIMIT_S)
    assert len(run.sunk) == 5


def test_thresholds_apply_to_the_next_frame_without_a_swap(run):
    detector = CountingDetector()
    run.pipeline.swap(detector, "one")
    run.feed.put(0)
    run.until(1)
    run.pipeline.apply({"gate": Filter(0.9)}, 0.0)
    run.feed.put(1)
    run.until(2)
    assert [filter_.confidence for filter_ in detector.filters] == [0.25, 0.9]


def test_the_class_filter_changes_with_the_plan_and_not_one_frame_later(run):
    old, new = CountingDetector(), CountingDetector()
    run.pipeline.swap(old, "old", {"gate": Filter(0.5, frozenset({7}))})
    run.feed.put(0)
    run.until(1)
    run.pipeline.swap(new, "new", {"gate": Filter(0.5, frozenset({2}))})
    run.feed.put(1)
    run.until(2)
    assert [filter_.class_ids for filter_ in (*old.filters, *new.filters)] == [frozenset({7}), frozenset({2})]


def test_filters_asked_for_while_a_swap_waits_are_for_the_new_plan(run):
    """They are given in class ids, and those are the new plan's."""
    old, new = HeldDetector(), CountingDetector()
    run.busy_with(old)
    run.pipeline.swap(new, "new", {"gate": Filter(0.5, frozenset({2}))})
    run.pipeline.apply({"gate": Filter(0.9, frozenset({3}))}, 0.0)
    old.done.set()
    assert run.heard() == Swapped("new")
    run.feed.put(1)
    run.until(2)
    assert new.filters == [Filter(0.9, frozenset({3}))]
