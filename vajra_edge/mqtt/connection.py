"""Connection: when to dial, in which protocol and with what will, and how long to wait, as a pure machine.

::

    waiting --time is up--> dialling --broker accepts--> online
       ^                    |  ^  |                        |
       |                    |  +--+ speaks another protocol, or takes no such will: dial again at once, otherwise
       +---- fault ---------+------------ fault -----------+
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from typing_extensions import assert_never

BASE_S = 0.5
"""Longest wait after the first fault: a broker that restarts is back within a second or two."""

CAP_S = 30.0
"""Longest wait of all: whoever mends a network sees the device back within half a minute."""

SURE_SHARE = 0.5
"""Of each wait this share is sure; dice decide on the rest, so that a fleet does not come back in one moment."""

_MOST_DOUBLINGS = 16
"""2**16 times ``BASE_S`` is beyond the cap, and an unbounded power would overflow a float."""

HEALTHY_S = 20.0
"""A connection that held this long resets the delay; a broker that accepts and then kicks is not hammered."""


WILL_QOS = 1
"""Of the will: a subscriber must hear of it. A broker whose highest quality of service is 0 refuses it."""


class ConnectionPhase(str, Enum):
    """What goes on."""

    WAITING = "waiting"
    DIALLING = "dialling"
    ONLINE = "online"


class Doubt(Enum):
    """What a fault says about how the broker was dialled.

    NONE: nothing. SILENT: the broker took the connection and did not answer, as some do that know only 3.1.1.
    SURE: it said that it does not know the protocol. WILL_QOS: it takes no will of this quality of service.
    """

    NONE = 0
    SILENT = 1
    SURE = 2
    WILL_QOS = 3


@dataclass(frozen=True)
class Connection:
    """State.

    Attributes:
        phase: what goes on.
        wanted: ``auto``, ``5`` or ``3.1.1``.
        protocol: of this or the next attempt, ``5`` or ``3.1.1``.
        only_old: the broker said that it does not know 5.
        will_qos: of this or the next attempt; 0 once the broker refused a better one.
        attempts: faults in a row without a healthy connection between them.
        retry_s: monotonic; when waiting ends.
        since_s: monotonic; when the connection came up.
    """

    phase: ConnectionPhase
    wanted: str
    protocol: str
    only_old: bool = False
    will_qos: int = WILL_QOS
    attempts: int = 0
    retry_s: float = 0.0
    since_s: float = 0.0

    @classmethod
    def first(cls, wanted: str) -> Connection:
        """Dials as soon as time passes."""
        return cls(ConnectionPhase.WAITING, wanted, "5" if wanted == "auto" else wanted)


@dataclass(frozen=True)
class ConnectionTick:
    """Time passed."""

    now_s: float


@dataclass(frozen=True)
class Accepted:
    """The broker accepted the connection."""

    now_s: float


@dataclass(frozen=True)
class Fault:
    """Dialling failed, or the connection broke.

    Attributes:
        now_s: monotonic.
        dice: uniform in 0..1, spreads many devices over time after a broker's restart.
        doubt: what it says about how the broker was dialled.
        rival: another client took the session over: whoever comes back at once takes it back, and so on for ever.
    """

    now_s: float
    dice: float
    doubt: Doubt = Doubt.NONE
    rival: bool = False


@dataclass(frozen=True)
class Dial:
    """Action: connect, in this protocol, with a will of this quality of service."""

    protocol: str
    will_qos: int = WILL_QOS


@dataclass(frozen=True)
class Mended:
    """What the connection broke over was found and taken away: the breaks before say nothing of the next.

    Attributes:
        now_s: monotonic.
        dice: as in ``Fault``.
    """

    now_s: float
    dice: float


Event: TypeAlias = "ConnectionTick | Accepted | Fault | Mended"


def advance(state: Connection, event: Event) -> tuple[Connection, Dial | None]:
    """The next state, and whether to dial; an event that does not fit the phase changes nothing."""
    match event:
        case ConnectionTick(now_s):
            if state.phase is ConnectionPhase.WAITING and now_s >= state.retry_s:
                return replace(state, phase=ConnectionPhase.DIALLING), Dial(state.protocol, state.will_qos)
        case Accepted(now_s):
            if state.phase is ConnectionPhase.DIALLING:
                return replace(state, phase=ConnectionPhase.ONLINE, since_s=now_s), None
        case Fault():
            if state.phase is not ConnectionPhase.WAITING:
                return _after_fault(state, event)
        case Mended(now_s, dice):
            if state.phase is ConnectionPhase.WAITING:
                return replace(state, attempts=0, retry_s=now_s + delay_s(1, dice)), None
        case _:
            assert_never(event)
    return state, None


def _after_fault(state: Connection, fault: Fault) -> tuple[Connection, Dial | None]:
    dialling = state.phase is ConnectionPhase.DIALLING
    if dialling and fault.doubt is Doubt.WILL_QOS and state.will_qos:
        return replace(state, will_qos=0), Dial(state.protocol, 0)
    of_protocol = fault.doubt in {Doubt.SILENT, Doubt.SURE}
    if dialling and of_protocol and state.wanted == "auto" and state.protocol == "5":
        only_old = fault.doubt is Doubt.SURE
        return replace(state, protocol="3.1.1", only_old=only_old), Dial("3.1.1", state.will_qos)
    healthy = state.phase is ConnectionPhase.ONLINE and fault.now_s - state.since_s >= HEALTHY_S and not fault.rival
    attempts = 1 if healthy else state.attempts + 1
    # after mere silence 5 is tried again: the broker may have been starting, or frozen
    protocol = "5" if state.wanted == "auto" and not state.only_old else state.protocol
    retry_s = fault.now_s + delay_s(attempts, fault.dice)
    return replace(state, phase=ConnectionPhase.WAITING, protocol=protocol, attempts=attempts, retry_s=retry_s), None


def delay_s(attempts: int, dice: float) -> float:
    """Doubles with each attempt up to the cap; the upper half of it is random."""
    ceiling = min(CAP_S, BASE_S * 2.0 ** min(attempts - 1, _MOST_DOUBLINGS))
    return ceiling * (SURE_SHARE + (1.0 - SURE_SHARE) * dice)
