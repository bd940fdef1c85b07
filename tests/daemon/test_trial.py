"""A plan in doubt in a child of its own: passed, broken, or nothing proved."""

from __future__ import annotations

import queue
import shutil
import sys
import time
from pathlib import Path

import pytest
from waiting import LIMIT_S

from vajra_edge.build.trial import TrialRequest
from vajra_edge.daemon.events import Job
from vajra_edge.daemon.trial import COMMAND, Outcome, PlanTrials, Tried
from vajra_edge.plans.store import EngineStore

JOB = Job(3, "f" * 64)


def tried(request: TrialRequest, *command: str) -> Tried:
    inbox: queue.SimpleQueue[Tried] = queue.SimpleQueue()
    trials = PlanTrials(inbox.put, command or COMMAND)
    trials.start(Job(3, request.fingerprint), request)
    try:
        return inbox.get(timeout=LIMIT_S)
    finally:
        assert trials.close(LIMIT_S)


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


@pytest.fixture
def stored(built, tmp_path) -> TrialRequest:
    state_dir = tmp_path / "state"
    shutil.copytree(built, state_dir, symlinks=True)
    return TrialRequest(state_dir, EngineStore(state_dir, 1).plans()[0], threads=1)


def test_a_plan_that_runs_passes(stored: TrialRequest):
    assert tried(stored) == Tried(Job(3, stored.fingerprint), Outcome.PASSED)


def test_a_plan_that_is_refused_in_words_proves_nothing(stored: TrialRequest):
    shutil.rmtree(stored.state_dir / "engines" / stored.fingerprint)
    found = tried(stored)
    assert found.outcome is Outcome.OPEN
    assert "is not in the store any more" in found.reason


def count(tmp_path: Path, then: str) -> str:
    return f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); {then}"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"])
def test_a_plan_that_dies_twice_is_broken(tmp_path: Path, name: str):
    code = count(tmp_path, f"import os, signal; os.kill(os.getpid(), signal.{name})")
    found = tried(TrialRequest(tmp_path, JOB.fingerprint), *python(code))
    assert found.outcome is Outcome.BROKEN
    assert f"it died 2 times in a process of its own: the trial child crashed with {name}" in found.reason
    assert (tmp_path / "runs").read_text() == "xx"


NOT_THE_PLANS = {
    "killed": "import os; os.kill(os.getpid(), 9)",
    "a bug": "raise SystemExit(3)",
    "too slow": "import time; time.sleep(600)",
}


@pytest.mark.parametrize("name", NOT_THE_PLANS)
def test_whatever_else_ends_a_trial_proves_nothing(tmp_path: Path, name: str):
    request = TrialRequest(tmp_path, JOB.fingerprint, timeout_s=1.0 if name == "too slow" else 60.0)
    found = tried(request, *python(NOT_THE_PLANS[name]))
    assert found.outcome is Outcome.OPEN
    assert found.reason
    assert "build" not in found.reason


def test_a_plan_that_dies_once_and_then_passes_is_not_broken(tmp_path: Path):
    runs = tmp_path / "runs"
    done = '{"event": "done", "fingerprint": "f", "peak_rss_bytes": 1}'
    code = f"""
import os, pathlib
runs = pathlib.Path({str(runs)!r})
if not runs.exists():
    runs.touch()
    os.kill(os.getpid(), 11)
print({done!r}, flush=True)
"""
    assert tried(TrialRequest(tmp_path, JOB.fingerprint), *python(code)).outcome is Outcome.PASSED


def test_a_stop_ends_a_trial_and_nobody_hears_of_it(tmp_path: Path):
    inbox: queue.SimpleQueue[Tried] = queue.SimpleQueue()
    trials = PlanTrials(inbox.put, python("import time; time.sleep(600)"))
    trials.start(JOB, TrialRequest(tmp_path, JOB.fingerprint))
    time.sleep(0.2)
    assert trials.close(LIMIT_S)
    assert trials.close(0.0)
    assert inbox.empty()
