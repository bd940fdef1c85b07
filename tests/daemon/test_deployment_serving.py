"""The frame loop as the supervisor sees it: asked for a swap it tells when it is done; frames count for their plan."""

from __future__ import annotations

import queue
import threading
import time
from datetime import datetime, timezone
from types import SimpleNamespace

import numpy as np
import pytest
from waiting import LIMIT_S

from vajra_edge.config.settings import Settings
from vajra_edge.daemon.deployment import Serving
from vajra_edge.daemon.events import Job
from vajra_edge.daemon.watchdog import Beats
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.inference.detector import Filter, HostDetector
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.inference.pipeline import LoopFailed, Swapped
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.plans.spec import Precision, Target
from vajra_edge.types import Frame


class Network:
    """A runner that finds nothing once it is let go, or fails; it waits from the first call on where it is held."""

    def __init__(self, names: tuple[str, ...], held: bool, error: Exception | None) -> None:
        self.signature = Signature("images", "output0", Layout.RAW, 1, (64, 64), False, False, 32, names)
        self.called, self.let_go, self.error, self.closed = threading.Event(), threading.Event(), error, 0
        if not held:
            self.let_go.set()

    def infer(self, batch):
        self.called.set()
        assert self.let_go.wait(LIMIT_S)
        if self.error:
            raise self.error
        return np.zeros((len(batch), 4 + len(self.signature.class_names), 4), np.float32)

    def close(self) -> None:
        self.closed += 1


class Loop:
    """A serving loop of one camera, its inbox, and what it gave to the publisher."""

    def __init__(self) -> None:
        self.inbox, self.sunk, self.mailboxes = queue.SimpleQueue(), [], Mailboxes()
        self.mailboxes.add("gate")
        self.serving = Serving(self.mailboxes, self.sink, self.inbox.put, Beats(), settings(), None)
        self.seq = 0

    def sink(self, result):
        self.sunk.append((result.frame.seq, result.plan.tag.fingerprint))

    def frame(self) -> None:
        image, now = np.zeros((64, 64, 3), np.uint8), datetime.now(timezone.utc)
        self.mailboxes.put(Frame(image, time.monotonic_ns(), now, self.seq, "gate"))
        self.seq += 1

    def ask(self, number: int, names=("person", "car"), *, held=False, error=None) -> Network:
        """Have a plan of that number swapped in."""
        network = Network(names, held, error)
        self.serving.swap(Job(number, f"plan {number}"), loaded(network, f"plan {number}"))
        return network

    def serve(self, number: int, **options) -> Network:
        """The same, and hear of it."""
        network = self.ask(number, **options)
        self.hear(number)
        return network

    def hear(self, number: int):
        event = self.inbox.get(timeout=LIMIT_S)
        assert isinstance(event, Swapped)
        served = self.serving.swapped(event)
        assert served.job.number == number
        return served


def settings(**detect) -> Settings:
    camera = {"id": "gate", "source": "0"}
    given = {"weights": {"path": "/net.onnx"}, "cameras": [camera], "detect": detect}
    return Settings.model_validate(given)


def loaded(network: Network, fingerprint: str):
    """What ``Plans`` gives for a load, as far as the loop reads it."""
    manifest = SimpleNamespace(signature=network.signature, verify={}, precision=Precision.FP32, target=Target("cpu"))
    tag = EngineTag(fingerprint, "fp32", "cpu", network.signature.class_names)
    return SimpleNamespace(detector=HostDetector(network), manifest=manifest, tag=tag)


@pytest.fixture
def loop():
    made = Loop()
    made.serving.start()
    yield made
    assert made.serving.stop(LIMIT_S)


def test_until_the_swap_is_heard_of_the_old_plan_serves_and_neither_may_be_closed(loop):
    old = loop.serve(1, held=True)
    loop.frame()
    assert old.called.wait(LIMIT_S)
    loop.ask(2)
    assert loop.serving.ready.tag.fingerprint == "plan 1"
    assert loop.serving.awaited == "plan 2"
    assert (loop.serving.holds(Job(1, "plan 1")), loop.serving.holds(Job(2, "plan 2"))) == (True, True)
    old.let_go.set()
    loop.hear(2)
    assert loop.serving.ready.tag.fingerprint == "plan 2"
    assert loop.serving.awaited is None
    assert (loop.serving.holds(Job(1, "plan 1")), loop.serving.holds(Job(2, "plan 2"))) == (False, True)


