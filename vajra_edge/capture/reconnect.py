"""A camera's life as a pure machine: closed -> opening -> streaming -> backoff -> opening ..., or ended.

| event    | in                  | then                                                                 |
|----------|---------------------|----------------------------------------------------------------------|
| Start    | closed, ended       | opening; Open                                                        |
| Opened   | opening             | opening still: a source streams once its first frame is there        |
| GotFrame | opened or streaming | streaming; attempts are forgotten after ``healthy_s`` of frames      |
| GotFrame | the same picture    | for ``freeze_s``: backoff                                            |
| Failed   | opening, streaming  | backoff; Close                                                       |
| Failed   | the login refused   | from the second time on without a frame: ``login_wait_s`` longer     |
| Died     | opening, streaming  | backoff; Close                                                       |
| Hung     | opening, streaming  | backoff; Kill                                                        |
| OverFull | opening, streaming  | backoff; Kill                                                        |
| Stuck    | opening             | backoff: the process before still lives, and no other is started     |
| Stuck    | backoff             | backoff still, and the reason names the process                      |
| Ended    | opened or streaming | ended; Close                                                         |
| NewLogin | backoff, refused    | the delay of a first attempt, and refusals are counted anew          |
| Tick     | opened or streaming | no frame for ``stall_s``: backoff; Close                             |
| Tick     | backoff             | opening when the delay has passed; Open                              |
| Still    | opened or streaming | those seconds count neither as silence nor as the same picture       |
| Stop     | any                 | closed; Close where something is open                                |

What is open is a process of its own, which may die, hang, take too much memory, or be beyond killing.
Anything else is late news (a frame that came after the stall was noticed) and changes nothing.
Each change of phase is told once, by a Report. The clock and the dice arrive inside the events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from typing_extensions import assert_never

from vajra_edge.capture.rate import patience_s
from vajra_edge.config.settings import CameraSettings

FIRST_DELAY_S = 1.0
"""Longest wait before the first attempt: a camera that reboots takes many times that, a lost packet none."""

LOGIN_WAIT_S = 600.0
"""Cameras lock a user out for some 5 to 30 minutes after 3 to 10 wrong logins, and many count on meanwhile."""

SURE_SHARE = 0.5
"""Of each span a half is waited in any case; dice add of the other half, so that cameras do not come back together."""

_SPARED_REFUSALS = 1  # a camera that boots may refuse a right password once
_MOST_DOUBLINGS = 30  # 2**30 s is beyond every backoff_max_s, and an unbounded power would overflow a float


class CameraPhase(str, Enum):
    """Where a camera stands."""

    CLOSED = "closed"
    OPENING = "opening"
    STREAMING = "streaming"
    BACKOFF = "backoff"
    ENDED = "ended"


@dataclass(frozen=True)
class Policy:
    """How patient the machine is; every figure in seconds on the monotonic clock.

    Attributes:
        stall_s: no new frame for longer than this is a loss; None: never (files wait for their reader on purpose).
        freeze_s: the same picture for longer than this is a loss; None: never.
        healthy_s: frames for at least this long make the next loss count as the first.
        backoff_max_s: the longest delay before an attempt.
        first_delay_s: the longest delay before the first attempt; doubles with each.
        login_wait_s: added to the delay where a login was refused again.
    """

    stall_s: float | None
    freeze_s: float | None
    healthy_s: float
    backoff_max_s: float
    first_delay_s: float = FIRST_DELAY_S
    login_wait_s: float = LOGIN_WAIT_S

    @classmethod
    def of(cls, camera: CameraSettings, *, live: bool) -> Policy:
        """The camera's own figures; a file or folder neither stalls nor freezes, and a slow camera may be slow."""
        return cls(
            stall_s=patience_s(camera) if live else None,
            freeze_s=camera.freeze_s if live else None,
            healthy_s=camera.healthy_s,
            backoff_max_s=camera.backoff_max_s,
        )


@dataclass(frozen=True)
class CameraState:
    """What is known of one camera.

    Attributes:
        attempts: losses and failed openings since the last healthy period.
        opened_s: when the source answered, or None.
        last_frame_s: when the newest frame came (or the source answered, before the first one).
        digest: of the newest picture, where freezes are looked for.
        changed_s: when ``digest`` was last another one.
        retry_at_s: in backoff, when the next attempt is due.
        reason: why the camera was lost; kept until it streams again.
        refused_logins: since a frame came, or since user and password were changed.
    """

    phase: CameraPhase = CameraPhase.CLOSED
    attempts: int = 0
    opened_s: float | None = None
    last_frame_s: float = 0.0
    digest: int | None = None
    changed_s: float = 0.0
    retry_at_s: float | None = None
    reason: str = ""
    refused_logins: int = 0


@dataclass(frozen=True)
class Start:
    """Somebody wants frames."""


@dataclass(frozen=True)
class Opened:
    """The source answered."""

    now_s: float


