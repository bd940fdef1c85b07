"""Kills for want of memory, as the kernel counts them: whether a child's SIGKILL was one of these, or somebody's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Kills:
    """A counter that the kernel raises with each process that it kills for want of memory.

    Attributes:
        counter: the file that holds it; two readings compare only where this is the same.
        number: since the group was made, or since the boot.
    """

    counter: str
    number: int


def count(proc: Path = _PROC, groups: Path = _GROUPS) -> Kills | None:
    """The counter of our own control group, else of the whole machine; None where neither can be read.

    Args:
        proc: where procfs is mounted.
        groups: where control groups are.
    """
    for path in (*_of_group(proc, groups), proc / "vmstat"):
        for line in _read(path).splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill" and number.isdecimal():
                return Kills(str(path), int(number))
    return None


def evidence(before: Kills | None, after: Kills | None) -> str:
    """What two readings add to "killed by SIGKILL"; empty where the kernel killed nobody between them."""
    if before is None or after is None or before.counter != after.counter:
        return " by somebody or for want of memory"
    return ", most likely for want of memory" if after.number > before.number else ""


def _of_group(proc: Path, groups: Path) -> tuple[Path, ...]:
    """Files that may count for this process: control groups of the second version, then of the first."""
    found: tuple[Path, ...] = ()
    for line in _read(proc / "self" / "cgroup").splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if ".." in group:  # outside what this container sees
            continue
        if not controllers:
            found = (groups / group.lstrip("/") / "memory.events", *found)
        elif "memory" in controllers.split(","):
            found = (*found, groups / "memory" / group.lstrip("/") / "memory.oom_control")
    return found


def _read(path: Path) -> str:
    """Empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