def test_the_first_plan_serves_from_the_asking_on_for_there_is_none_before_it(loop):
    loop.ask(1)
    assert loop.serving.ready.tag.fingerprint == "plan 1"
    assert loop.serving.awaited is None


def test_the_last_frames_of_a_plan_count_for_it_and_not_in_the_probation_of_the_next(loop):
    old = loop.ask(1, held=True)
    before = loop.hear(1)
    loop.frame()
    assert old.called.wait(LIMIT_S)
    loop.ask(2)
    old.let_go.set()
    after = loop.hear(2)
    assert loop.sunk == [(0, "plan 1")]
    assert (before.tally.figures().frames, after.tally.figures().frames) == (1, 0)


def test_two_loads_of_one_plan_are_told_apart(loop):
    loop.ask(1)
    loop.hear(1)
    network = Network(("person", "car"), False, None)
    loop.serving.swap(Job(2, "plan 1"), loaded(network, "plan 1"))
    loop.hear(2)
    assert (loop.serving.holds(Job(1, "plan 1")), loop.serving.holds(Job(2, "plan 1"))) == (False, True)


def test_of_two_swaps_asked_one_after_the_other_the_second_serves_in_the_end(loop):
    old = loop.serve(1, held=True)
    loop.frame()
    assert old.called.wait(LIMIT_S)
    passing = loop.ask(2)
    loop.ask(3)
    assert loop.serving.awaited == "plan 3"
    old.let_go.set()
    loop.hear(2)
    assert loop.serving.holds(Job(2, "plan 2")), "the loop may not have left it yet"
    loop.hear(3)
    assert not loop.serving.holds(Job(2, "plan 2"))
    assert not passing.called.is_set()


def test_settings_that_change_while_a_swap_waits_are_read_with_the_classes_of_the_new_plan(loop, monkeypatch):
    old = loop.serve(1, names=("person", "car"), held=True)
    loop.frame()
    assert old.called.wait(LIMIT_S)
    new = Network(("car", "person"), False, None)
    ready = loaded(new, "plan 2")
    submitted: list[Filter] = []
    submit = ready.detector.submit
    monkeypatch.setattr(
        ready.detector, "submit", lambda frames, filters: submitted.extend(filters) or submit(frames, filters)
    )
    loop.serving.swap(Job(2, "plan 2"), ready)
    loop.serving.apply(settings(classes=("person",), confidence=0.75))
    old.let_go.set()
    loop.hear(2)
    loop.frame()
    assert new.called.wait(LIMIT_S)
    assert submitted == [Filter(0.75, frozenset({1}))]


def test_a_plan_that_fails_when_another_is_to_take_over_is_not_the_one_that_is_lost(loop):
    bad = loop.serve(1, held=True, error=RuntimeError("CUDA"))
    loop.frame()
    assert bad.called.wait(LIMIT_S)
    loop.ask(2)
    bad.let_go.set()
    failed = loop.inbox.get(timeout=LIMIT_S)
    assert isinstance(failed, LoopFailed)
    assert (failed.reason, failed.plan.job.number) == ("RuntimeError: CUDA", 1)
    assert not loop.serving.lost(failed)
    loop.hear(2)
    assert not loop.serving.lost(failed)


def test_the_newest_plan_is_lost_when_it_fails_and_stays_held_until_another_serves(loop):
    loop.serve(1, error=RuntimeError("CUDA"))
    loop.frame()
    failed = loop.inbox.get(timeout=LIMIT_S)
    assert loop.serving.lost(failed)
    assert loop.serving.holds(Job(1, "plan 1"))
    loop.serve(2)
    assert not loop.serving.holds(Job(1, "plan 1"))
    assert not loop.serving.lost(failed)


def test_a_stop_while_a_swap_waits_publishes_what_is_in_flight_and_closes_nothing():
    loop = Loop()
    loop.serving.start()
    old = loop.serve(1, held=True)
    loop.frame()
    assert old.called.wait(LIMIT_S)
    new = loop.ask(2)
    assert not loop.serving.stop(0.0)
    old.let_go.set()
    assert loop.serving.stop(LIMIT_S)
    assert loop.sunk == [(0, "plan 1")]
    assert (old.closed, new.closed) == (0, 0)
