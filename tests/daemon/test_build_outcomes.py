"""What the machine hears of a build that came to nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from vajra_edge.clock import Moment
from vajra_edge.config.settings import load
from vajra_edge.daemon.build_outcomes import note, weighed
from vajra_edge.daemon.build_process import BuildSucceeded, ChildFailed
from vajra_edge.daemon.events import BuildFailed as Ended
from vajra_edge.daemon.events import Event, Have, Job, Loaded, LoadFailed, Tick, Wanted
from vajra_edge.daemon.overview import Observed
from vajra_edge.daemon.reconciler import Reconciler
from vajra_edge.daemon.state_machine import State, Step, advance
from vajra_edge.plans.history import Cause, Failure, Follows, History

SETTINGS = load(None, {"weights": {"path": "net.onnx"}, "engine": {"precision": "int8"}})
KNOWN = Observed(SETTINGS, SETTINGS, weights_sha256="ab" * 32)
STRICT = {"weights": {"path": "net.onnx"}, "engine": {"precision": "int8", "allow_lower_precision": False}}
ENDED = Ended(Job(3, "A"), "no", permanent=True, now_s=7.0)
IMAGES = ChildFailed(3, "no", permanent=True, peak_rss_bytes=0, images=True)
KILLED = ChildFailed(3, "no", permanent=False, peak_rss_bytes=0, killed=True)


class Asked:
    """Stands for Wishing: images are to blame, and something else may be wanted."""

    def __init__(self) -> None:
        self.doubts: list[str] = []

    def distrust_images(self, desired: object, ended: Ended) -> bool:
        del desired, ended
        return True

    def again(self, *about: object, doubt: str = "") -> None:
        del about
        self.doubts.append(doubt)


@pytest.fixture
def asked() -> Asked:
    return Asked()


def heard(asked: Asked, told: BuildSucceeded | ChildFailed, s: State | None = None, known: Observed = KNOWN) -> Ended:
    return weighed(told, ENDED, s or State(), known, cast("Reconciler", asked))


def test_a_failure_that_is_the_weights_own_is_heard_as_it_is(asked: Asked):
    assert heard(asked, ChildFailed(3, "truncated", permanent=True, peak_rss_bytes=0)) == ENDED
    assert asked.doubts == []


def test_images_that_are_to_blame_make_the_build_wait_for_another_wish(asked: Asked):
    assert heard(asked, IMAGES) == replace(ENDED, permanent=False)
    assert asked.doubts == ["no"]


def test_a_forced_build_fails_for_good_since_its_plan_may_be_there(asked: Asked):
    assert heard(asked, IMAGES, State(forced=True)) == ENDED


def test_only_the_second_kill_asks_for_less_memory_and_only_where_that_is_allowed(asked: Asked):
    heard(asked, KILLED)
    heard(asked, KILLED, State(attempts=1), replace(KNOWN, settings=load(None, STRICT)))
    assert asked.doubts == []
    heard(asked, KILLED, State(attempts=1))
    assert asked.doubts == ["no"]


def test_a_plan_under_another_name_has_the_wish_worked_out_again_and_no_images_blamed(asked: Asked):
    assert heard(asked, BuildSucceeded(3, "B", 0), State(forced=True)) == ENDED
    assert asked.doubts == [""]


JOB = Job(3, "A")
BUILDING, LOADING = State(wanted="A", building=JOB), State(wanted="A", step=Step.LOAD, loading=JOB)


@pytest.mark.parametrize(
    ("before", "event", "cause", "follows", "retry_in_s"),
    [
        (BUILDING, Ended(JOB, "no", permanent=False, now_s=7.0), Cause.BUILD, Follows.RETRY, 30.0),
        (replace(BUILDING, attempts=1), Ended(JOB, "no", False, now_s=7.0), Cause.BUILD, Follows.RETRY, 120.0),
        (BUILDING, Ended(JOB, "no", permanent=True, now_s=7.0), Cause.BUILD, Follows.BLOCKED, None),
        (replace(BUILDING, wanted="B"), Ended(JOB, "no", False, now_s=7.0), Cause.BUILD, Follows.BLOCKED, None),
        (LOADING, LoadFailed(JOB, "no", corrupt=False, now_s=7.0), Cause.LOAD, Follows.RETRY, 30.0),
        (LOADING, LoadFailed(JOB, "no", corrupt=True, now_s=7.0), Cause.LOAD, Follows.REBUILD, None),
        (LOADING, LoadFailed(JOB, "no", corrupt=False, now_s=7.0, foreign=True), Cause.LOAD, Follows.REBUILD, None),
    ],
)
def test_the_history_is_told_what_failed_and_what_the_machine_does_about_it(
    tmp_path, before: State, event: Event, cause: Cause, follows: Follows, retry_in_s: float | None
):
    history = History(tmp_path, lambda: Moment("b", 1.0, 1000.0, synchronised=True))
    after, _ = advance(before, event)
    note(history, event, before, after)
    retry_at_s = None if retry_in_s is None else 1000.0 + retry_in_s
    assert history.failures() == (Failure("A", cause, "no", follows, (1000.0,), retry_at_s),)


@pytest.mark.parametrize("event", [Ended(Job(2, "A"), "no", True, 7.0), LoadFailed(JOB, "no", True, 7.0), Tick(7.0)])
def test_late_news_of_another_job_is_no_history(tmp_path, event: Event):
    history = History(tmp_path)
    note(history, event, BUILDING, advance(BUILDING, event)[0])
    assert history.failures() == ()


def test_what_failed_is_over_once_the_plan_loads_or_another_is_wanted(tmp_path):
    history = History(tmp_path)
    history.note("A", Cause.BUILD, "no", Follows.RETRY)
    history.note("B", Cause.LOAD, "no", Follows.RETRY)
    event = Loaded(JOB, 9.0)
    note(history, event, LOADING, advance(LOADING, event)[0])
    assert [one.follows for one in history.failures()] == [Follows.MENDED, Follows.RETRY]
    changed = Wanted("C", Have.MISSING)
    note(history, changed, LOADING, advance(LOADING, changed)[0])
    assert [one.follows for one in history.failures()] == [Follows.MENDED, Follows.DROPPED]
