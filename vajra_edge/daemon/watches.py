"""Watches: what happens at the zones and lines of each camera that has some, told, counted and kept on disk.

The frame loop shows what it tracked; the supervisor, twice a second, notes when nothing comes any more, closes hours,
says what is new and has the totals written. A lock keeps them apart: each holds it for microseconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from vajra_edge import clock
from vajra_edge.analytics.totals import Blind, Totals, Why, counted, utc
from vajra_edge.analytics.watch import Blinded, Happening, Observation, Places, State, advance
from vajra_edge.capture.camera import CameraChanged
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.clock import Moment
from vajra_edge.config.settings import Settings
from vajra_edge.daemon.place_views import doubts_of, event_of, places_of, places_status, seen_of, totals_status
from vajra_edge.daemon.totals_files import TotalsFiles
from vajra_edge.mqtt.place_messages import PlacesStatus, encode_event, encode_places
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topics
from vajra_edge.tracking.tracker import Numbers
from vajra_edge.types import Detections, Frame

LEAST_BLIND_S = 2.0
"""No frame for so long, and for ``FRAMES_MISSED`` of the camera's usual times between two: nobody can see."""

FRAMES_MISSED = 4.0
LONGEST_USUAL_S = 60.0
"""Of the times between two frames; a longer one is no habit of the camera."""

SAVE_S = 5.0
"""Totals are written this often, where they changed: a kill or a power cut makes no more than this blind."""

TELL_S = 300.0
"""Hours are told this often; a new hour or a blind interval at once."""


@dataclass
class _Watched:
    """One camera.

    Attributes:
        places: of its settings.
        totals: since this process began, or, once ``read``, since the count began.
        state: of the machine.
        happened: since the totals were brought up to date.
        seen_s: how long of that time something could be seen.
        frame_s: monotonic time of the newest frame.
        usual_s: between two frames.
        blind: since when nobody can see, by both clocks, and why; None: somebody can.
        read: what was on disk is in the totals.
        saved_s, told_s: when the totals were written, or to be read, and told.
        waited: the disk took long to say what is on it.
        said: the newest state that was told.
    """

    places: Places
    totals: Totals
    blind: tuple[Moment, float, Why] | None
    state: State = field(default_factory=State)
    happened: list[Happening] = field(default_factory=list)
    seen_s: float = 0.0
    frame_s: float | None = None
    usual_s: float = 0.0
    read: bool = False
    waited: bool = False
    saved_s: float = 0.0
    told_s: float = 0.0
    said: PlacesStatus | None = None

    @property
    def known(self) -> Totals:
        """The totals with the interval that lasts still."""
        return self.totals if self.blind is None else self.totals.blinded(self.lasting)

    @property
    def why(self) -> str:
        """Why nobody can see now; empty where somebody can."""
        return "" if self.blind is None else self.blind[2].value

    @property
    def lasting(self) -> Blind:
        """The interval that lasts still."""
        if self.blind is None:
            raise AssertionError("somebody can see")
        return Blind(self.blind[0], self.totals.until, self.blind[2])


