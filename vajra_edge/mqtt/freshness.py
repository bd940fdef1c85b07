"""Freshness: whether a request is of now, and asked for the first time; else what was recorded could be replayed.

A request states its time, which must lie in a window around this device's clock, and its transaction counts once in
that window. Where the clock is not known to be right no time can be judged: then it names a challenge of this daemon,
which is renewed by a clock that nobody sets.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from vajra_edge.clock import Moment
from vajra_edge.errors import PublishError
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.topics import INSTALL

WINDOW_S = 300.0
"""Clocks of people's machines differ by seconds, and of machines that nobody looks after by minutes: as in Kerberos."""

KEPT_S = 2.0 * WINDOW_S
"""A time ahead of ours by a whole window lies in it for so long."""

MOST_KNOWN = 10_000
"""Transactions that are remembered: more than the requests that are taken in that time."""

ALWAYS = frozenset({"status", INSTALL})
"""Verbs where asking twice, or late, does nothing: one reads what is published anyway, one has no effect on what serves
once that is what is wanted."""


@dataclass(frozen=True)
class _Used:
    """A transaction that was taken.

    Attributes:
        until_s: it is remembered until then, by the boot's clock.
        at_s: the time that it stated, by the wall clock.
    """

    until_s: float
    at_s: float


class Freshness:
    """Judges requests. Used by one thread.

    Args:
        now: this moment.
    """

    def __init__(self, now: Callable[[], Moment]) -> None:
        self._now, self._started = now, now()
        self._used: OrderedDict[str, _Used] = OrderedDict()
        self._floor_s = float("-inf")
        self._challenges: deque[tuple[str, float]] = deque(maxlen=2)

    def require_now(self, request: Requested) -> None:
        """See that a request is of now.

        Raises:
            PublishError: it is older or newer, or does not say.
        """
        now = self._now()
        if request.verb in ALWAYS:
            return
        if request.challenge is not None:
            self._require_known(request.challenge, request.verb, now)
        elif request.at is None:
            raise PublishError(
                f"request {request.verb} does not say when it was asked",
                remedy=f'send "at": "{_text(now.unix_s)}"' if now.synchronised else _CHALLENGE,
            )
        else:
            self._require_in_window(request.at.timestamp(), request.verb, now)

    def require_first(self, request: Requested) -> None:
        """See that a transaction was not used before, and remember it.

        Raises:
            PublishError: it was, there is none, or so many were used that no more can be remembered.
        """
        if request.verb in ALWAYS:
            return
        now, transaction = self._now(), request.transaction
        if transaction is None:
            raise PublishError(f"request {request.verb} has no transaction", remedy="send one that is used once")
        self._forget(now)
        if transaction in self._used:
            raise PublishError(
                f"transaction {transaction!r} was used before", remedy="send another one with each request"
            )
        if len(self._used) >= MOST_KNOWN:
            raise PublishError(f"{MOST_KNOWN} transactions are remembered already", remedy="ask less often")
        at_s = now.unix_s if request.at is None else request.at.timestamp()
        self._used[transaction] = _Used(now.boot_s + KEPT_S, at_s)

    def told(self) -> dict[str, object]:
        """What whoever was refused needs for another try."""
        now = self._now()
        return {
            "now": _text(now.unix_s),
            "clock_synchronised": now.synchronised,
            "window_s": WINDOW_S,
            "challenge": self._challenge(now),
        }

    def _require_in_window(self, at_s: float, verb: str, now: Moment) -> None:
        clock = f"this device's clock, {_text(now.unix_s)},"
        if not now.synchronised:
            raise PublishError(f"{clock} is not known to be right, so that no time can be judged", remedy=_CHALLENGE)
        age_s = now.unix_s - at_s
        if abs(age_s) > WINDOW_S:
            what = f"request {verb} is {abs(age_s):.0f} s {'older' if age_s > 0 else 'newer'} than {clock}"
            raise PublishError(f"{what} which is beyond {WINDOW_S:.0f} s", remedy="check the sender's clock")
        self._forget(now)
        started_s = now.unix_s - (now.boot_s - self._started.boot_s)  # the wall clock may have been set since
        if at_s <= max(started_s, self._floor_s):
            what = f"request {verb} of {_text(at_s)} may have been answered before"
            raise PublishError(what, remedy=f"ask anew, or {_CHALLENGE}")

    def _require_known(self, challenge: str, verb: str, now: Moment) -> None:
        known = [token for token, until_s in self._challenges if now.boot_s <= until_s]
        if challenge not in known:
            raise PublishError(f"request {verb} names a challenge that does not stand", remedy=_CHALLENGE)

    def _challenge(self, now: Moment) -> str:
        """Stands for one to two windows."""
        if not self._challenges or now.boot_s > self._challenges[-1][1] - WINDOW_S:
            self._challenges.append((secrets.token_hex(16), now.boot_s + KEPT_S))
        return self._challenges[-1][0]

    def _forget(self, now: Moment) -> None:
        """What stated an older time than that of a forgotten one is not taken again, wherever the clock is set to."""
        while self._used and next(iter(self._used.values())).until_s < now.boot_s:
            _, gone = self._used.popitem(last=False)
            self._floor_s = max(self._floor_s, gone.at_s)


_CHALLENGE = "send the challenge of this answer in the place of at"


def _text(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
