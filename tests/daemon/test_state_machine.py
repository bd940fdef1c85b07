"""The machine against a world that makes up every event that could follow from its actions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from vajra_edge.daemon.events import (
    Action,
    Build,
    BuildDone,
    BuildFailed,
    CancelBuild,
    Discard,
    Drained,
    Event,
    Exit,
    Fallback,
    Have,
    InferFailed,
    Job,
    Load,
    Loaded,
    LoadFailed,
    MarkGood,
    Rebuild,
    Reconsider,
    Reject,
    Retire,
    Stop,
    StopAll,
    Strike,
    Swap,
    Tick,
    TryMissed,
    Unfit,
    Unknown,
    Wanted,
)
from vajra_edge.daemon.state_machine import PROBATION_S, RETRY_S, Phase, State, Step, advance

Advance = Callable[[State, Event], tuple[State, tuple[Action, ...]]]


class World:
    """Performs actions, keeps score, and makes up what could happen next."""

    def __init__(self, seed: int, advance: Advance = advance) -> None:
        self.rng, self.advance, self.fail, self.now_s = random.Random(seed), advance, 0.25, 0.0
        self.store: set[str] = {"A"} if seed % 2 else set()  # odd: a reboot
        self.good: str | None = "A" if seed % 2 else None
        self.rejected: set[str] = set()
        self.builds: list[Job] = []
        self.loads: list[Job] = []
        self.late: list[Event] = []
        self.runners: list[Job] = []
        self.serving: Job | None = None
        self.broken = False
        self.reconsider = False
        self.s = State()

    def step(self, event: Event) -> tuple[Action, ...]:
        had = self.s.serving
        self.s, actions = self.advance(self.s, event)
        for action in actions:
            self.perform(action)
        if self.s.phase not in (Phase.FAILED, Phase.STOPPING):
            self.check(had)
            self.check_offer(event)
        return actions

    def perform(self, action: Action) -> None:  # noqa: C901  one case a kind of action
        match action:
            case Build(job):
                assert not self.builds, "two builds"
                self.builds.append(job)
            case CancelBuild(job):
                self.builds.remove(job)
                if self.rng.random() < 0.5:  # it was done already
                    done = BuildDone(job) if self.rng.random() < 0.5 else BuildFailed(job, "late", False, self.now_s)
                    self.late.append(done)
            case Load(job):
                self.loads.append(job)
            case Swap(job):
                assert job in self.runners
                self.serving, self.broken = job, False
            case Retire(job):
                assert job != self.serving, "retired what serves"
                self.runners.remove(job)
            case MarkGood(fingerprint):
                assert self.serving
                assert self.serving.fingerprint == fingerprint, "marked good what does not serve"
                assert not self.broken, "marked good what fails"
                self.good = fingerprint
            case Discard(fingerprint):
                self.store.discard(fingerprint)
            case Reconsider(without):
                assert not (self.serving and without), "what serves is enough"
                self.reconsider, self.without = True, without
            case Reject(fingerprint):
                assert self.serving
                assert self.serving.fingerprint == fingerprint
                self.rejected.add(fingerprint)

    def check(self, had: Job | None) -> None:
        s = self.s
        assert not (had and s.serving is None), "serving lost"
        assert self.builds == ([s.building] if s.building else []), "a build that nobody knows"
        assert self.serving == s.serving
        assert self.runners == ([s.serving] if s.serving else []), "leaked runner"
        assert not (s.loading and s.loading not in self.loads), "waits for a load that nobody does"
        busy = s.building or s.loading or s.step is Step.WAIT
        assert (s.phase is Phase.SERVING) == (s.serving is not None)
        assert s.phase is not Phase.PREPARING or busy, "dead: nothing in flight"
        assert s.phase is not Phase.BLOCKED or not busy
        assert s.step is not Step.WAIT or s.retry_at_s is not None
        assert s.step is not Step.LOAD or s.loading, "asked to load, nothing loads"
        assert s.step is not Step.BUILD or s.building, "asked to build, nothing builds"
        assert not s.broken or s.loading, "broken, and no way out under way"
        assert s.wanted is not None or s.ask_at_s is not None, "nobody will ever know what is wanted"

    def check_offer(self, event: Event) -> None:
        s = self.s
        if not isinstance(event, (Wanted, Unknown)) or event.fallback is None or s.serving:
            return
        useless = (*s.failed, *((s.wanted,) if isinstance(event, Wanted) or s.step is not Step.IDLE else ()))
        assert event.fallback.fingerprint in useless or s.fallback_step is not Step.IDLE, "left lying"

    def desired(self) -> Wanted:
        fingerprint = self.rng.choice("ABCD")
        have = Have.READY if fingerprint in self.store else Have.MISSING
        have = Have.HELD if have is Have.READY and fingerprint in self.rejected else have
        quick = f"quick-{fingerprint}"
        fallback = Fallback(self.good) if self.good in self.store and self.good else None
        if fallback is None and self.rng.random() < 0.5:
            fallback = Fallback(quick, quick in self.store)
        again_in_s = 5.0 if fallback is None and self.rng.random() < 0.2 else None
        instead = self.rng.random() < 0.2
        return Wanted(
            fingerprint, have, fallback, hold_s=60.0, again_in_s=again_in_s, instead=instead, now_s=self.now_s
        )

    def wish_again(self) -> Wanted | Unknown:
        """The same desired plan, if it is known, and something that did not fail yet."""
        self.reconsider = False
        offered = next((one for one in (*sorted(self.store), "quick-A") if one not in self.without), None)
        fallback = Fallback(offered, offered in self.store) if offered else None
        if self.s.wanted is None or self.rng.random() < 0.1:
            return Unknown("gone", fallback, again=True, now_s=self.now_s)
        have = Have.READY if self.s.wanted in self.store else Have.MISSING
        have = Have.HELD if have is Have.READY and self.s.wanted in self.rejected else have
        return Wanted(self.s.wanted, have, fallback, again=True, hold_s=60.0, now_s=self.now_s)

    def event(self) -> Event:  # noqa: PLR0911  one return a kind of event
        r, fail = self.rng, self.fail
        self.now_s += r.uniform(0, 30)
        if self.reconsider and r.random() < 0.7:
            return self.wish_again()
        if self.s.wanted is None or r.random() < 0.12:
            desired, distrusted = self.desired(), r.random() < 0.5
            unknown = Unknown("gone", desired.fallback, now_s=self.now_s, distrusted=distrusted)
            return desired if r.random() < 0.9 else unknown
        if r.random() < 0.05:
            return Rebuild(force=r.random() < 0.5)
        if r.random() < 0.05:
            return TryMissed(self.s.wanted)
        if self.serving and not self.broken and r.random() < fail / 10:
            self.broken = r.random() < 0.5
            return InferFailed("spoilt") if self.broken else Unfit("slow")
        if self.builds and r.random() < 0.5:
            return self.build_ends(self.builds.pop())
        if self.loads and r.random() < 0.7:
            return self.load_ends(self.loads.pop(r.randrange(len(self.loads))))
        if self.late and r.random() < 0.5:
            return self.late.pop()
        return Tick(self.now_s)

    def build_ends(self, job: Job) -> Event:
        if self.rng.random() < self.fail:
            return BuildFailed(job, "no", self.rng.random() < 0.3, self.now_s)
        self.store.add(job.fingerprint)
        return BuildDone(job)

    def load_ends(self, job: Job) -> Event:
        if self.rng.random() < self.fail or job.fingerprint not in self.store:
            corrupt = job.fingerprint not in self.store or self.rng.random() < 0.3
            foreign, broken = not corrupt and self.rng.random() < 0.3, self.rng.random() < 0.2
            if broken and not (corrupt or foreign):
                self.rejected.add(job.fingerprint)
                return LoadFailed(job, "no", corrupt=False, now_s=self.now_s, broken=True)
            return LoadFailed(job, "no", corrupt, self.now_s, foreign=foreign)
        self.runners.append(job)
        return Loaded(job, self.now_s)


def walk(seed: int, steps: int, advance: Advance = advance) -> World:
    world = World(seed, advance)
    for _ in range(steps):
        world.step(world.event())
        if world.s.phase is Phase.FAILED:
            break
    return world


BLOCK = 100  # walks a test: a test each would spend its time in pytest


@pytest.mark.parametrize("block", range(20))
def test_random_walks_keep_every_invariant(block):
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        walk(seed, steps=120)


def converge(seed: int, advance: Advance = advance) -> World:
    """Once failures end and the desired plan stays, what is wanted serves, and is good in the end."""
    world = walk(seed, seed % 150, advance)
    if world.s.phase is Phase.FAILED:
        return world
    world.fail = 0
    world.step(Wanted("Z", Have.MISSING))
    for _ in range(80):
        if world.builds:
            world.step(world.build_ends(world.builds.pop()))
        elif world.loads:
            world.step(world.load_ends(world.loads.pop(0)))
        else:
            world.now_s += 1000
            world.step(Tick(world.now_s))
    assert world.serving
    assert world.serving.fingerprint == world.good == "Z"
    assert world.runners == [world.serving]
    return world


@pytest.mark.parametrize("block", range(10))
def test_what_is_wanted_serves_once_failures_end(block):
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        converge(seed)


def stop(seed: int, advance: Advance = advance) -> None:
    world = walk(seed, seed % 100, advance)
    if world.s.phase is Phase.FAILED:
        return
    actions = world.step(Stop())
    assert not world.builds
    assert isinstance(actions[-1], StopAll)
    while world.loads:
        for action in world.advance(world.s, world.load_ends(world.loads.pop()))[1]:
            assert isinstance(action, Retire)
            world.perform(action)
    for event in (world.desired(), Rebuild(force=True), Tick(1e9), Unfit("slow"), InferFailed("no"), *world.late):
        assert world.advance(world.s, event)[1] == ()
    assert world.runners == ([world.serving] if world.serving else [])
    ended, actions = world.advance(world.s, Drained())
    assert ended.phase is Phase.STOPPED
    assert actions == (Exit(0),)


@pytest.mark.parametrize("block", range(10))
def test_stop_works_from_anywhere_and_starts_nothing(block):
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        stop(seed)


def after(*events: Event, s: State | None = None) -> tuple[State, tuple[Action, ...]]:
    """The state after all events, and the actions of the last."""
    s, actions = s or State(), ()
    for event in events:
        s, actions = advance(s, event)
    return s, actions


def serving(fingerprint: str = "A") -> State:
    s, _ = after(Wanted(fingerprint, Have.READY), Loaded(Job(0, fingerprint), 0.0))
    return s


def test_first_boot_builds_loads_serves_and_is_good_at_once():
    s, actions = after(Wanted("A", Have.MISSING))
    assert actions == (Build(Job(0, "A")),)
    s, actions = advance(s, BuildDone(Job(0, "A")))
    assert actions == (Load(Job(1, "A")),)
    assert s.phase is Phase.PREPARING
    s, actions = advance(s, Loaded(Job(1, "A"), 1.0))
    assert actions == (Swap(Job(1, "A")), MarkGood("A"))
    assert s.phase is Phase.SERVING


def test_first_boot_with_a_quick_plan_serves_it_while_the_wanted_one_builds():
    s, actions = after(Wanted("trt", Have.MISSING, Fallback("quick", ready=False)))
    assert actions == (Build(Job(0, "quick"), quick=True),)
    s, actions = advance(s, BuildDone(Job(0, "quick")))
    assert actions == (Build(Job(1, "trt")), Load(Job(2, "quick")))
    s, actions = advance(s, Loaded(Job(2, "quick"), 1.0))
    assert actions == (Swap(Job(2, "quick")),)
    assert s.phase is Phase.SERVING
    s, _ = advance(s, BuildDone(Job(1, "trt")))
    s, actions = advance(s, Loaded(Job(3, "trt"), 600.0))
    assert actions == (Swap(Job(3, "trt")), Retire(Job(2, "quick")))
    assert s.prior == "quick"


def test_a_quick_plan_that_does_not_build_does_not_stop_the_wanted_one():
    s, _ = after(Wanted("trt", Have.MISSING, Fallback("quick", ready=False)))
    s, actions = advance(s, BuildFailed(Job(0, "quick"), "no", True, 0.0))
    assert actions == (Build(Job(1, "trt")),)


def test_reboot_serves_the_last_good_plan_while_the_wanted_one_builds():
    s, actions = after(Wanted("B", Have.MISSING, Fallback("A")))
    assert actions == (Build(Job(0, "B")), Load(Job(1, "A")))
    _, actions = advance(s, Loaded(Job(1, "A"), 0.0))
    assert actions == (Swap(Job(1, "A")),)


def test_a_stored_plan_that_is_damaged_is_put_aside_and_built_at_once_while_the_last_good_one_serves():
    s, actions = after(Wanted("B", Have.READY, Fallback("A")))
    assert actions == (Load(Job(0, "B")),)
    s, actions = advance(s, LoadFailed(Job(0, "B"), "sha256 differs", True, 0.0))
    assert actions == (Discard("B", "sha256 differs"), Build(Job(1, "B")), Load(Job(2, "A")))
    assert s.reason == "sha256 differs"


def test_a_stored_plan_of_another_release_is_built_over_and_not_put_aside():
    s, actions = after(Wanted("B", Have.READY), LoadFailed(Job(0, "B"), "built by 10.3", False, 0.0, foreign=True))
    assert actions == (Build(Job(1, "B"), force=True, again=True),), "nobody insists on what was refused"
    assert s.reason == "built by 10.3"


def test_when_the_fallback_does_not_load_another_one_is_looked_for_and_serves():
    s, _ = after(Wanted("B", Have.MISSING, Fallback("A")))
    s, actions = advance(s, LoadFailed(Job(1, "A"), "built by 10.3", False, 0.0, foreign=True))
    assert actions == (Reconsider(("A",)),)
    s, actions = advance(s, Wanted("B", Have.MISSING, Fallback("C"), again=True))
    assert actions == (Load(Job(2, "C")),)
    s, actions = advance(s, LoadFailed(Job(2, "C"), "no memory", False, 1.0))
    assert actions == (Reconsider(("A", "C")),)
    s, actions = advance(s, Wanted("B", Have.MISSING, Fallback("quick", ready=False), again=True))
    assert actions == (CancelBuild(Job(0, "B")), Build(Job(3, "quick"), quick=True)), "seconds go before minutes"
    s, actions = advance(s, BuildDone(Job(3, "quick")))
    assert actions == (Build(Job(4, "B")), Load(Job(5, "quick")))


def test_a_fallback_that_did_not_load_is_not_offered_in_a_loop_but_for_the_next_wish():
    s, _ = after(Wanted("B", Have.MISSING, Fallback("A")), LoadFailed(Job(1, "A"), "no memory", False, 0.0))
    assert advance(s, Wanted("B", Have.MISSING, Fallback("A"), again=True))[1] == ()
    _, actions = advance(s, Wanted("C", Have.MISSING, Fallback("A")))
    assert Load(Job(3, "A")) in actions


def test_a_wish_that_failed_for_good_is_not_built_once_more_only_because_its_fallback_failed():
    s, _ = after(Wanted("B", Have.MISSING, Fallback("A")), BuildFailed(Job(0, "B"), "truncated", True, 0.0))
    s, _ = advance(s, LoadFailed(Job(1, "A"), "built by 10.3", False, 1.0, foreign=True))
    s, actions = advance(s, Wanted("B", Have.MISSING, Fallback("quick", ready=False), again=True))
    assert actions == (Build(Job(2, "quick"), quick=True),)
    assert s.reason == "truncated"


def test_without_a_wish_another_fallback_is_looked_for_too():
    s, actions = after(Unknown("no weights", Fallback("A")), LoadFailed(Job(0, "A"), "damaged", True, 0.0))
    assert actions == (Discard("A", "damaged"), Reconsider(("A",)))
    assert advance(s, Unknown("no weights", Fallback("A"), again=True))[1] == ()
    assert advance(s, Unknown("no weights", Fallback("C"), again=True))[1] == (Load(Job(1, "C")),)
    assert advance(s, Unknown("no weights", Fallback("A")))[1] == (Load(Job(1, "A")),)


def test_late_news_of_a_cancelled_build_of_the_same_fingerprint_is_not_taken_for_the_new_one():
    s, _ = advance(serving(), Wanted("B", Have.MISSING))
    first = s.building
    s, _ = after(Wanted("A", Have.READY), Wanted("B", Have.MISSING), s=s)
    second = s.building
    assert first
    s, actions = advance(s, BuildDone(first))
    assert actions == ()
    assert s.building == second != first


def test_back_to_what_serves_cancels_the_build_and_loads_nothing():
    s, _ = advance(serving(), Wanted("B", Have.MISSING))
    s, actions = advance(s, Wanted("A", Have.READY))
    assert actions == (CancelBuild(Job(1, "B")),)
    assert s.building is s.loading is None


def test_nothing_left_to_try_is_blocked_and_says_why():
    s, _ = after(Wanted("B", Have.MISSING, Fallback("A")))
    s, actions = advance(s, BuildFailed(Job(0, "B"), "weights are truncated", True, 0.0))
    assert actions == ()  # the fallback may still load
    s, actions = advance(s, LoadFailed(Job(1, "A"), "damaged", True, 0.0))
    assert actions == (Discard("A", "damaged"), Reconsider(("A",)))
    assert s.phase is Phase.BLOCKED
    assert s.reason == "weights are truncated"
    s, actions = advance(s, Wanted("C", Have.MISSING))
    assert s.phase is Phase.PREPARING
    assert s.reason == ""


def test_a_build_that_fails_for_good_leaves_the_old_plan_serving_with_the_reason():
    s, _ = advance(serving(), Wanted("B", Have.MISSING))
    s, actions = advance(s, BuildFailed(Job(1, "B"), "wrong output", True, 5.0))
    assert actions == ()
    assert (s.phase, s.reason, s.step) == (Phase.SERVING, "wrong output", Step.IDLE)
    assert advance(s, Tick(1e6)) == (s, ())


def test_failures_that_may_pass_are_tried_again_after_longer_and_longer_waits():
    s, _ = advance(serving(), Wanted("B", Have.MISSING))
    now_s = 0.0
    for wait_s in (*RETRY_S, RETRY_S[-1]):
        assert s.building
        s, _ = advance(s, BuildFailed(s.building, "killed", False, now_s))
        assert advance(s, Tick(now_s + wait_s - 1))[1] == ()
        now_s += wait_s
        s, actions = advance(s, Tick(now_s))
        assert [type(action) for action in actions] == [Build]


def test_a_load_that_may_pass_is_tried_again_without_a_build():
    s, _ = after(Wanted("A", Have.READY), LoadFailed(Job(0, "A"), "no memory", False, 0.0))
    assert s.phase is Phase.PREPARING
    _, actions = advance(s, Tick(RETRY_S[0]))
    assert actions == (Load(Job(1, "A")),)


def on_probation() -> State:
    s, _ = advance(serving(), Wanted("B", Have.READY))
    s, actions = advance(s, Loaded(Job(1, "B"), 10.0))
    assert actions == (Swap(Job(1, "B")), Retire(Job(0, "A")))
    return s


def test_a_plan_that_replaced_another_is_good_after_its_probation():
    s = on_probation()
    assert advance(s, Tick(10.0 + PROBATION_S - 1))[1] == ()
    s, actions = advance(s, Tick(10.0 + PROBATION_S))
    assert actions == (MarkGood("B"),)
    assert s.prior is None


def test_a_failure_on_probation_brings_the_prior_plan_back_in_place():
    s, actions = advance(on_probation(), InferFailed("NaN"))
    assert actions == (Reject("B", "NaN"), Load(Job(2, "A")))
    assert s.phase is Phase.SERVING
    assert s.reason == "NaN"
    assert advance(s, Tick(1e6))[1] == ()  # what fails is never marked good
    s, actions = advance(s, Loaded(Job(2, "A"), 20.0))
    assert actions == (Swap(Job(2, "A")), Retire(Job(1, "B")), Reconsider(()))
    assert s.serving == Job(2, "A")
    assert s.reason == "NaN"
    s, actions = advance(s, Wanted("B", Have.HELD, reason="NaN", again=True, hold_s=600.0, now_s=20.0))
    assert actions == ()
    assert (s.step, s.tries_at_s) == (Step.WAIT, 620.0)
    assert advance(s, Tick(620.0))[1] == (Load(Job(3, "B")),), "no failure in service lasts for good"


def test_when_the_prior_plan_does_not_load_either_the_process_goes():
    s, _ = advance(on_probation(), InferFailed("CUDA error 700"))
    s, actions = advance(s, LoadFailed(Job(2, "A"), "context is spoilt", False, 20.0))
    assert actions == (Exit(1),)
    assert s.phase is Phase.FAILED


def test_an_unfit_plan_keeps_serving_when_the_prior_one_cannot_come_back():
    s, _ = advance(on_probation(), Unfit("5 times slower"))
    s, actions = advance(s, LoadFailed(Job(2, "A"), "damaged", True, 20.0))
    assert actions == (Discard("A", "damaged"),)
    assert s.serving == Job(1, "B")
    assert s.reason == "5 times slower"
    assert advance(s, Tick(1e6))[1] == ()


def test_a_new_wish_while_going_back_still_gets_off_the_broken_plan_first():
    s, _ = advance(on_probation(), InferFailed("NaN"))
    s, actions = advance(s, Wanted("C", Have.READY))
    assert actions == ()
    s, actions = advance(s, Loaded(Job(2, "A"), 20.0))
    assert actions == (Swap(Job(2, "A")), Retire(Job(1, "B")), Reconsider(()), Load(Job(3, "C")))


def test_a_failure_of_a_good_plan_ends_the_process_with_a_strike():
    s, _ = advance(serving(), Wanted("B", Have.MISSING))
    s, actions = advance(s, InferFailed("CUDA error 700"))
    assert actions == (Strike("A", "CUDA error 700"), CancelBuild(Job(1, "B")), Exit(1))
    assert s.phase is Phase.FAILED


def held(**more: object) -> Wanted:
    return Wanted("B", Have.HELD, reason="3 crashes in 10 minutes", now_s=100.0, **more)


def test_while_a_plan_is_held_the_one_before_serves_and_then_it_is_tried_or_at_once_by_force():
    s, actions = after(held(fallback=Fallback("A"), hold_s=600.0))
    assert actions == (Load(Job(0, "A")),)
    s, _ = advance(s, Loaded(Job(0, "A"), 0.0))
    assert s.reason == "3 crashes in 10 minutes"
    assert advance(s, Tick(699.0))[1] == ()
    assert advance(s, Tick(700.0))[1] == (Load(Job(1, "B")),)
    assert advance(s, Rebuild(force=True))[1] == (Build(Job(1, "B"), force=True),)


def test_the_only_plan_is_held_for_a_while_and_then_serves():
    s, actions = after(held(hold_s=30.0))
    assert actions == ()
    assert (s.phase, s.reason, s.tries_at_s) == (Phase.PREPARING, "3 crashes in 10 minutes", 130.0)
    s, actions = advance(s, Tick(130.0))
    assert actions == (Load(Job(0, "B")),)
    s, actions = advance(s, Loaded(Job(0, "B"), 131.0))
    assert actions == (Swap(Job(0, "B")), MarkGood("B"))
    assert s.reason == ""


def test_a_fallback_that_is_held_is_asked_for_again_once_its_pause_is_over():
    s, actions = after(Wanted("B", Have.MISSING, again_in_s=30.0, now_s=100.0))
    assert actions == (Build(Job(0, "B")),)
    assert advance(s, Tick(129.0))[1] == ()
    s, actions = advance(s, Tick(130.0))
    assert actions == (Reconsider(()),)
    assert advance(s, Wanted("B", Have.MISSING, Fallback("A"), again=True))[1] == (Load(Job(1, "A")),)
    s, _ = after(Unknown("no weights", watched=True, again_in_s=30.0, now_s=100.0))
    assert advance(s, Tick(130.0))[1] == (Reconsider(()),), "even where a watched file stands in the way"


def test_what_is_second_best_is_asked_for_again_while_it_serves_and_ever_less_often():
    s, _ = after(Wanted("B", Have.READY, instead=True), Loaded(Job(0, "B"), 1.0))
    now_s = 0.0
    for wait_s in (RETRY_S[0], *RETRY_S[1:], RETRY_S[-1]):
        assert advance(s, Tick(now_s + wait_s - 1.0))[1] == ()
        now_s += wait_s
        s, actions = advance(s, Tick(now_s))
        assert Reconsider(()) in actions
        s, actions = advance(s, Wanted("B", Have.READY, instead=True, again=True, now_s=now_s))
        assert actions == ()
    s, actions = advance(s, Wanted("A", Have.READY, again=True, now_s=now_s))
    assert actions == (Load(Job(1, "A")),), "what kept the better one from it is mended"
    assert s.ask_at_s is None


def test_a_plan_that_is_broken_again_after_it_was_built_anew_waits():
    s, _ = after(Wanted("B", Have.READY, Fallback("A")))
    s, actions = advance(s, LoadFailed(Job(0, "B"), "it died twice", False, 5.0, broken=True))
    assert Reconsider(()) in actions
    assert not [action for action in actions if isinstance(action, (Build, Discard))]
    s, _ = advance(s, held(again=True, hold_s=600.0))
    assert (s.step, s.tries_at_s) == (Step.WAIT, 700.0)


def test_a_forced_build_that_is_tried_again_keeps_what_it_found_to_be_refused():
    s, actions = advance(serving(), Rebuild(force=True))
    assert actions == (Build(Job(1, "A"), force=True),)
    s, _ = advance(s, BuildFailed(Job(1, "A"), "it crashed with SIGSEGV", False, 0.0))
    s, actions = advance(s, Tick(1e6))
    assert actions == (Build(Job(2, "A"), force=True, again=True),)
    s, _ = advance(s, BuildFailed(Job(2, "A"), "it crashed with SIGSEGV", False, 1e6))
    assert advance(s, Rebuild(force=True))[1] == (Build(Job(3, "A"), force=True),), "somebody insists anew"


def test_rebuild_of_what_serves_needs_force():
    s, actions = advance(serving(), Rebuild())
    assert actions == ()
    s, actions = advance(s, Rebuild(force=True))
    assert actions == (Build(Job(1, "A"), force=True),)
    assert advance(s, Rebuild(force=True)) == (s, ())
    s, _ = advance(s, BuildDone(Job(1, "A")))
    s, actions = advance(s, Loaded(Job(2, "A"), 9.0))
    assert actions == (Swap(Job(2, "A")), Retire(Job(0, "A")), MarkGood("A"))


def test_what_was_missed_is_built_beside_what_serves_and_takes_its_place():
    s, actions = advance(serving(), TryMissed("A"))
    assert actions == (Build(Job(1, "A"), missed=True),)
    assert advance(s, TryMissed("A")) == (s, ()), "one build"
    s, actions = after(BuildDone(Job(1, "A")), Loaded(Job(2, "A"), 9.0), s=s)
    assert actions == (Swap(Job(2, "A")), Retire(Job(0, "A")), MarkGood("A"))
    assert not s.missed


@pytest.mark.parametrize("permanent", [False, True])
def test_what_was_missed_and_fails_again_leaves_everything_as_it_was(permanent):
    s, _ = advance(serving(), TryMissed("A"))
    s, actions = advance(s, BuildFailed(Job(1, "A"), "not enough memory", permanent, 1.0))
    assert (s, actions) == (replace(serving(), jobs=2), ()), "no reason, no wait, no further try by itself"


def test_what_was_missed_waits_while_anything_else_is_under_way():
    waiting, _ = after(Wanted("B", Have.MISSING), s=serving())
    replaced, _ = after(Wanted("B", Have.READY), Loaded(Job(1, "B"), 1.0), s=serving())
    for s, fingerprint in ((waiting, "B"), (replaced, "B"), (serving(), "B"), (State(), "A")):
        assert advance(s, TryMissed(fingerprint)) == (s, ())


def test_somebody_who_insists_while_what_was_missed_is_tried_gets_a_build_of_his_own():
    s, _ = advance(serving(), TryMissed("A"))
    s, actions = advance(s, Rebuild(force=True))
    assert actions == (CancelBuild(Job(1, "A")), Build(Job(2, "A"), force=True))
    s, _ = advance(s, BuildFailed(Job(2, "A"), "no tactic", permanent=True, now_s=1.0))
    assert s.reason == "no tactic"


def test_another_wish_ends_the_try_of_what_was_missed():
    s, _ = advance(serving(), TryMissed("A"))
    s, actions = advance(s, Wanted("B", Have.MISSING))
    assert actions == (CancelBuild(Job(1, "A")), Build(Job(2, "B")))


def test_rebuild_cuts_the_wait_after_a_failure_short():
    s, _ = after(Wanted("A", Have.MISSING), BuildFailed(Job(0, "A"), "killed", False, 0.0))
    _, actions = advance(s, Rebuild())
    assert actions == (Build(Job(1, "A")),)


def test_weights_that_vanish_leave_everything_as_it_is_and_say_why():
    before = serving()
    s, actions = advance(before, Unknown("weights are gone", Fallback("B")))
    assert actions == ()
    assert s == replace(before, unknown="weights are gone", ask_at_s=RETRY_S[0])
    assert s.why == "weights are gone"


def test_what_cannot_be_known_is_worked_out_again_after_longer_and_longer_waits():
    s, _ = after(Unknown("no driver yet", now_s=5.0))
    now_s = 5.0
    for wait_s in (*RETRY_S, RETRY_S[-1]):
        assert s.phase is Phase.BLOCKED
        assert s.tries_at_s == now_s + wait_s
        assert advance(s, Tick(now_s + wait_s - 1))[1] == ()
        now_s += wait_s
        s, actions = advance(s, Tick(now_s))
        assert actions == (Reconsider(()),)
        s, _ = advance(s, Unknown("no driver yet", again=True, now_s=now_s + 0.1))
    s, actions = advance(s, Wanted("A", Have.READY, again=True))
    assert actions == (Load(Job(0, "A")),)
    assert (s.asks, s.tries_at_s, s.why) == (0, None, "")


def test_what_did_not_serve_meanwhile_is_offered_once_more_with_each_new_try():
    s, _ = after(Unknown("no driver yet", Fallback("A")), LoadFailed(Job(0, "A"), "no driver yet", False, 1.0))
    s, actions = advance(s, Unknown("no driver yet", Fallback("A"), again=True, now_s=1.1))
    assert actions == ()
    s, _ = advance(s, Tick(RETRY_S[0]))
    _, actions = advance(s, Unknown("no driver yet", Fallback("A"), again=True, now_s=RETRY_S[0]))
    assert actions == (Load(Job(1, "A")),)


def test_a_wish_that_is_known_again_by_itself_takes_up_where_it_was():
    s, _ = advance(serving(), Unknown("weights are gone"))
    s, _ = advance(s, Tick(RETRY_S[0]))
    assert advance(s, Wanted("A", Have.READY, again=True)) == (serving(), ())
    building, _ = advance(serving(), Wanted("B", Have.MISSING))
    s, _ = advance(building, Unknown("weights are gone"))
    assert advance(s, Wanted("B", Have.MISSING, again=True)) == (building, ())


def test_somebody_who_asks_anew_begins_with_the_shortest_wait():
    s, _ = after(Unknown("no weights"), Tick(RETRY_S[0]), Unknown("no weights", again=True))
    s, _ = advance(s, Unknown("still none", now_s=100.0))
    assert s.tries_at_s == 100.0 + RETRY_S[0]


def test_no_weights_at_boot_let_the_last_good_plan_serve_or_block():
    assert after(Unknown("no weights", Fallback("A")))[1] == (Load(Job(0, "A")),)
    s, actions = after(Unknown("no weights"))
    assert (s.phase, s.why, actions) == (Phase.BLOCKED, "no weights", ())


def test_what_a_watch_will_tell_is_not_asked_for_by_the_clock():
    """A file that is being copied is whole when its watch says so, and not when half a minute is over."""
    s, _ = after(Unknown("no weights", watched=True))
    assert s.tries_at_s is None
    s, actions = advance(s, Wanted("A", Have.READY))
    assert (s.why, actions) == ("", (Load(Job(0, "A")),))


def test_while_the_wanted_plan_waits_what_is_offered_serves_though_the_wish_is_not_known_any_more():
    s, _ = after(Wanted("A", Have.READY), LoadFailed(Job(0, "A"), "driver died", False, 0.0))
    s, actions = advance(s, Unknown("driver died", Fallback("B"), again=True))
    assert actions == (Load(Job(1, "B")),)


def test_a_wish_that_is_known_again_brings_its_fallback_and_keeps_the_reason_of_the_wait():
    s, _ = after(Wanted("A", Have.MISSING), BuildFailed(Job(0, "A"), "killed", False, 0.0), Unknown("no driver"))
    assert s.why == "no driver"
    s, actions = advance(s, Wanted("A", Have.MISSING, Fallback("B"), again=True))
    assert (s.why, actions) == ("killed", (Load(Job(1, "B")),))


def test_a_build_that_failed_for_good_is_not_begun_again_because_the_wish_was_unknown_for_a_while():
    s, _ = after(Wanted("A", Have.MISSING), BuildFailed(Job(0, "A"), "refused", True, 0.0), Unknown("no driver"))
    s, actions = advance(s, Wanted("A", Have.MISSING, again=True))
    assert (s.why, actions) == ("refused", ())
    assert advance(s, Wanted("A", Have.MISSING))[1] == (Build(Job(1, "A")),), "somebody asks anew"


def test_a_forced_build_under_another_name_is_not_forced_again_and_the_second_one_is_the_last():
    s, _ = after(Wanted("A", Have.READY), Loaded(Job(0, "A"), 0.0), Rebuild(force=True))
    s, _ = advance(s, BuildFailed(Job(1, "A"), "named B", False, 1.0, renamed=True))
    s, actions = advance(s, Tick(1.0 + RETRY_S[0]))
    assert actions == (Build(Job(2, "A")),)
    s, actions = advance(s, BuildFailed(Job(2, "A"), "named B", False, 40.0, renamed=True))
    assert (s.step, s.why, s.tries_at_s, actions) == (Step.IDLE, "named B", None, ())


def test_while_a_plan_serves_no_fallback_is_built_or_loaded():
    for fallback in (Fallback("quick", ready=False), Fallback("B")):
        _, actions = advance(serving(), Wanted("C", Have.MISSING, fallback))
        assert actions == (Build(Job(1, "C")),)


def test_a_late_load_of_the_same_plan_is_not_taken_for_the_new_one():
    s, _ = advance(serving(), Wanted("B", Have.READY))
    s, _ = advance(s, Wanted("A", Have.READY))
    s, actions = advance(s, Wanted("B", Have.READY))
    assert actions == (Load(Job(2, "B")),)
    assert advance(s, Loaded(Job(1, "B"), 0.0)) == (s, (Retire(Job(1, "B")),))


def test_a_new_wish_drops_the_load_that_only_the_old_one_needed():
    s, _ = advance(serving(), Wanted("B", Have.READY))
    s, actions = advance(s, Wanted("C", Have.MISSING))
    assert actions == (Build(Job(2, "C")),)
    assert advance(s, Loaded(Job(1, "B"), 0.0)) == (s, (Retire(Job(1, "B")),))


def test_a_swap_on_probation_keeps_the_plan_that_served_well_to_go_back_to():
    s, _ = advance(on_probation(), Wanted("C", Have.READY))
    s, _ = advance(s, Loaded(Job(2, "C"), 20.0))
    assert s.prior == "A"


def test_a_broken_plan_that_is_wanted_again_does_not_count_as_served():
    s, _ = advance(on_probation(), InferFailed("NaN"))
    s, _ = advance(s, Wanted("B", Have.READY))
    assert s.step is Step.LOAD


def test_a_new_wish_begins_with_the_shortest_wait():
    s, _ = advance(serving(), Wanted("B", Have.MISSING))
    s, _ = after(BuildFailed(Job(1, "B"), "killed", False, 0.0), Tick(30.0), s=s)
    s, _ = after(BuildFailed(Job(2, "B"), "killed", False, 30.0), Wanted("C", Have.MISSING), s=s)
    s, _ = advance(s, BuildFailed(Job(3, "C"), "killed", False, 100.0))
    assert s.retry_at_s == 100.0 + RETRY_S[0]


def test_a_plan_that_is_damaged_again_right_after_its_build_is_not_built_in_a_tight_loop():
    s, _ = after(Wanted("A", Have.READY), LoadFailed(Job(0, "A"), "damaged", True, 0.0), BuildDone(Job(1, "A")))
    s, actions = advance(s, LoadFailed(Job(2, "A"), "damaged", True, 9.0))
    assert actions == (Discard("A", "damaged"),)
    assert s.step is Step.WAIT


def test_the_same_wish_again_changes_nothing_under_way():
    s, _ = after(Wanted("A", Have.MISSING))
    assert advance(s, Wanted("A", Have.MISSING)) == (s, ())


REVOKED = Unknown("it is signed by key 0A, which was revoked", Fallback("A"), watched=True, distrusted=True)


def test_what_is_built_of_weights_whose_key_was_revoked_is_cancelled_and_what_serves_stays():
    s, actions = advance(serving(), Wanted("B", Have.MISSING))
    (build,) = actions
    s, actions = advance(s, REVOKED)
    assert actions == (CancelBuild(build.job),)
    assert (s.phase, s.building, s.step, s.why) == (Phase.SERVING, None, Step.IDLE, REVOKED.reason)
    assert advance(s, BuildDone(build.job)) == (s, ()), "it was done already"


def test_what_is_loaded_of_weights_whose_key_was_revoked_never_serves():
    s, (load,) = advance(serving(), Wanted("B", Have.READY))
    s, actions = advance(s, REVOKED)
    assert actions == ()
    assert advance(s, Loaded(load.job, 1.0)) == (s, (Retire(load.job),))


def test_a_first_boot_with_a_revoked_key_leaves_its_quick_plan_too_and_serves_what_served_well():
    s, (build,) = after(Wanted("B", Have.MISSING, Fallback("quick", ready=False)))
    s, actions = advance(s, REVOKED)
    assert actions == (CancelBuild(build.job), Load(Job(build.job.number + 1, "A")))
    assert s.phase is Phase.PREPARING