@dataclass(frozen=True)
class GotFrame:
    """A frame was read; ``digest`` is None where freezes are not looked for, ``dice`` is in 0..1."""

    now_s: float
    dice: float
    digest: int | None = None


@dataclass(frozen=True)
class SourceFailed:
    """The source could not be opened or read; ``dice`` is in 0..1, ``login_refused`` as in ``SourceError``."""

    now_s: float
    dice: float
    reason: str
    login_refused: bool = False


@dataclass(frozen=True)
class ChildDied:
    """The process ended by itself without a word of its own; ``how`` says how."""

    now_s: float
    dice: float
    how: str


@dataclass(frozen=True)
class ChildHung:
    """Nothing was heard of the process for ``silent_s``, though it says so when it waits on purpose."""

    now_s: float
    dice: float
    silent_s: float


@dataclass(frozen=True)
class ChildOverFull:
    """The process uses more memory than a camera may."""

    now_s: float
    dice: float
    used_bytes: int
    most_bytes: int


@dataclass(frozen=True)
class ChildStuck:
    """A process of this camera was killed and is there still; ``pid`` is 0 where it never told its own."""

    now_s: float
    dice: float
    pid: int


@dataclass(frozen=True)
class LoginChanged:
    """User and password are others than at the last attempt; ``dice`` is in 0..1."""

    now_s: float
    dice: float


@dataclass(frozen=True)
class Ended:
    """A finite source has no more frames."""


@dataclass(frozen=True)
class CameraTick:
    """Time has passed; ``dice`` is in 0..1."""

    now_s: float
    dice: float


@dataclass(frozen=True)
class StoodStill:
    """For so long nobody here could listen: a library kept all threads waiting, or the board stood still."""

    seconds: float


@dataclass(frozen=True)
class StopCamera:
    """Nobody wants frames any more."""


@dataclass(frozen=True)
class Open:
    """Open the source, answer with Opened or Failed."""


@dataclass(frozen=True)
class Close:
    """Release what was opened, or what is being opened."""


@dataclass(frozen=True)
class Kill:
    """End the process that it is in; it would not listen."""


@dataclass(frozen=True)
class ReportState:
    """Tell the others where the camera stands now."""

    phase: CameraPhase
    reason: str
    attempts: int
    retry_in_s: float | None


Loss: TypeAlias = SourceFailed | ChildDied | ChildHung | ChildOverFull
Event: TypeAlias = (
    Start | Opened | GotFrame | Loss | ChildStuck | LoginChanged | Ended | CameraTick | StoodStill | StopCamera
)
Action: TypeAlias = Open | Close | Kill | ReportState
Step: TypeAlias = tuple[CameraState, tuple[Action, ...]]


def advance(state: CameraState, event: Event, policy: Policy) -> Step:  # noqa: C901, PLR0911  a case for a row of the table
    """One step of the table above."""
    late = state, ()
    holds_source = state.phase in (CameraPhase.OPENING, CameraPhase.STREAMING)
    opened = holds_source and state.opened_s is not None
    match event:
        case Start():
            return (
                _enter(CameraState(CameraPhase.OPENING), Open())
                if state.phase in (CameraPhase.CLOSED, CameraPhase.ENDED)
                else late
            )
        case Opened(now_s):
            answered = state.phase is CameraPhase.OPENING and not opened
            return _opened(state, now_s) if answered else late
        case GotFrame():
            return _frame(state, event, policy) if opened else late
        case Ended():
            return _enter(CameraState(CameraPhase.ENDED), Close()) if opened else late
        case SourceFailed() | ChildDied() | ChildHung() | ChildOverFull():
            return _lost(state, event, policy) if holds_source else late
        case ChildStuck():
            return _stuck(state, event, policy)
        case LoginChanged():
            return _tried_anew(state, event, policy) if state.refused_logins and state.retry_at_s is not None else late
        case CameraTick():
            return _tick(state, event, policy)
        case StoodStill(seconds):
            shifted = replace(state, last_frame_s=state.last_frame_s + seconds, changed_s=state.changed_s + seconds)
            return (shifted, ()) if opened else late
        case StopCamera():
            return (
                late
                if state.phase is CameraPhase.CLOSED
                else _enter(CameraState(), *((Close(),) if holds_source else ()))
            )
        case _:
            assert_never(event)


def _opened(state: CameraState, now_s: float) -> Step:
    return replace(state, opened_s=now_s, last_frame_s=now_s, digest=None, changed_s=now_s), ()


def _tick(state: CameraState, event: CameraTick, policy: Policy) -> Step:
    """A source that answered may have stalled; one that was lost may be due again."""
    if state.retry_at_s is not None and event.now_s >= state.retry_at_s:
        opening = CameraState(
            CameraPhase.OPENING, state.attempts, reason=state.reason, refused_logins=state.refused_logins
        )
        return _enter(opening, Open())
    silent_s = event.now_s - state.last_frame_s
    if state.opened_s is not None and policy.stall_s is not None and silent_s > policy.stall_s:
        return _lose(state, policy, event.now_s, event.dice, f"no new frame for {silent_s:.1f} s")
    return state, ()


