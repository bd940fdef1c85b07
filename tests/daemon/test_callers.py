from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from vajra_edge.daemon.control.callers import HEARTBEAT_S, Preview, RebuildAsked, Waiting, outcome
from vajra_edge.daemon.events import Job
from vajra_edge.daemon.state_machine import Phase, State, Step
from vajra_edge.errors import ControlError
from vajra_edge.telemetry.plan_view import PlanView
from vajra_edge.telemetry.status import BuildView

SERVED = State(Phase.SERVING, wanted="A", serving=Job(0, "A"))
PREVIEW = Preview("B", "w.onnx", "0" * 64, "A", "missing", True, ("weights",), "", "onnxruntime", "", "")
PLAN = PlanView("A", "onnxruntime", "fp32", "fp32", "cpu", (256, 256), 1, ("car",), "w", "0", "2026-11-22", 1.0, None)


class Recorder:
    """A caller that keeps what it hears."""

    def __init__(self, *, listens=True):
        self.heard, self.listens = [], listens

    def accepted(self, content):
        """Nothing that these tests look at."""

    def progress(self, content):
        self.heard.append(("progress", content))
        return self.listens

    def done(self, content):
        self.heard.append(("done", content))

    def error(self, reason):
        self.heard.append(("error", reason))


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        (SERVED, ""),
        (replace(SERVED, step=Step.BUILD, building=Job(1, "A")), None),
        (replace(SERVED, step=Step.LOAD, loading=Job(1, "A")), None),
        (replace(SERVED, wanted="B", reason="truncated"), "truncated"),
        (replace(SERVED, wanted="B", step=Step.WAIT, reason="killed"), "killed (it is tried again by itself)"),
        (replace(SERVED, wanted="B", going_back=True), None),
        (replace(SERVED, phase=Phase.STOPPING), "the daemon is stopping"),
        (State(Phase.BLOCKED), "there is nothing to build"),
    ],
)
def test_outcomes(s, expected):
    assert outcome(s) == expected


def test_a_waiting_caller_hears_news_at_once_and_otherwise_a_heartbeat():
    waiting, caller = Waiting(), Recorder()
    building = replace(SERVED, wanted="B", step=Step.BUILD, building=Job(1, "B"))
    waiting.add(caller, PREVIEW, PLAN)
    view = BuildView("B", quick=False)
    for now_s, percent in ((0.0, 0.0), (0.1, 0.0), (0.2, 40.0), (0.3, 40.0), (0.3 + HEARTBEAT_S, 40.0)):
        waiting.look(building, PLAN, replace(view, percent=percent), now_s, swapping=False)
    assert [content["building"]["percent"] for _, content in caller.heard] == [0.0, 40.0, 40.0]
    new = replace(PLAN, fingerprint="B", built_at="2026-11-23")
    decided = replace(SERVED, wanted="B", serving=Job(2, "B"))
    waiting.look(decided, PLAN, None, 8.9, swapping=True)
    assert caller.heard[-1][0] == "progress", "the plan before it has frames in flight"
    waiting.look(decided, new, None, 9.0, swapping=False)
    kind, content = caller.heard[-1]
    assert (kind, content["built"], content["serving"], content["why"]) == ("done", True, "B", ("weights",))
    waiting.look(SERVED, new, None, 20.0, swapping=False)
    assert len(caller.heard) == 5


def test_who_left_is_not_waited_for():
    waiting, gone, there = Waiting(), Recorder(listens=False), Recorder()
    building = replace(SERVED, wanted="B", step=Step.BUILD, building=Job(1, "B"))
    for caller in (gone, there):
        waiting.add(caller, PREVIEW, PLAN)
    for now_s in (0.0, HEARTBEAT_S + 1.0):
        waiting.look(building, PLAN, None, now_s, swapping=False)
    assert [kind for kind, _ in gone.heard] == ["progress", "error"]
    assert [kind for kind, _ in there.heard] == ["progress", "progress"]


def test_a_failure_ends_every_wait_with_its_reason():
    waiting, callers = Waiting(), [Recorder(), Recorder()]
    for caller in callers:
        waiting.add(caller, PREVIEW, None)
    waiting.look(State(Phase.BLOCKED, wanted="B", reason="wrong output"), None, None, 0.0, swapping=False)
    assert [caller.heard for caller in callers] == [[("error", "wrong output")]] * 2


def test_a_request_is_read_strictly():
    caller = Recorder()
    assert RebuildAsked.of(caller, {"force": True}) == RebuildAsked(caller, force=True)
    deep = orjson.loads(b"[" * 1000 + b"]" * 1000)
    for fields in ({"force": 1}, {"force": deep}, {"url": "http://x"}):
        with pytest.raises(ControlError):
            RebuildAsked.of(caller, fields)


def test_a_stop_ends_the_wait_for_a_swap():
    waiting, caller = Waiting(), Recorder()
    waiting.add(caller, PREVIEW, PLAN)
    waiting.look(replace(SERVED, phase=Phase.STOPPING), PLAN, None, 0.0, swapping=True)
    assert caller.heard == [("error", "the daemon is stopping")]
