"""Watchdog: fed with proof that every loop makes progress, or waits on purpose, and with nothing else.

A restart helps a loop that stands still, and costs every frame until a plan serves again. So each loop says what it is
vital for: only one without which no frames can flow is worth a restart. Whatever else stands still is named in the
status, and costs only itself.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from vajra_edge.daemon.stall import Stall, Stillness
from vajra_edge.daemon.systemd import Notify

log = logging.getLogger(__name__)


class Vital(Enum):
    """When the watchdog is not fed because this loop is late."""

    ALWAYS = "always"
    UNTIL_SERVING = "while no plan serves"
    NEVER = "never"


class Loop(NamedTuple):
    """A row of the table below.

    Attributes:
        name: for people.
        deadline_s: longest time between two beats.
        vital: what follows when it is late.
    """

    name: str
    deadline_s: float
    vital: Vital


PIPELINE = Loop("pipeline", 30.0, Vital.ALWAYS)
"""Beats at each turn. A batch that takes longer is stuck: a slow CPU needs a few seconds for the largest network."""

FRAMES = Loop("frames", 60.0, Vital.ALWAYS)
"""Beats while frames get through, or none could, see ``Flow``: loops that turn and bring nothing forth are stuck."""

MQTT = Loop("mqtt", 30.0, Vital.ALWAYS)
"""Beats every half second: dialling and looking up names happen elsewhere, so no broker can hold it up."""

DESK = Loop("background", 90.0, Vital.UNTIL_SERVING)
"""Beats while it has nothing to do, and while its thread gets anywhere: a disk or a library that hangs moves nothing.
A plan that serves needs none of it."""

WATCH = Loop("watch", 60.0, Vital.UNTIL_SERVING)
"""Beats at each look and each megabyte that it hashes. Without it nobody knows of the weights."""

BUILD = Loop("build", 60.0, Vital.UNTIL_SERVING)
"""The thread that listens to the build child beats ten times a second, however long the child is silent."""

PICTURES = Loop("pictures", 60.0, Vital.NEVER)
"""Snapshots and calibration images; as ``DESK``."""

CONTROL = Loop("control", 15.0, Vital.NEVER)
"""Beats at each turn. Without it nobody can ask, and frames flow."""

LOADING_S = 180.0
"""Patience while no plan serves: the first import of a library holds all of Python, seven seconds on a busy board and
many times that from a slow card. There are no frames to lose yet, and a restart would only begin it anew.
"""

# Cameras watch themselves, each under a name of its own, and are vital for nothing: each costs only itself.


@dataclass(frozen=True)
class Late:
    """A loop that has not been heard of for longer than it may.

    Attributes:
        name: of the loop.
        silent_s: since its last beat.
        vital: what follows.
        doing: what it was about to do, for people; empty where it did not say.
    """

    name: str
    silent_s: float
    vital: Vital = Vital.NEVER
    doing: str = ""

    def __str__(self) -> str:
        doing = f" ({self.doing})" if self.doing else ""
        return f"{self.name}{doing} has been silent for {self.silent_s:.0f} s"

    def starves(self, *, serving: bool) -> bool:
        """Whether the watchdog is not fed for it."""
        return self.vital is Vital.ALWAYS or (self.vital is Vital.UNTIL_SERVING and not serving)


@dataclass
class _Heard:
    deadline_s: float
    vital: Vital
    at_s: float
    doing: str = ""


class Beats:
    """The last sign of life of each loop. Any thread may beat.

    Args:
        clock: monotonic seconds.
        still_s: without any sign of life for longer than this everything stood still, and nobody is late for that.
        moves: called at each sign of life, from any thread; must not wait.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        still_s: float = math.inf,
        moves: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock, self._moves = clock, moves
        self._stillness = Stillness(still_s)
        self._lock = threading.Lock()
        self._loops: dict[str, _Heard] = {}

    def expect(self, name: str, deadline_s: float, vital: Vital = Vital.NEVER) -> Callable[[], None]:
        """Watch a loop from now on.

        Args:
            name: for people.
            deadline_s: longest time between two beats; a loop that waits on purpose beats meanwhile.
            vital: what follows when it is late.

        Returns:
            What the loop calls; after ``forget`` it does nothing.
        """
        with self._lock:
            self._loops[name] = _Heard(deadline_s, vital, self._clock())
        return lambda: self.beat(name)

    def forget(self, name: str) -> None:
        """The loop has ended on purpose."""
        with self._lock:
            self._loops.pop(name, None)

    def beat(self, name: str, doing: str | None = None) -> None:
        """A sign of life; ``doing`` is what the loop is about from now on, None: what it was."""
        self._moves()
        with self._lock:
            now_s = self._clock()
            self._excuse(now_s)
            if (loop := self._loops.get(name)) is not None:
                loop.at_s = now_s
                loop.doing = loop.doing if doing is None else doing

    def late(self) -> tuple[Late, ...]:
        """Loops that are silent for too long, the longest first."""
        with self._lock:
            now_s = self._clock()
            self._excuse(now_s)
            late = [
                Late(name, now_s - loop.at_s, loop.vital, loop.doing)
                for name, loop in self._loops.items()
                if now_s - loop.at_s > loop.deadline_s
            ]
        return tuple(sorted(late, key=lambda item: -item.silent_s))

    def stalls(self) -> tuple[Stall, ...]:
        """Times in which everything stood still, the newest last."""
        with self._lock:
            return tuple(self._stillness.stalls)

    def _excuse(self, now_s: float) -> None:
        """Time in which all loops stood still is no loop's: each gets the rest of its deadline to beat again."""
        still_s = self._stillness.alive(now_s)
        if still_s:
            for loop in self._loops.values():
                loop.at_s = min(loop.at_s + still_s, now_s)


