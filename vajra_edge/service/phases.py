"""Where the service stands: Phase, Step and the frozen State that ``states.advance`` moves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vajra_edge.service.events import Job


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
    """What a plan needs next; IDLE: nothing (there is none, it failed for good, or it serves)."""

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