def _frame(state: CameraState, event: GotFrame, policy: Policy) -> Step:
    same = event.digest is not None and event.digest == state.digest
    changed_s = state.changed_s if same else event.now_s
    if policy.freeze_s is not None and event.now_s - changed_s > policy.freeze_s:
        reason = f"the same picture for {event.now_s - changed_s:.1f} s"
        return _lose(state, policy, event.now_s, event.dice, reason)
    healthy = state.opened_s is not None and event.now_s - state.opened_s >= policy.healthy_s
    fresh = CameraState(
        CameraPhase.STREAMING,
        attempts=0 if healthy else state.attempts,
        opened_s=state.opened_s,
        last_frame_s=event.now_s,
        digest=event.digest,
        changed_s=changed_s,
    )
    return (fresh, ()) if state.phase is CameraPhase.STREAMING else _enter(fresh)


def _lost(state: CameraState, event: Loss, policy: Policy) -> Step:
    match event:
        case SourceFailed(now_s, dice, reason, login_refused=True):
            return _refused(state, policy, now_s, dice, reason)
        case SourceFailed(now_s, dice, reason) | ChildDied(now_s, dice, reason):
            return _lose(state, policy, now_s, dice, reason)
        case ChildHung(now_s, dice, silent_s):
            reason = f"did not answer within {silent_s:.0f} s and was ended"
            return _lose(state, policy, now_s, dice, reason, Kill())
        case ChildOverFull(now_s, dice, used_bytes, most_bytes):
            reason = f"the decoder took {used_bytes / 1e6:.0f} MB of memory, allowed are {most_bytes / 1e6:.0f} MB"
            return _lose(state, policy, now_s, dice, reason, Kill())
        case _:
            assert_never(event)


def _stuck(state: CameraState, event: ChildStuck, policy: Policy) -> Step:
    """Wait for the process that cannot be ended: one of them may hold a device, and hundreds would hold the memory."""
    which = f"its process {event.pid}" if event.pid else "its process"
    note = f"{which} cannot be ended, and no other is started before it is gone"
    if state.phase is CameraPhase.OPENING:
        return _lose(state, policy, event.now_s, event.dice, note)
    if state.phase is CameraPhase.BACKOFF and note not in state.reason:
        told = replace(state, reason="; ".join(filter(None, (state.reason, note))))
        return _enter(told, retry_in_s=max((state.retry_at_s or event.now_s) - event.now_s, 0.0))
    return state, ()


def _refused(state: CameraState, policy: Policy, now_s: float, dice: float, reason: str) -> Step:
    """A wrong password that comes again and again keeps its user locked out, even once it is mended."""
    counted = replace(state, refused_logins=state.refused_logins + 1)
    if state.refused_logins < _SPARED_REFUSALS:
        return _lose(counted, policy, now_s, dice, reason)
    note = (
        f"it may lock this user out, so it is asked again after {policy.login_wait_s / 60.0:.0f} min, "
        "or once user and password change here"
    )
    return _lose(counted, policy, now_s, dice, f"{reason}; {note}", wait_s=policy.login_wait_s)


def _tried_anew(state: CameraState, event: LoginChanged, policy: Policy) -> Step:
    delay_s = _delay_s(0, policy, event.dice)
    reason = "user and password were changed here"
    return _enter(replace(state, retry_at_s=event.now_s + delay_s, reason=reason, refused_logins=0), retry_in_s=delay_s)


def _lose(
    state: CameraState,
    policy: Policy,
    now_s: float,
    dice: float,
    reason: str,
    release: Close | Kill = Close(),
    *,
    wait_s: float = 0.0,
) -> Step:
    """Backoff, ``wait_s`` longer than usual."""
    delay_s = wait_s + _delay_s(state.attempts, policy, dice)
    lost = CameraState(
        CameraPhase.BACKOFF,
        state.attempts + 1,
        retry_at_s=now_s + delay_s,
        reason=reason,
        refused_logins=state.refused_logins,
    )
    return _enter(lost, release, retry_in_s=delay_s)


def _delay_s(attempts: int, policy: Policy, dice: float) -> float:
    """A random time in the upper half of a span that doubles: never at once, never all cameras together."""
    span_s = min(policy.backoff_max_s, policy.first_delay_s * 2.0 ** min(attempts, _MOST_DOUBLINGS))
    return span_s * (SURE_SHARE + (1.0 - SURE_SHARE) * dice)


def _enter(state: CameraState, *actions: Action, retry_in_s: float | None = None) -> Step:
    return state, (*actions, ReportState(state.phase, state.reason, state.attempts, retry_in_s))
