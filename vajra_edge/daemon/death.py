"""Death: how the process before this one ended, and which plan, if any, is charged with it. Pure.

A crash is the plan's only where the thread that it came in was at work for the plan: the fault handler's traceback
names the thread that crashed by what it was running. Whatever else ends a process is told, and charged to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from vajra_edge.daemon.crash_log import Left, Marker
from vajra_edge.daemon.watchdog import DESK, FRAMES, PIPELINE
from vajra_edge.plans.charges import Charged


class End(str, Enum):
    """How a process ended. STALL: it was ended from outside while none of its loops was late by its own account."""

    ORDERLY = "orderly"
    CRASH = "crash"
    WATCHDOG = "watchdog"
    STALL = "stall"
    MEMORY = "memory"
    KILLED = "killed"
    POWER = "power"


@dataclass(frozen=True)
class Death:
    """What is known of it.

    Attributes:
        end: how.
        line: for people; empty where it ended in order.
        fingerprint: of the plan that is charged; None: nobody is.
        charged: with what.
    """

    end: End
    line: str = ""
    fingerprint: str | None = None
    charged: Charged = Charged.CRASH


class Who(Enum):
    """What a thread was at work for."""

    LOAD = "the thread that loads plans"
    PLAN = "the thread that runs the plan"
    LOOP = "the frame loop"
    CAMERA = "a camera's thread"
    OUTSIDE = "nobody's: the signal came from outside"
    NATIVE = "a library's own thread"
    UNTOLD = "a thread that was not named, for the fault handler died of naming the others"
    OTHER = "another thread"


@dataclass(frozen=True)
class Thread:
    """One thread of a traceback: its frames as (end of the path, function), the innermost first."""

    crashed: bool
    frames: tuple[tuple[str, str], ...]

    def runs(self, path: str, function: str = "") -> bool:
        """Whether it is inside this function; inside the module at all, where none is named."""
        return any(at.endswith(path) and function in ("", name) for at, name in self.frames)


LOADS = ("vajra_edge/daemon/deployment.py", "_load")
WARMS_UP = ("vajra_edge/inference/detector.py", "_first")
RUNS = ("vajra_edge/inference/detector.py", "_timed")
LOOPS = ("vajra_edge/inference/pipeline.py", "_run")
TAKES_ABORTS = ("vajra_edge/daemon/aborts.py", "_take_aborts")
CAMERAS = ("vajra_edge/capture/", "vajra_edge/daemon/cameras.py")
DRAWS = ("vajra_edge/geometry/letterbox.py", "vajra_edge/daemon/snapshots.py", "vajra_edge/daemon/sample_collector.py")
"""What has threads of OpenCV at work."""

NOT_THE_PLANS = ("vajra_edge/geometry/letterbox.py", "vajra_edge/mqtt/", "vajra_edge/daemon/snapshots.py", *CAMERAS)
"""What the frame loop does for pictures and for those who hear of them; the rest of it is for the plan."""

READS = "vajra_edge/plans/"
"""Where a load waits for the disk rather than for the plan's library."""

PLANS_LOOPS = frozenset((PIPELINE.name, FRAMES.name))
"""What falls silent when the plan stands still, and nothing else does."""

HELD = 2
"""Times that the fault handler's own thread went off: a process that stood still as a whole leaves one at most, when
it goes on; more of them mean that all of Python stood still while the process did not.
"""

ABORTED = "Aborted"
"""What the fault handler calls SIGABRT."""

_FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_THREAD = re.compile(r"^(Current thread|Thread) 0x[0-9a-f]+.*$", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.*)", line \d+ in (.+)$', re.MULTILINE)


def judge(left: Left) -> Death:
    """How the process ended that left this."""
    marker = left.marker
    if fatals := list(_FATAL.finditer(left.dump)):
        fatal, whole = fatals[0], len(fatals) == 1  # the others run on while it looks at them, and it may crash on one
        threads = tuple(threads_of(left.dump[fatal.start() :]))
        return _signalled(marker, fatal[1], threads, held=left.alarms >= HELD, whole=whole and bool(threads))
    if marker.ended:
        return Death(End.ORDERLY)
    if marker.at.boot != left.now.boot or not marker.at.boot:
        return Death(End.POWER, "the machine went down while the daemon ran")
    if marker.killed is not None and left.killed is not None and left.killed > marker.killed:
        return _out_of_memory(marker)
    return Death(End.KILLED, "the daemon was killed, or ended without a word")


