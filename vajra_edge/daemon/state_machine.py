"""The daemon's life as a pure machine: ``advance(state, event) -> (state, actions)``. No clock, no files, no threads.

What is pursued is plain to see: the wanted plan has a ``Step`` (build it, load it, wait, given up, done), so has the
fallback that may serve meanwhile, and after each event ``_pursue`` starts what the steps ask for. Work in flight is
named by a ``Job``, not by its fingerprint: a cancelled build of A may report after a second build of A began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from typing_extensions import assert_never

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


class Phase(str, Enum):
    """Where the service is. BLOCKED is alive, nothing serves, nothing is under way; FAILED: the process must go."""

    STARTING = "starting"
    PREPARING = "preparing"
    SERVING = "serving"
    BLOCKED = "blocked"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Step(str, Enum):
    """What a plan needs next; IDLE: nothing (there is none, its build failed for good, or it serves)."""

    IDLE = "idle"
    BUILD = "build"
    LOAD = "load"
    WAIT = "wait"


@dataclass(frozen=True)
class State:
    """Everything the supervisor decides from.

    Attributes:
        phase: for people and for the invariants.
        wanted: fingerprint that the settings and the weights ask for; None: not known.
        step: what the wanted plan needs next.
        fallback: fingerprint that may serve while the wanted one cannot.
        fallback_step: what the fallback needs next.
        failed: plans that did not load, or not build, in the place of the wanted one; not offered again.
        serving: the load whose runner takes the frames.
        building: the build in flight; there is never a second.
        loading: the load in flight.
        attempts: failures of the wanted plan since it was asked for.
        retry_at_s: when WAIT ends.
        retry_step: what WAIT turns into.
        unknown: why what is wanted cannot be known; empty if it is.
        asks: how often it was worked out again since.
        ask_at_s: when it is the next time; None: it is known, or a file that is watched has to change first.
        prior: the plan that served well before the one on probation.
        probation_until_s: when the serving plan counts as good; None: it does.
        going_back: ``prior`` is being loaded in place of what serves.
        broken: what serves fails on frames, so that without ``prior`` the process must go.
        forced: the wanted plan is built even if the store has it.
        missed: the wanted plan serves, and what is above it is built; where that fails, everything stays as it is.
        proven: the wanted plan served well before, so that it needs no probation.
        reason: why the wanted plan does not serve; empty if it does or is on its way.
        jobs: number of the next job.
    """

    phase: Phase = Phase.STARTING
    wanted: str | None = None
    step: Step = Step.IDLE
    fallback: str | None = None
    fallback_step: Step = Step.IDLE
    failed: tuple[str, ...] = ()
    serving: Job | None = None
    building: Job | None = None
    loading: Job | None = None
    attempts: int = 0
    retry_at_s: float | None = None
    retry_step: Step = Step.BUILD
    unknown: str = ""
    asks: int = 0
    ask_at_s: float | None = None
    prior: str | None = None
    probation_until_s: float | None = None
    going_back: bool = False
    broken: bool = False
    forced: bool = False
    missed: bool = False
    proven: bool = False
    reason: str = ""
    jobs: int = 0

    @property
    def why(self) -> str:
        """Why what is wanted does not serve, or is not known, for people; empty if nothing stands in its way."""
        return self.unknown or self.reason

    @property
    def rests(self) -> bool:
        """The wanted plan serves for good, and nothing is under way."""
        served = self.serving is not None and self.serving.fingerprint == self.wanted and not self.broken
        busy = self.step is not Step.IDLE or self.building or self.loading or self.probation_until_s is not None
        return served and not busy

    @property
    def tries_at_s(self) -> float | None:
        """When the next thing is tried again by itself; None: nothing waits for its time."""
        waits = (self.retry_at_s if self.step is Step.WAIT else None, self.ask_at_s)
        return min((at_s for at_s in waits if at_s is not None), default=None)


RETRY_S = (30.0, 120.0, 600.0)
"""Waits after the first, second and every later failure that may go away by itself."""

PROBATION_S = 60.0
"""How long a plan that replaced another must serve before it counts as good."""


Advanced = tuple[State, tuple[Action, ...]]
ENDING = (Phase.STOPPING, Phase.STOPPED, Phase.FAILED)


def advance(s: State, event: Event) -> Advanced:  # noqa: C901, PLR0911, PLR0912  one row of a table a kind of event
    """The next state, and what has to be done, in order."""
    if s.phase in ENDING:
        return _ending(s, event)
    match event:
        case Wanted():
            return _want(s, event)
        case Unknown():
            return _unknown(s, event)
        case Rebuild(force):
            return _rebuild(s, force)
        case TryMissed(fingerprint):
            return _try_missed(s, fingerprint)
        case BuildDone() | BuildFailed():
            return _build_ended(s, event) if event.job == s.building else (s, ())
        case Loaded(job):
            return _loaded(s, job, event.now_s) if job == s.loading else (s, (Retire(job),))
        case LoadFailed(job):
            return _load_failed(s, event) if job == s.loading else (s, ())
        case InferFailed(reason):
            return _infer_failed(s, s.serving, reason) if s.serving and not s.broken else (s, ())
        case Unfit(reason):
            return _unfit(s, reason)
        case Tick(now_s):
            return _tick(s, now_s)
        case Stop():
            return replace(s, phase=Phase.STOPPING, building=None, loading=None), (*_cancel(s), StopAll())
        case Drained():
            return s, ()
        case _:
            assert_never(event)


def _ending(s: State, event: Event) -> Advanced:
    """Nothing starts any more; what still arrives is put away."""
    match event:
        case Loaded(job):
            return s, (Retire(job),)
        case Drained():
            if s.phase is not Phase.STOPPING:
                return s, ()
            return replace(s, phase=Phase.STOPPED, serving=None), (Exit(0),)
        case Wanted() | Unknown() | Rebuild() | TryMissed() | BuildDone() | BuildFailed() | LoadFailed():
            return s, ()
        case InferFailed() | Unfit() | Tick() | Stop():
            return s, ()
        case _:
            assert_never(event)


def _pursue(s: State, *before: Action) -> Advanced:
    """Start what the steps ask for: a quick fallback is built first, then the wanted plan; one build, one load."""
    actions = list(before)
    quick = s.serving is None and s.fallback_step is Step.BUILD and s.step is not Step.LOAD
    if s.building is None and (quick or s.step is Step.BUILD):
        s, job = _next_job(s, s.fallback if quick else s.wanted)
        s = replace(s, building=job)
        force = s.forced and not quick
        actions.append(Build(job, quick=quick, force=force, again=force and s.attempts > 0, missed=s.missed))
    back = s.fallback_step is Step.LOAD and (s.going_back or (s.serving is None and s.step is not Step.LOAD))
    if s.loading is None and (back or s.step is Step.LOAD):
        s, job = _next_job(s, s.fallback if back else s.wanted)
        s = replace(s, loading=job)
        actions.append(Load(job))
    return replace(s, phase=_phase(s)), tuple(actions)


def _phase(s: State) -> Phase:
    if s.serving:
        return Phase.SERVING
    return Phase.PREPARING if s.building or s.loading or s.step is Step.WAIT else Phase.BLOCKED


def _next_job(s: State, fingerprint: str | None) -> tuple[State, Job]:
    if fingerprint is None:
        raise AssertionError("a step without a plan")
    return replace(s, jobs=s.jobs + 1), Job(s.jobs, fingerprint)


def _cancel(s: State) -> tuple[Action, ...]:
    return (CancelBuild(s.building),) if s.building else ()


def _want(s: State, e: Wanted) -> Advanced:
    """A new desired plan ends what only the old one needed; the same one again changes nothing that is under way."""
    same, was_known = e.fingerprint == s.wanted, not s.unknown
    s = replace(_looking(s, e), unknown="", proven=e.proven)
    # Nobody asked anew: only a plan that came to be there is new, and one that is held gets its time.
    given_up = e.again and (was_known or e.have is Have.MISSING) and e.have is not Have.HELD
    if same and (given_up or s.step is not Step.IDLE):
        return _offer_again(s, e.fallback)
    s = replace(s, failed=())
    served = s.serving is not None and s.serving.fingerprint == e.fingerprint and not s.broken
    step = {Have.READY: Step.LOAD, Have.MISSING: Step.BUILD, Have.HELD: Step.WAIT}[e.have]
    step = Step.IDLE if served else step
    if not s.going_back:
        s = _offer(s, e.fallback, besides=e.fingerprint)
    needed = {e.fingerprint: step, s.fallback: s.fallback_step}
    building = s.building if s.building and needed.get(s.building.fingerprint) is Step.BUILD else None
    loading = s.loading if s.loading and needed.get(s.loading.fingerprint) is Step.LOAD else None
    cancel = () if building else _cancel(s)
    s = replace(s, building=building, loading=loading, wanted=e.fingerprint, step=step, reason=e.reason)
    s = replace(s, attempts=0, retry_at_s=None, forced=False, missed=False)
    if step is Step.WAIT:
        s = replace(s, retry_at_s=e.now_s + e.hold_s, retry_step=Step.LOAD)
    return _pursue(s, *cancel)


def _looking(s: State, e: Wanted) -> State:
    """When to work out anew what is wanted, where that may change by itself; less often the longer it does not."""
    if not e.instead:
        return replace(s, asks=0, ask_at_s=_look_at_s(s, e))
    if e.again and s.ask_at_s is not None:
        return s
    return replace(s, asks=0, ask_at_s=e.now_s + RETRY_S[0])


def _look_at_s(s: State, e: Wanted | Unknown) -> float | None:
    """When to look for a fallback again, because the only one is held."""
    return None if e.again_in_s is None or s.serving else e.now_s + e.again_in_s


def _offer(s: State, fallback: Fallback | None, besides: str | None = None) -> State:
    """Note what may serve meanwhile."""
    if fallback is None or fallback.fingerprint in (besides, *s.failed):
        return replace(s, fallback=None, fallback_step=Step.IDLE)
    return replace(s, fallback=fallback.fingerprint, fallback_step=Step.LOAD if fallback.ready else Step.BUILD)


def _offer_again(s: State, fallback: Fallback | None) -> Advanced:
    """Another one in the place of what failed; to be built, it goes before a build that takes many minutes."""
    if s.serving or s.fallback_step is not Step.IDLE:
        return s, ()
    s = _offer(s, fallback, besides=s.wanted)
    if s.fallback_step is not Step.BUILD:
        return _pursue(s)
    return _pursue(replace(s, building=None), *_cancel(s))


def _unknown(s: State, e: Unknown) -> Advanced:
    """Keep whatever there is; with nothing at all, let the fallback serve. It may be known later."""
    if e.again_in_s is not None and not s.serving:
        s = replace(s, asks=0, ask_at_s=_look_at_s(s, e))
    elif e.watched:
        s = replace(s, asks=0, ask_at_s=None)
    elif s.ask_at_s is None or not e.again:
        s = replace(s, asks=0, ask_at_s=e.now_s + RETRY_S[0])
    s = replace(s, unknown=e.reason, failed=s.failed if e.again else ())
    before: tuple[Action, ...] = ()
    if e.distrusted:
        s, before = _leave_wanted(s)
    if s.serving or s.building or s.loading or s.step is not Step.IDLE:
        s, actions = _offer_again(s, e.fallback)
    else:
        s, actions = _pursue(_offer(s, e.fallback))
    return s, (*before, *actions)


def _leave_wanted(s: State) -> Advanced:
    """Nothing that is under way of the wanted weights goes on; what serves stays, and going back to what did too."""
    quick = s.fallback_step is Step.BUILD
    loading = s.loading if s.loading and (s.loading.fingerprint != s.wanted or s.going_back) else None
    left = replace(s, building=None, loading=loading, step=Step.IDLE, retry_at_s=None, forced=False, missed=False)
    if quick:
        left = replace(left, fallback=None, fallback_step=Step.IDLE)
    return replace(left, phase=_phase(left)), _cancel(s)


def _rebuild(s: State, force: bool) -> Advanced:
    """Without ``force`` only what is not there is tried again, at once."""
    served = s.serving is not None and s.serving.fingerprint == s.wanted and not s.broken
    if s.wanted is None or (not force and (served or s.step is Step.LOAD)):
        return s, ()
    loading = s.loading if s.loading and s.loading.fingerprint != s.wanted else None
    cancel = _cancel(s) if s.missed else ()  # it tries less than what is asked for now
    s = replace(s, building=None if cancel else s.building, missed=False, loading=loading)
    return _pursue(replace(s, step=Step.BUILD, attempts=0, retry_at_s=None, forced=force, reason=""), *cancel)


def _try_missed(s: State, fingerprint: str) -> Advanced:
    """Only while nothing else is under way."""
    if fingerprint != s.wanted or not s.rests:
        return s, ()
    return _pursue(replace(s, step=Step.BUILD, attempts=0, missed=True))


def _build_ended(s: State, e: BuildDone | BuildFailed) -> Advanced:
    missed, s = s.missed, replace(s, building=None, missed=False)
    wanted = e.job.fingerprint == s.wanted
    if isinstance(e, BuildDone):
        return _pursue(replace(s, step=Step.LOAD, forced=False) if wanted else replace(s, fallback_step=Step.LOAD))
    if missed:
        return _pursue(replace(s, step=Step.IDLE))
    if not wanted:
        return _pursue(_without(s, e.job))
    again, s = e.renamed and s.attempts > 0, replace(s, forced=s.forced and not e.renamed)
    if e.permanent or again:
        return _pursue(replace(s, step=Step.IDLE, forced=False, reason=e.reason))
    return _pursue(_wait(s, Step.BUILD, e.reason, e.now_s))


def _without(s: State, failed: Job) -> State:
    """The fallback failed."""
    return replace(s, fallback_step=Step.IDLE, failed=(*s.failed, failed.fingerprint))


def _wait(s: State, then: Step, reason: str, now_s: float) -> State:
    retry_at_s = now_s + _wait_s(s.attempts)
    s = replace(s, attempts=s.attempts + 1, retry_at_s=retry_at_s, retry_step=then)
    return replace(s, step=Step.WAIT, reason=reason)


def _wait_s(before: int) -> float:
    return RETRY_S[min(before, len(RETRY_S) - 1)]


def _loaded(s: State, job: Job, now_s: float) -> Advanced:
    """Swap it in; the wanted plan is on probation if there is a good one to go back to."""
    on_probation = s.probation_until_s is not None
    good = None if s.broken or s.serving is None else s.prior if on_probation else s.serving.fingerprint
    actions = (Swap(job), *((Retire(s.serving),) if s.serving else ()))
    back = (Reconsider(()),) if s.going_back else ()  # when what failed is tried again is the history's to say
    s = replace(s, serving=job, loading=None, going_back=False, broken=False, prior=None, probation_until_s=None)
    if job.fingerprint != s.wanted:
        return _pursue(s, *actions, *back)
    s = replace(s, step=Step.IDLE, attempts=0, reason="")
    if good is None or good == job.fingerprint or s.proven:
        return _pursue(s, *actions, MarkGood(job.fingerprint))
    return _pursue(replace(s, prior=good, probation_until_s=now_s + PROBATION_S), *actions)


def _load_failed(s: State, e: LoadFailed) -> Advanced:
    drop = (Discard(e.job.fingerprint, e.reason),) if e.corrupt else ()
    s = replace(s, loading=None)
    if e.job.fingerprint == s.wanted and not s.going_back:
        if e.broken:
            return _pursue(replace(s, step=Step.IDLE, reason=e.reason), Reconsider(()))
        s, anew = replace(s, forced=s.forced or e.foreign), e.corrupt or e.foreign
        if anew and s.attempts == 0:
            return _pursue(replace(s, step=Step.BUILD, attempts=1, reason=e.reason), *drop)
        return _pursue(_wait(s, Step.BUILD if anew else Step.LOAD, e.reason, e.now_s), *drop)
    s = _without(s, e.job)
    if s.broken:
        return replace(s, phase=Phase.FAILED, building=None, reason=e.reason), (*drop, *_cancel(s), Exit(1))
    s, actions = _pursue(replace(s, going_back=False, prior=None, probation_until_s=None), *drop)
    return s, actions if s.serving else (*actions, Reconsider(s.failed))


def _infer_failed(s: State, failed: Job, reason: str) -> Advanced:
    """On probation the prior plan takes over in place; else the process goes, for the library may be spoilt."""
    if s.prior is not None:
        return _go_back(replace(s, broken=True), failed, s.prior, reason)
    s = replace(s, phase=Phase.FAILED, reason=reason)
    return replace(s, building=None, loading=None), (Strike(failed.fingerprint, reason), *_cancel(s), Exit(1))


def _unfit(s: State, reason: str) -> Advanced:
    """It runs, but worse than the plan before it, which is still there to go back to."""
    if s.serving is None or s.prior is None or s.going_back:
        return s, ()
    return _go_back(s, s.serving, s.prior, reason)


def _go_back(s: State, unfit: Job, prior: str, reason: str) -> Advanced:
    loading = s.loading if s.loading and s.loading.fingerprint == prior else None
    s = replace(s, going_back=True, loading=loading, fallback=prior, fallback_step=Step.LOAD)
    if s.wanted == unfit.fingerprint:
        s = replace(s, step=Step.IDLE, retry_at_s=None, reason=reason)
    return _pursue(s, Reject(unfit.fingerprint, reason))


def _tick(s: State, now_s: float) -> Advanced:
    actions: tuple[Action, ...] = ()
    if s.serving and s.probation_until_s is not None and now_s >= s.probation_until_s and not s.going_back:
        actions = (MarkGood(s.serving.fingerprint),)
        s = replace(s, prior=None, probation_until_s=None)
    if s.ask_at_s is not None and now_s >= s.ask_at_s:
        actions = (*actions, Reconsider(()))
        s = replace(s, asks=s.asks + 1, ask_at_s=now_s + _wait_s(s.asks + 1), failed=())
    if s.step is Step.WAIT and s.retry_at_s is not None and now_s >= s.retry_at_s:
        return _pursue(replace(s, step=s.retry_step, retry_at_s=None), *actions)
    return s, actions