class Flow:
    """Beats for the frames: not while cameras deliver to a plan that serves and nothing is published.

    Args:
        beat: of ``FRAMES``.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._read = self._published = 0

    def tick(self, read: int, published: int, *, serving: bool) -> None:
        """Look once.

        Args:
            read: frames that all cameras delivered since the start; less than before where one was reopened.
            published: messages of all cameras since the start.
            serving: whether a plan takes frames.
        """
        if not serving or published != self._published or read < self._read:
            self._read, self._published = read, published
        if read <= self._read + 1:  # the newest one may be on its way
            self._beat()


class Watchdog:
    """Pings systemd at half of its patience while nobody vital is late, and says who is.

    Args:
        notify: where pings go.
        beats: who must be alive.
    """

    def __init__(self, notify: Notify, beats: Beats) -> None:
        self._notify, self._beats = notify, beats
        self._every_s = notify.watchdog_s / 2 if notify.watchdog_s else None
        self._next_s = float("-inf")
        self._named: frozenset[tuple[str, bool]] = frozenset()
        self._patience_s = notify.watchdog_s

    def tick(self, now_s: float, *, serving: bool) -> tuple[Late, ...]:
        """Look at everybody.

        Args:
            now_s: monotonic.
            serving: whether a plan takes frames.

        Returns:
            Who is late; the log names each once.
        """
        late = self._beats.late()
        for item in late:
            if (item.name, item.starves(serving=serving)) not in self._named:
                self._say(item, starves=item.starves(serving=serving))
        self._named = frozenset((item.name, item.starves(serving=serving)) for item in late)
        starved = any(starves for _, starves in self._named)
        self._be_patient(serving=serving, starved=starved)
        if not starved and self._every_s is not None and now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            self._notify.watchdog()
        return late

    def _be_patient(self, *, serving: bool, starved: bool) -> None:
        """Ask for it while whoever is silent may be held up by a library; a restart that is due is not put off."""
        usual_s = self._notify.watchdog_s
        if usual_s is None:
            return
        patience_s = usual_s if serving or starved else max(usual_s, LOADING_S)
        if patience_s != self._patience_s:
            self._patience_s = patience_s
            self._notify.patience(patience_s)

    def _say(self, item: Late, *, starves: bool) -> None:
        follows = "the watchdog is not fed until it moves" if starves else "everything else goes on"
        log.error("%s; %s", item, follows)
