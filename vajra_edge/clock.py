"""Clock: moments that can be compared over restarts and reboots, and whether the wall clock was to be trusted.

A board without a clock battery begins each boot at the same second until something tells it the time. So a moment
carries the boot, that boot's own clock, and whether the wall clock was synchronised: two moments are compared by the
boot's clock, by the wall clock only where both were synchronised, and otherwise not at all.
"""

from __future__ import annotations

import ctypes
import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

TIMESYNC = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches it once it has the time (systemd-timesyncd.service(8)); /run is empty after a boot."""

UNSYNCHRONISED_US = 16_000_000
"""The kernel's bound on the wall clock's error when nobody vouches for it: after a boot, after ``date -s``, and nine
hours after the last word of a time server, for it grows by 500 us a second. timedatectl goes by it too, and not by the
bit STA_UNSYNC: chrony leaves that set without ``rtcsync``. chrony, timesyncd, ntpd and phc2sys (PTP) all lower it."""

_DATE_ERRORS = frozenset({9, 10})
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""

_CALENDAR_S = 8_000 * 365.0 * 86_400.0
"""From 1970: dates of Python end with the year 9999, and a moment beyond would end whoever writes its date."""

_READS = 4
"""Both clocks are read so often; the pair counts that was read closest together: another may get the CPU between."""


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
            KeyError, TypeError, ValueError: a field is missing, of another type, or no time that a calendar has.
        """
        boot_s, unix_s = float(plain["boot_s"]), float(plain["unix_s"])
        if not math.isfinite(boot_s) or not abs(unix_s) < _CALENDAR_S:
            raise ValueError(f"{unix_s:g} s since 1970, {boot_s:g} s since the boot, is no moment")
        return cls(str(plain["boot"]), boot_s, unix_s, plain["synchronised"] is True)


class _Timex(ctypes.Structure):
    """The head of ``struct timex`` of adjtimex(2), with room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 256),
    )


def now() -> Moment:
    """This moment. Asked first: else a clock that is set meanwhile would vouch for what it said before."""
    synchronised = is_synchronised()
    _, boot_s, unix_s = min(_read_both() for _ in range(_READS))
    return Moment(boot_id(), boot_s, unix_s, synchronised)


def is_older(unix_s: float, than_s: float, moment: Moment) -> bool:
    """Whether a file's time is surely so long ago: by the wall clock, whichever way that was set, and by this boot's.

    Args:
        unix_s: of the file.
        than_s: seconds.
        moment: this one.
    """
    return min(abs(moment.unix_s - unix_s), moment.boot_s) > than_s


def _read_both() -> tuple[float, float, float]:
    """How far apart they were read, and the clock of this boot and the wall clock."""
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    unix_s = time.time()
    after_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    return after_s - before_s, (before_s + after_s) / 2.0, unix_s


def boot_id(path: Path = BOOT_ID) -> str:
    """The kernel's name of this boot; empty where it does not say."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def is_synchronised(timesync: Path = TIMESYNC) -> bool:
    """Whether the wall clock is known to be right.

    The kernel says so, whoever disciplines it, and takes it back. Where a sandbox forbids the question timesyncd's file
    is believed, which is there until the next boot; where that is absent too nobody knows, which is no.
    """
    error_us = _max_error_us()
    return timesync.exists() if error_us is None else error_us < UNSYNCHRONISED_US


def may_explain(verify_code: int | None) -> bool:
    """Whether a certificate failed over its dates, by a clock that is not known to be right.

    Args:
        verify_code: of ssl.SSLCertVerificationError.
    """
    return verify_code in _DATE_ERRORS and not is_synchronised()


def _max_error_us() -> int | None:
    """The kernel's bound on the error of the wall clock; None where it does not answer."""
    adjtimex, timex = _adjtimex(), _Timex()  # modes = 0: only read
    return None if adjtimex is None or adjtimex(timex) < 0 else int(timex.maxerror)


@functools.cache
def _adjtimex() -> Any:
    function = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if function is not None:
        function.argtypes = [ctypes.POINTER(_Timex)]
    return function
