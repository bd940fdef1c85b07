"""Clock: moments that can be compared over restarts and reboots, and whether the wall clock was to be trusted.

A board without a clock battery begins each boot at the same second until something tells it the time. So a moment
carries the boot, that boot's own clock, and whether the wall clock was synchronised: two moments are compared by the
boot's clock, by the wall clock only where both were synchronised, and otherwise not at all.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

TIMESYNC = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches it once it has the time (systemd-timesyncd.service(8)); /run is empty after a boot."""

_STA_UNSYNC = 0x0040  # of adjtimex(2): nobody disciplines the clock; chrony clears it under ``rtcsync``, its default
_TIMEX_BYTES = 256  # struct timex has 208 on 64-bit Linux
_TIMEX_STATUS_AT = 40


@dataclass(frozen=True)
class Moment:
    """A point in time.

    Attributes:
        boot: the kernel's name of the boot; empty where it does not say.
        boot_s: since that boot, time asleep included (CLOCK_BOOTTIME).
        unix_s: what the wall clock said.
        synchronised: the wall clock was known to be right.
    """

    boot: str
    boot_s: float
    unix_s: float
    synchronised: bool

    def since_s(self, earlier: Moment) -> float | None:
        """Seconds since an earlier moment; None where nothing tells, or where it was no earlier one."""
        if self.boot and self.boot == earlier.boot:
            passed_s = self.boot_s - earlier.boot_s
        elif self.synchronised and earlier.synchronised:
            passed_s = self.unix_s - earlier.unix_s
        else:
            return None
        return passed_s if passed_s >= 0.0 else None

    def at_least_since_s(self, earlier: Moment) -> float:
        """Seconds that have passed for certain: of a moment before this boot at least the whole boot."""
        known_s = self.since_s(earlier) or 0.0
        return known_s if self.boot and self.boot == earlier.boot else max(known_s, self.boot_s)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "boot": self.boot,
            "boot_s": round(self.boot_s, 2),
            "unix_s": round(self.unix_s, 2),
            "synchronised": self.synchronised,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Moment:
        """The inverse.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        boot_s, unix_s = float(plain["boot_s"]), float(plain["unix_s"])
        return cls(str(plain["boot"]), boot_s, unix_s, plain["synchronised"] is True)


def now() -> Moment:
    """This moment."""
    boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Moment(boot_id(), boot_s, time.time(), is_synchronised())


def boot_id(path: Path = BOOT_ID) -> str:
    """The kernel's name of this boot; empty where it does not say."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def is_synchronised(timesync: Path = TIMESYNC) -> bool:
    """Whether the wall clock is known to be right: timesyncd says so, or the kernel that somebody disciplines it."""
    return timesync.exists() or _is_disciplined()


def _is_disciplined() -> bool:
    """What the kernel says; a sandbox that forbids the question leaves it unknown, which is no."""
    adjtimex = _adjtimex()
    if adjtimex is None:
        return False
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: only read
    if adjtimex(timex) < 0:
        return False
    status = int.from_bytes(timex.raw[_TIMEX_STATUS_AT : _TIMEX_STATUS_AT + 4], "little")
    return not status & _STA_UNSYNC


@functools.cache
def _adjtimex() -> Any:
    return getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
