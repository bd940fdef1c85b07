"""Limits of a camera's process: it may fail in any way and costs nobody else anything.

Memory is bounded by what is really used. Address space is not: CUDA and the Jetson's decoders reserve hundreds of GiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

from vajra_edge.capture.url import Kind

MEMORY_BYTES = 1024**3
"""Most private memory. 4K H.265 with 16 reference frames takes 0.4 GiB, an image of ``MAX_IMAGE_PX`` 0.6."""

DATA_BYTES = 2 * MEMORY_BYTES
"""Most memory asked for, used or not: one allocation beyond it fails at once, long before the parent looks again."""

OPEN_FILES = 256
NICENESS = 5
"""Inference comes first; a picture that is decoded late is dropped."""

OOM_SCORE_ADJ = 1000
"""Where memory runs out, the kernel takes a camera first."""

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Be killed as soon as the parent ends.

    Raises:
        SystemExit: it has ended already.
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent ended before this process began")


def confine(kind: Kind | None, *, hardware: bool = False) -> None:
    """Lower what this process may do and take, for good.

    Args:
        kind: of its camera; None: of no known kind.
        hardware: it may be decoded by a Jetson's hardware.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    if kind not in {Kind.GSTREAMER, Kind.CSI} and not hardware:  # a Jetson's elements map what they do not use
        _limit(resource.RLIMIT_DATA, DATA_BYTES)
    with contextlib.suppress(OSError):  # a system call filter may forbid it
        os.nice(NICENESS)
    with contextlib.suppress(OSError):  # /proc may be read-only in a container
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ), encoding="ascii")


def memory_bytes(pid: int) -> int:
    """Private memory that a process really uses, without the pictures that it shares; 0: it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("RssAnon:")), "RssAnon: 0 kB")
    return int(line.split()[1]) * 1024


def sleeps_in_the_kernel(pid: int) -> bool:
    """Whether a process waits for a device or file system, which no signal ends."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] == ["D"]


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")


def _limit(what: int, most: int) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))
