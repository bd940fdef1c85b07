"""Loading in the background: every way a stored plan may fail to load is an event, never a silence."""

from __future__ import annotations

import queue
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import LIMIT_S, wait_for

from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.build.request import BuildRequest
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.build_process import BuildSucceeded
from vajra_edge.daemon.crash_log import CrashLog
from vajra_edge.daemon.deployment import STEADY_S, Plans
from vajra_edge.daemon.events import Build, BuildDone, BuildFailed, Job, Loaded, LoadFailed, MarkGood
from vajra_edge.daemon.trial import Outcome
from vajra_edge.inference import open_detector
from vajra_edge.plans import pin
from vajra_edge.plans.charges import Charged
from vajra_edge.plans.history import Cause, History
from vajra_edge.plans.pin import Pin
from vajra_edge.plans.spec import EngineSpec
from vajra_edge.plans.store import EngineStore


@pytest.fixture
def loading(built, tmp_path):
    """Plans over a copy of a store with one plan, its fingerprint, and the inbox."""
    state_dir = tmp_path / "state"
    shutil.copytree(built, state_dir, symlinks=True)
    inbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    background = Background(inbox.put)
    store = EngineStore(state_dir, 1 << 40)
    crash_log = CrashLog(state_dir / "running")
    plans = Plans(store, History(state_dir), background, inbox.put, threads=1, crash_log=crash_log)
    background.start()
    yield plans, store.plans()[0], inbox
    assert plans.close(LIMIT_S) == ()
    assert background.close(LIMIT_S)


def test_a_plan_is_warm_when_it_is_announced_and_closed_when_it_retires(loading):
    plans, fingerprint, inbox = loading
    plans.load(Job(3, fingerprint))
    loaded = inbox.get(timeout=LIMIT_S)
    assert isinstance(loaded, Loaded)
    assert loaded.job == Job(3, fingerprint)
    ready = plans.ready(loaded.job)
    assert ready.tag.fingerprint == fingerprint
    assert ready.detector.in_flight == 0
    plans.retire(loaded.job)
    with pytest.raises(KeyError):
        plans.ready(loaded.job)


def test_what_is_loaded_is_deleted_neither_by_a_build_nor_when_another_plan_proves_good(loading, monkeypatch):
    """A plan on probation serves, and is neither the current one nor the one before."""
    plans, fingerprint, inbox = loading
    pruned, started = [], []
    monkeypatch.setattr(EngineStore, "prune", lambda self, keep=(): pruned.append(set(keep)) or ())
    monkeypatch.setattr(plans._builder, "start", lambda number, request: started.append(request))
    plans.load(Job(3, fingerprint))
    assert isinstance(inbox.get(timeout=LIMIT_S), Loaded)
    pin.write(plans._store.root, Pin("b" * 64, "x"))
    request = BuildRequest(Path("net.onnx"), "0" * 64, "onnxruntime", EngineSpec(), plans._store.root, 1 << 30)
    plans.build(Build(Job(4, "c" * 64)), SimpleNamespace(request_of=lambda _: request))
    assert started[0].keep == (fingerprint,)
    plans._mark_good(fingerprint, "d" * 64)
    assert pruned == [{fingerprint, "b" * 64, "d" * 64}]
    plans.cancel()


def test_a_plan_whose_load_ends_during_the_stop_is_closed_once(loading):
    plans, fingerprint, inbox = loading
    plans.load(Job(3, fingerprint))
    loaded = inbox.get(timeout=LIMIT_S)
    plans.close(LIMIT_S)
    plans.retire(loaded.job)  # what the machine asks for when it hears of the load


def test_a_plan_that_is_gone_is_to_be_built_anew(loading):
    plans, _, inbox = loading
    plans.load(Job(3, "0" * 64))
    failed = inbox.get(timeout=LIMIT_S)
    assert isinstance(failed, LoadFailed)
    assert failed.corrupt
    assert "is not in the store any more" in failed.reason


def test_a_plan_of_another_library_release_is_said_to_be_that_and_stays_whole(loading, monkeypatch):
    plans, fingerprint, inbox = loading
    monkeypatch.setattr(OnnxRuntime, "identity", lambda self, spec: {"library": "onnxruntime 99.1", "device": "x"})
    plans.load(Job(3, fingerprint))
    failed = inbox.get(timeout=LIMIT_S)
    assert isinstance(failed, LoadFailed)
    assert (failed.corrupt, failed.foreign) == (False, True)
    assert "is not for this machine" in failed.reason
    assert "-> 99.1" in failed.reason
    assert plans._store.get(fingerprint)


def test_a_library_that_raises_something_unheard_of_is_an_event_too(loading, monkeypatch):
    plans, fingerprint, inbox = loading
    monkeypatch.setattr(open_detector, "WARM_UP", "three")
    plans.load(Job(3, fingerprint))
    failed = inbox.get(timeout=LIMIT_S)
    assert isinstance(failed, LoadFailed)
    assert not failed.corrupt
    assert "does not load: TypeError" in failed.reason