def threads_of(dump: str) -> Iterator[Thread]:
    """Of the fault handler's traceback, in its order."""
    heads = list(_THREAD.finditer(dump))
    ends = [head.start() for head in heads[1:]] + [len(dump)]
    for head, end in zip(heads, ends, strict=False):  # a traceback that was cut off may have no thread at all
        told = dump[head.end() : end]
        yield Thread(head[1] == "Current thread", tuple((one[1], one[2]) for one in _FRAME.finditer(told)))


def _signalled(marker: Marker, what: str, threads: tuple[Thread, ...], *, held: bool, whole: bool) -> Death:
    crashed = next((one for one in threads if one.crashed), None)
    unnamed = Who.NATIVE if whole else Who.OUTSIDE if marker.late and what == ABORTED else Who.UNTOLD
    who = unnamed if crashed is None else who_is(crashed)
    if who is Who.OUTSIDE:
        return _aborted(marker, threads, held=held)
    if who is Who.NATIVE:
        who = _employer(threads)
    line = f"the daemon died in {who.value}: {what}"
    if who is Who.LOAD and marker.loading is not None:
        return Death(End.CRASH, f"{line}, while plan {_short(marker.loading)} was loaded", marker.loading, Charged.LOAD)
    if who in (Who.PLAN, Who.LOOP) and marker.serving is not None:
        return Death(End.CRASH, f"{line}, while plan {_short(marker.serving)} served", marker.serving)
    return Death(End.CRASH, f"{line}; no plan is charged")


def who_is(thread: Thread) -> Who:
    """What a thread was at work for."""
    if thread.runs(*TAKES_ABORTS):
        return Who.OUTSIDE
    if thread.runs(*LOADS) or thread.runs(*WARMS_UP):
        return Who.LOAD
    if thread.runs(*RUNS):
        return Who.PLAN
    if any(_is_in(thread, part) for part in CAMERAS):
        return Who.CAMERA
    if thread.runs(*LOOPS) and not any(_is_in(thread, part) for part in NOT_THE_PLANS):
        return Who.LOOP
    return Who.OTHER


def _employer(threads: tuple[Thread, ...]) -> Who:
    """Whom a thread worked for that is none of Python's; where two could be meant, nobody is.

    What cameras are decoded with is in none of these threads: it is in other processes.
    """
    if any(_is_in(one, part) for one in threads for part in DRAWS):
        return Who.NATIVE
    told = {who_is(one) for one in threads}
    busy = [who for who in (Who.LOAD, Who.PLAN) if who in told]
    return busy[0] if busy else Who.NATIVE


def _aborted(marker: Marker, threads: tuple[Thread, ...], *, held: bool) -> Death:
    """By systemd's watchdog, or by whoever types the signal."""
    loads = any(who_is(one) is Who.LOAD and not _is_in(one, READS) for one in threads)
    if not marker.late:
        return _stood_still(marker, held=held and loads)
    line = f"the watchdog ended the daemon, for these were silent: {', '.join(marker.late)}"
    if marker.loading is not None and loads and set(marker.late) == {DESK.name}:
        line = f"{line}, while plan {_short(marker.loading)} was loaded"
        return Death(End.WATCHDOG, line, marker.loading, Charged.LOAD)
    hangs = any(one.runs(*RUNS) for one in threads)
    if marker.serving is not None and hangs and PLANS_LOOPS.issuperset(marker.late):
        return Death(End.WATCHDOG, f"{line}, while plan {_short(marker.serving)} served", marker.serving)
    return Death(End.WATCHDOG, f"{line}; no plan is charged")


def _stood_still(marker: Marker, *, held: bool) -> Death:
    """While none of its loops was late by its own account; ``held``: by a library that a load is in."""
    line = "the daemon was aborted from outside while none of its loops was late: "
    if held and marker.loading is not None:
        line = f"{line}a library kept every thread waiting, while plan {_short(marker.loading)} was loaded"
        return Death(End.STALL, line, marker.loading, Charged.LOAD)
    return Death(End.STALL, f"{line}it stood still as a whole, or somebody did it; no plan is charged")


def _out_of_memory(marker: Marker) -> Death:
    line = "the daemon was killed, most likely for want of memory"
    if marker.loading is None:
        return Death(End.MEMORY, f"{line}; no plan is charged")
    return Death(End.MEMORY, f"{line}, while plan {_short(marker.loading)} was loaded", marker.loading, Charged.LOAD)


def _is_in(thread: Thread, part: str) -> bool:
    return any(part in path for path, _ in thread.frames)


def _short(fingerprint: str) -> str:
    return fingerprint[:12]
