from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vajra_edge import clock
from vajra_edge.backends.onnxruntime import OnnxRuntime
from vajra_edge.build.refusals import RETRY_AFTER_S, Refusals
from vajra_edge.build.request import BuildRequest
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.missed_precisions import LOOK_S, MissedSeen, MissedWatch, look
from vajra_edge.plans.spec import EngineSpec

PLAN = "a" * 64
REASON = "int8 by Q/DQ was missed: too little memory"


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    return BuildRequest(tmp_path / "net.onnx", "0" * 64, "onnxruntime", EngineSpec(), tmp_path, 1 << 30)


def refusals(request: BuildRequest, **options: object) -> Refusals:
    library = OnnxRuntime().identity(request.spec)["library"]
    return Refusals(request.state_dir, PLAN, library, **options)  # type: ignore[arg-type]


def test_where_nothing_was_missed_there_is_nothing_to_say(request_: BuildRequest):
    assert look(request_, PLAN) == MissedSeen(PLAN, "", due=False)


def test_before_its_time_it_is_said_when_that_is(request_: BuildRequest):
    refusals(request_).miss(REASON)
    seen = look(request_, PLAN)
    assert not seen.due
    assert seen.line.startswith(f"{REASON}; it is tried again after ")


def test_what_is_due_is_counted_so_that_the_next_look_does_not_find_it_due(request_: BuildRequest):
    long_ago = replace(clock.now(), boot_s=clock.now().boot_s - RETRY_AFTER_S[0] - 1.0)
    refusals(request_, now=lambda: long_ago).miss(REASON)
    assert look(request_, PLAN) == MissedSeen(PLAN, f"{REASON}; it is tried again now", due=True)
    assert not look(request_, PLAN).due
    kept = refusals(request_).missed
    assert kept
    assert (kept.tries, len(RETRY_AFTER_S)) == (1, 4)


def test_the_disk_is_looked_at_now_and_then_and_soon_after_something_ended(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    looks: list[str] = []
    monkeypatch.setattr(Background, "look", lambda self, name, task: looks.append(name))
    missed = MissedWatch(Background(lambda _: None))
    for now_s in (0.0, 1.0, LOOK_S - 1, LOOK_S):
        missed.tick(request_, PLAN, now_s)
    assert len(looks) == 2
    missed.soon()
    missed.tick(request_, PLAN, LOOK_S + 1)
    assert len(looks) == 3