def test_a_backend_that_cannot_run_here_is_said(loading, monkeypatch):
    plans, fingerprint, inbox = loading
    monkeypatch.setattr("vajra_edge.backends.onnxruntime.OnnxRuntime.cannot_run", lambda self, spec: "no GPU is seen")
    plans.load(Job(3, fingerprint))
    failed = inbox.get(timeout=LIMIT_S)
    assert isinstance(failed, LoadFailed)
    assert (failed.corrupt, "cannot run here: no GPU is seen" in failed.reason) == (False, True)


def test_a_build_that_nobody_wished_for_fails_for_good(loading):
    plans, fingerprint, inbox = loading
    plans.build(Build(Job(4, fingerprint)), None)
    failed = inbox.get(timeout=LIMIT_S)
    assert isinstance(failed, BuildFailed)
    assert failed.permanent


def test_a_plan_that_was_built_under_another_name_is_not_taken_for_the_one_that_was_wished_for(loading):
    plans, fingerprint, _ = loading
    plans._building = Job(4, fingerprint)
    assert plans.ended(BuildSucceeded(4, fingerprint, 0)) == BuildDone(Job(4, fingerprint))
    plans._building = Job(5, "0" * 64)
    failed = plans.ended(BuildSucceeded(5, fingerprint, 0))
    assert isinstance(failed, BuildFailed)
    assert not failed.permanent
    assert f"000000000000 was wanted and {fingerprint[:12]} was built" in failed.reason


@pytest.fixture
def doubted(loading):
    """The same, of a plan that took the process down while it was loaded."""
    plans, fingerprint, inbox = loading
    plans._history.charge(fingerprint, Charged.LOAD, "SIGSEGV")
    return plans, fingerprint, inbox


def test_a_plan_in_doubt_is_tried_in_a_process_of_its_own_and_then_loaded(doubted, monkeypatch):
    plans, fingerprint, inbox = doubted
    told = []
    tried = plans._trials._post
    monkeypatch.setattr(plans._trials, "_post", lambda one: told.append(one) or tried(one))
    plans.load(Job(3, fingerprint))
    assert isinstance(inbox.get(timeout=LIMIT_S), Loaded)
    assert [one.outcome for one in told] == [Outcome.PASSED]


def broken(plans, monkeypatch):
    died = [sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"]
    monkeypatch.setattr(plans._trials._child, "_command", died)


def test_a_plan_that_dies_by_itself_is_built_anew_once_and_then_waits(doubted, monkeypatch):
    plans, fingerprint, inbox = doubted
    broken(plans, monkeypatch)
    plans.load(Job(3, fingerprint))
    first = inbox.get(timeout=LIMIT_S)
    assert isinstance(first, LoadFailed)
    assert (first.corrupt, first.broken) == (True, False)
    assert "it died 2 times in a process of its own" in first.reason
    plans.load(Job(4, fingerprint))
    second = inbox.get(timeout=LIMIT_S)
    assert (second.corrupt, second.broken) == (False, True)
    assert 0 < plans._history.left_s(fingerprint, alone=True) <= 600


def test_a_trial_that_proves_nothing_leaves_the_plan_to_its_next_try(doubted, monkeypatch):
    plans, fingerprint, inbox = doubted
    monkeypatch.setattr(plans._trials._child, "_command", [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    plans.load(Job(3, fingerprint))
    failed = inbox.get(timeout=LIMIT_S)
    assert (failed.corrupt, failed.broken, failed.foreign) == (False, False, False)
    assert not plans._history.is_broken(fingerprint)


def test_a_plan_that_serves_well_is_acquitted_of_its_loading_and_after_an_hour_of_everything(doubted):
    plans, fingerprint, _ = doubted
    plans._history.charge(fingerprint, Charged.CRASH, "SIGSEGV")
    plans.remember(MarkGood(fingerprint), None)
    wait_for(lambda: [one.cause for one in plans._history.failures()] == [Cause.CRASH])
    job = Job(3, fingerprint)
    for now_s in (0.0, STEADY_S - 1):
        plans.tick(job, now_s)
    plans.tick(None, STEADY_S + 1)
    plans.tick(job, STEADY_S + 2)
    plans.tick(job, STEADY_S + 3)
    assert plans._history.failures(), "an hour without a pause"
    plans.tick(job, 2 * STEADY_S + 3)
    wait_for(lambda: plans._history.failures() == ())


def test_the_crash_log_knows_what_is_being_loaded_and_no_more_once_it_is(loading, monkeypatch):
    plans, fingerprint, inbox = loading
    seen = []
    monkeypatch.setattr(plans._crash_log, "_change", lambda **fields: seen.append(fields))
    plans.load(Job(3, fingerprint))
    inbox.get(timeout=LIMIT_S)
    plans.load(Job(4, "0" * 64))
    inbox.get(timeout=LIMIT_S)
    assert seen == [{"loading": fingerprint}, {"loading": None}, {"loading": "0" * 64}, {"loading": None}]