class Watches:
    """All cameras that have places.

    Args:
        publisher: takes events and states.
        topics: the table of topics.
        files: where totals are kept.
        settings: what is watched.
        now: this moment by all clocks.
        now_s: monotonic, the clock of frames.

    Attributes:
        doubts: what of the places is hardly what somebody meant; empty where nothing is.
    """

    def __init__(
        self,
        publisher: Publisher,
        topics: Topics,
        files: TotalsFiles,
        settings: Settings,
        now: Callable[[], Moment] = clock.now,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher, self._topics, self._files = publisher, topics, files
        self._now, self._now_s = now, now_s
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self._phases: dict[str, tuple[CameraPhase, float]] = {}
        self._looked = now(), now_s()
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Watch these places from the next frame on. Called by the supervisor."""
        self.doubts = doubts_of(settings)
        wanted = {camera.id: places_of(camera) for camera in settings.cameras if camera.zones or camera.lines}
        with self._lock:
            for name in self._watched.keys() - wanted.keys():
                self._forget(name)
            for name, places in wanted.items():
                if name in self._watched:
                    self._watched[name].places = places
                else:
                    self._begin(name, places)

    def changed(self, event: CameraChanged) -> None:
        """A camera that does not deliver sees nothing. Called by the supervisor.

        The last frames of a clip that has ended may be on their way still.
        """
        self._phases[event.camera] = event.phase, self._now_s()
        if event.phase in (CameraPhase.STREAMING, CameraPhase.ENDED):
            return
        with self._lock:
            watched = self._watched.get(event.camera)
            if watched is not None and watched.blind is None:
                self._blind(event.camera, watched, self._now_s(), Why.CAMERA)

    def see(self, frame: Frame, found: Detections, tracks: Numbers | None, names: Sequence[str]) -> None:
        """Look at what was tracked in a frame. Called by the frame loop.

        Args:
            frame: that was inferred.
            found: in it.
            tracks: of each; None: the camera is not tracked.
            names: of classes, by id.
        """
        if tracks is None or frame.camera not in self._watched:
            return
        with self._lock:
            watched, now_s = self._watched.get(frame.camera), frame.captured_ns / 1e9
            if watched is None or _is_late(watched, now_s):
                return
            self._sighted(frame.camera, watched, now_s)
            seen = seen_of(frame, found, tracks, names)
            self._advance(frame.camera, watched, seen, frame.taken_at, synchronised=frame.clock_synchronised)

    def inside(self, camera: str) -> dict[int, tuple[str, ...]]:
        """The zones that each of its tracks is in; one that is in none is missing. Called by the frame loop."""
        found: dict[int, tuple[str, ...]] = {}
        if camera not in self._watched:
            return found
        with self._lock:
            watched = self._watched.get(camera)
            for (zone, track), visit in watched.state.visits.items() if watched is not None else ():
                if visit.entered:
                    found[track] = (*found.get(track, ()), zone)
        return found

    def tick(self, now_s: float) -> None:
        """Note what time alone brings, and say what is new. Called by the supervisor."""
        now = self._now()
        asleep = self._asleep(now, now_s)
        with self._lock:
            for name, watched in self._watched.items():
                if asleep is not None and watched.blind is None:
                    self._slept(name, watched, asleep, now_s)
                if (
                    watched.blind is None
                    and watched.frame_s is not None
                    and now_s - watched.frame_s > _limit_s(watched)
                ):
                    self._blind(name, watched, now_s, self._why(name))
                self._note_other_reason(name, watched, now, now_s)
                self._account(watched, now)
                self._keep_at_times(name, watched, now_s)
                self._say(name, watched, now, now_s)

    def close(self) -> None:
        """Say that nobody can see any more, for the broker keeps the last word, and have all written that is known."""
        now, now_s = self._now(), self._now_s()
        with self._lock:
            for name, watched in self._watched.items():
                if watched.blind is None:
                    self._blind(name, watched, now_s, Why.DOWN)
                self._account(watched, now)
                self._say(name, watched, now, now_s)
                self._keep(name, watched)

    def _begin(self, name: str, places: Places) -> None:
        now, now_s = self._now(), self._now_s()
        self._watched[name] = _Watched(places, Totals.begin(now), (now, now_s, self._why(name)), saved_s=now_s)
        self._files.read(name, lambda stored: self._continue(name, stored))

    def _forget(self, name: str) -> None:
        self._account(self._watched[name], self._now())
        self._keep(name, self._watched[name])
        del self._watched[name]
        for topic in (self._topics.places(name), self._topics.totals(name)):
            self._publisher.state(topic, b"")

    def _continue(self, name: str, stored: Totals | None) -> None:
        """What was on disk is known, or that nothing was. Called in the background."""
        with self._lock:
            watched = self._watched.get(name)
            if watched is not None and not watched.read:
                watched.totals = watched.totals if stored is None else stored.continued(watched.totals)
                watched.read, watched.told_s = True, 0.0

    def _why(self, name: str) -> Why:
        return Why.FRAMES if self._streams_for_s(name, 0.0) is not None else Why.CAMERA

    def _streams_for_s(self, name: str, now_s: float) -> float | None:
        phase, since_s = self._phases.get(name, (CameraPhase.CLOSED, 0.0))
        return now_s - since_s if phase is CameraPhase.STREAMING else None

    def _blind(self, name: str, watched: _Watched, now_s: float, why: Why) -> None:
        """Nobody can see since the newest frame."""
        now, since_s = self._now(), now_s if watched.frame_s is None else watched.frame_s
        ago_s = max(now_s - since_s, 0.0)
        begin = replace(now, boot_s=now.boot_s - ago_s, unix_s=now.unix_s - ago_s)
        watched.blind = begin, now_s, why
        self._advance(name, watched, Blinded(now_s, why.value), utc(now), synchronised=now.synchronised)

    def _asleep(self, now: Moment, now_s: float) -> Blind | None:
        """The time between two looks where the board slept in it: the clock of frames stands still then."""
        (before, before_s), self._looked = self._looked, (now, now_s)
        passed_s = now.since_s(before) if now.boot and now.boot == before.boot else None
        slept = passed_s is not None and passed_s - (now_s - before_s) > LEAST_BLIND_S
        return Blind(before, now, Why.DOWN) if slept else None

    def _slept(self, name: str, watched: _Watched, asleep: Blind, now_s: float) -> None:
        """Who was there is not known to be there still; frames may have come again before this look."""
        watched.totals, watched.told_s = watched.totals.blinded(asleep), 0.0
        at, synchronised = utc(asleep.end), asleep.end.synchronised
        self._advance(name, watched, Blinded(now_s, asleep.why.value), at, synchronised=synchronised)

    def _note_other_reason(self, name: str, watched: _Watched, now: Moment, now_s: float) -> None:
        """The camera delivers again, and still nothing comes through: a build, or a plan that failed."""
        streams_for_s = self._streams_for_s(name, now_s)
        if watched.blind is not None and watched.blind[2] is Why.CAMERA and (streams_for_s or 0.0) > LEAST_BLIND_S:
            watched.totals = watched.totals.blinded(Blind(watched.blind[0], now, Why.CAMERA))
            watched.blind = now, watched.blind[1], Why.FRAMES

    def _sighted(self, name: str, watched: _Watched, now_s: float) -> None:
        """A frame came: whatever nobody could see before it is known by now."""
        gap_s = 0.0 if watched.frame_s is None else max(now_s - watched.frame_s, 0.0)
        if watched.blind is None and watched.frame_s is not None and gap_s > _limit_s(watched):
            self._blind(name, watched, now_s, self._why(name))
        if watched.blind is not None:
            begin, _, why = watched.blind
            watched.blind, watched.told_s = None, 0.0
            watched.totals = watched.totals.blinded(Blind(begin, self._now(), why))
        else:
            watched.seen_s += gap_s
        watched.usual_s = 0.8 * watched.usual_s + 0.2 * min(gap_s, LONGEST_USUAL_S)
        watched.frame_s = now_s

    def _advance(
        self, name: str, watched: _Watched, observation: Observation, at: datetime, *, synchronised: bool
    ) -> None:
        watched.state, happened = advance(watched.places, watched.state, observation)
        watched.happened += happened
        for one in happened:
            if (event := event_of(one, at, clock_synchronised=synchronised)) is not None:
                self._publisher.event(encode_event(event, name, self._topics.device))
        if counted(happened):  # at once: by the next tick another hour may have begun, or the clock been set
            now, ago_s = self._now(), max(self._now_s() - observation.now_s, 0.0)
            told = Moment(now.boot, now.boot_s - ago_s, at.timestamp(), synchronised)
            self._account(watched, max(told, watched.totals.until, key=lambda moment: moment.boot_s))

    def _account(self, watched: _Watched, now: Moment) -> None:
        last = watched.totals.hours[-1].begin if watched.totals.hours else None
        watched.totals = watched.totals.after(now, watched.seen_s, watched.happened)
        watched.happened, watched.seen_s = [], 0.0
        if watched.totals.hours and watched.totals.hours[-1].begin != last:
            watched.told_s = 0.0

    def _say(self, name: str, watched: _Watched, now: Moment, now_s: float) -> None:
        if not (watched.read or watched.waited):
            return
        state = places_status(
            self._topics.device, name, watched.places, watched.state, watched.totals, watched.why, now
        )
        if watched.said is None or replace(state, at=watched.said.at) != watched.said:
            if watched.said is not None and state.blind != watched.said.blind:
                watched.told_s = 0.0
            watched.said = state
            self._publisher.state(self._topics.places(name), encode_places(state))
        if watched.told_s == 0.0 or now_s - watched.told_s >= TELL_S:
            watched.told_s = now_s
            totals = totals_status(self._topics.device, name, watched.known, now)
            self._publisher.state(self._topics.totals(name), encode_places(totals))

    def _keep_at_times(self, name: str, watched: _Watched, now_s: float) -> None:
        if now_s - watched.saved_s < SAVE_S:
            return
        watched.saved_s = now_s
        self._keep(name, watched)
        if not watched.read:
            watched.waited = True
            self._files.read(name, lambda stored: self._continue(name, stored))

    def _keep(self, name: str, watched: _Watched) -> None:
        if watched.read:
            self._files.write(name, watched.known)


def _is_late(watched: _Watched, now_s: float) -> bool:
    """Whether a frame was taken before its camera was lost, and tells nothing of now."""
    return watched.blind is not None and watched.blind[2] is Why.CAMERA and now_s <= watched.blind[1]


def _limit_s(watched: _Watched) -> float:
    return max(LEAST_BLIND_S, FRAMES_MISSED * watched.usual_s)
