"""Protocol: the JSON lines between the build child and its parent, and the child's place in the world.

The child dies with its parent, gives way to the daemon, and keeps its pipe clean of what libraries print.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vajra_edge.progress import Progress

NICENESS = 10
"""Frames come first; at 10 a busy CPU still gives the build about a tenth."""

OOM_SCORE_ADJ = 500
"""Where memory runs out the kernel takes the build and not the daemon."""

OPEN_FILES = 1024

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Be killed as soon as the thread that started this process ends.

    Raises:
        SystemExit: the parent is gone already.
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")
    if os.getppid() != parent:
        raise SystemExit("the build's parent ended before it began")


def give_way(address_space_bytes: int | None = None) -> None:
    """Lower this process's claims: no core files, few open files, late on the CPU, first to go when memory runs out.

    Args:
        address_space_bytes: limit of address space, or None; CUDA reserves far more than it uses.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    if address_space_bytes is not None:
        _limit(resource.RLIMIT_AS, address_space_bytes)
    with contextlib.suppress(OSError):  # a system call filter may forbid it; the build then only competes more
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # /proc may be read-only in a container
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")


def claim_stdout() -> int:
    """A private copy of stdout for the protocol; whatever libraries print goes to stderr from now on."""
    sys.stdout.flush()
    protocol = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return protocol


def peak_rss_bytes(pid: int | None = None) -> int:
    """Largest resident memory of a process since it was executed; 0 if it is gone.

    ``ru_maxrss`` would not do: after fork and exec it starts from what the parent had (kernel/fs/exec.c, exec_mmap).
    """
    try:
        text = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def _limit(what: int, most: int) -> None:
    """Lower a limit; one that is lower already stays."""
    soft, hard = resource.getrlimit(what)
    known = [value for value in (soft, most) if value != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min(known), hard))


@dataclass(frozen=True)
class Done:
    """The plan is in the store; ``peak_rss_bytes`` is the child's largest resident memory."""

    fingerprint: str
    peak_rss_bytes: int


@dataclass(frozen=True)
class Failed:
    """There is no plan; ``permanent``: trying again cannot help; ``images``: those of the calibration are why."""

    message: str
    permanent: bool
    peak_rss_bytes: int
    images: bool = False


Line = Progress | Done | Failed

_DEFAULTS: Mapping[object, Mapping[str, object]] = {
    "progress": {"percent": None, "message": "", "eta_s": None, "waiting": False},
    "failed": {"images": False},
}
"""Fields that a line may leave out, by its event."""

_EVENTS: Mapping[type[Line], str] = {Progress: "progress", Done: "done", Failed: "failed"}


def encode(line: Line) -> bytes:
    """One line of JSON with its newline."""
    return json.dumps({"event": _EVENTS[type(line)], **asdict(line)}).encode() + b"\n"


def send(descriptor: int, line: Line) -> None:
    """Write one line to the parent."""
    os.write(descriptor, encode(line))


def decode(text: bytes) -> Line | None:
    """The inverse of ``encode``; None for anything else, which libraries may print."""
    try:
        plain: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(plain, dict) or not isinstance(plain.get("event"), str):
        return None
    match {**_DEFAULTS.get(plain["event"], {}), **plain}:
        case {
            "event": "progress",
            "stage": str(stage),
            "percent": (int() | float() | None) as percent,
            "message": str(message),
            "eta_s": (int() | float() | None) as eta_s,
            "waiting": bool(waiting),
            **more,
        } if not more:
            return Progress(stage, percent, message, eta_s, waiting)
        case {
            "event": "done",
            "fingerprint": str(fingerprint),
            "peak_rss_bytes": int(peak_rss_bytes),
            **more,
        } if not more:
            return Done(fingerprint, peak_rss_bytes)
        case {
            "event": "failed",
            "message": str(message),
            "permanent": bool(permanent),
            "peak_rss_bytes": int(peak_rss_bytes),
            "images": bool(images),
            **more,
        } if not more:
            return Failed(message, permanent, peak_rss_bytes, images)
        case _:
            return None
