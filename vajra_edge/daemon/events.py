"""What the service machine hears and what it asks for. All frozen; the clock arrives inside events as ``now_s``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Have(str, Enum):
    """What the store has of a plan. HELD: it is there, and waits for its next try after what it did."""

    READY = "ready"
    MISSING = "missing"
    HELD = "held"


@dataclass(frozen=True)
class Job:
    """One build or one load, told apart from every other of the same plan."""

    number: int
    fingerprint: str


@dataclass(frozen=True)
class Fallback:
    """A plan that may serve while the wanted one cannot: the last good one, or a quick one still to be built."""

    fingerprint: str
    ready: bool = True


# Events


@dataclass(frozen=True)
class Wanted:
    """Settings and weights ask for this plan.

    Attributes:
        fingerprint: of the plan.
        have: what the store has of it.
        fallback: what may serve meanwhile.
        reason: why it is held, where it is.
        again: nobody asked anew: what failed for good is not tried once more.
        hold_s: until a plan that is held is tried.
        again_in_s: until a plan that is held may serve meanwhile; None: there is none.
        instead: it is second best, for something on this machine that may be mended: that is looked at again.
        now_s: monotonic.
        proven: it served well before and somebody went back to it: it needs no probation.
    """

    fingerprint: str
    have: Have
    fallback: Fallback | None = None
    reason: str = ""
    again: bool = False
    hold_s: float = 0.0
    again_in_s: float | None = None
    instead: bool = False
    now_s: float = 0.0
    proven: bool = False


@dataclass(frozen=True)
class Unknown:
    """What is wanted cannot be known (no weights file, no driver yet); whatever serves goes on serving.

    Attributes:
        reason: why, in one line.
        fallback: what may serve meanwhile.
        again: nobody asked anew: what failed to serve meanwhile is not offered once more.
        watched: files are what stands in the way, and whoever watches them tells when they are others.
        distrusted: no key that is trusted now signed the weights: nothing is built or loaded of them any more.
        again_in_s: until a plan that is held may serve meanwhile; None: there is none.
        now_s: monotonic.
    """

    reason: str
    fallback: Fallback | None = None
    again: bool = False
    watched: bool = False
    distrusted: bool = False
    again_in_s: float | None = None
    now_s: float = 0.0


@dataclass(frozen=True)
class Rebuild:
    """Somebody asks for a build of what is wanted; ``force``: even of a plan that is there and serves."""

    force: bool = False


@dataclass(frozen=True)
class TryMissed:
    """The plan is of a lower precision than was asked for, because of something that may have passed."""

    fingerprint: str


@dataclass(frozen=True)
class BuildDone:
    """The build child committed its plan to the store."""

    job: Job


@dataclass(frozen=True)
class BuildFailed:
    """The build child ended without a plan.

    Attributes:
        job: of ``Build``.
        reason: why, in one line.
        permanent: trying again cannot help.
        now_s: monotonic.
        renamed: it made a plan under another name; forced once more, it would make the same one again.
    """

    job: Job
    reason: str
    permanent: bool
    now_s: float
    renamed: bool = False


@dataclass(frozen=True)
class Loaded:
    """A detector is loaded and warm, ready to take frames."""

    job: Job
    now_s: float


@dataclass(frozen=True)
class LoadFailed:
    """A plan did not load.

    Attributes:
        job: the load.
        reason: in one line.
        corrupt: the stored plan is damaged; it is to be put aside and built anew.
        now_s: monotonic.
        foreign: the plan is whole and of another library release or device; it is to be built anew.
        broken: it was built anew once and died again in a process of its own: it has to wait.
    """

    job: Job
    reason: str
    corrupt: bool
    now_s: float
    foreign: bool = False
    broken: bool = False


@dataclass(frozen=True)
class InferFailed:
    """The runner that serves failed on a frame; the frame loop has ended."""

    reason: str


@dataclass(frozen=True)
class Unfit:
    """The plan on probation runs, but worse than may be accepted."""

    reason: str


@dataclass(frozen=True)
class Tick:
    """Time passes."""

    now_s: float


@dataclass(frozen=True)
class Stop:
    """SIGTERM, SIGINT, or all that was asked for is done."""


@dataclass(frozen=True)
class Drained:
    """Everything that ``StopAll`` stopped has stopped, or its deadline has passed."""


Event: TypeAlias = (
    Wanted
    | Unknown
    | Rebuild
    | TryMissed
    | BuildDone
    | BuildFailed
    | Loaded
    | LoadFailed
    | InferFailed
    | Unfit
    | Tick
    | Stop
    | Drained
)


# Actions


@dataclass(frozen=True)
class Build:
    """Start the build child.

    Attributes:
        job: the plan.
        quick: it is the fallback.
        force: even if the store has the plan.
        again: a forced build that failed before, so that what it found to be refused stays refused.
        missed: only of what is above the plan that serves and was missed, see ``BuildRequest``.
    """

    job: Job
    quick: bool = False
    force: bool = False
    again: bool = False
    missed: bool = False


@dataclass(frozen=True)
class CancelBuild:
    """End the build child."""

    job: Job


@dataclass(frozen=True)
class Load:
    """Load a stored plan beside what serves, and warm it up."""

    job: Job


@dataclass(frozen=True)
class Swap:
    """Let the loaded detector take the frames from the next one on."""

    job: Job


@dataclass(frozen=True)
class Retire:
    """Close a detector that does not serve (any more)."""

    job: Job


@dataclass(frozen=True)
class MarkGood:
    """This plan serves well: it becomes the one to fall back to."""

    fingerprint: str


@dataclass(frozen=True)
class Discard:
    """The stored plan is damaged: put it aside, so that it is built anew."""

    fingerprint: str
    reason: str


@dataclass(frozen=True)
class Strike:
    """The plan brought the process down; after too many of these it has to wait."""

    fingerprint: str
    reason: str


@dataclass(frozen=True)
class Reject:
    """The plan failed its probation: it has to wait for its next try."""

    fingerprint: str
    reason: str


@dataclass(frozen=True)
class Reconsider:
    """Work out once more what is wanted and what may serve meanwhile, but for these plans, which did not load."""

    without: tuple[str, ...]


@dataclass(frozen=True)
class StopAll:
    """Stop cameras, pipeline and publisher within the drain time; then post ``Drained``."""


@dataclass(frozen=True)
class Exit:
    """End the process with this code."""

    code: int


Action: TypeAlias = (
    Build | CancelBuild | Load | Swap | Retire | MarkGood | Discard | Strike | Reject | Reconsider | StopAll | Exit
)
