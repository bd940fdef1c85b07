"""Camera: one thread that hears its camera's process and leaves the newest frame in the mailbox.

The thread performs what the machine in ``reconnect.py`` decides. It waits only with a deadline, for messages of the
process, never for a library, a disk or a network: nothing that a camera does can hold it up.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from vajra_edge import clock
from vajra_edge.capture import limits, protocol, reconnect
from vajra_edge.capture.children import Arrived, Child, Children, how_it_ended
from vajra_edge.capture.login_file import LoginFile
from vajra_edge.capture.rate import Rate, patience_s
from vajra_edge.capture.reconnect import CameraPhase, Policy
from vajra_edge.capture.url import is_live
from vajra_edge.config import address
from vajra_edge.config.credentials import credential
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError, VajraError
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame

__all__ = ["CameraChanged", "CameraCounters", "Grabber", "Mailboxes"]

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""Beyond its own timeout, a call into a library may take this long before its process is ended."""

START_S = 180.0
"""A fork takes milliseconds, bringing up the fork server a second; a board that is busy or swaps takes many times that,
and a server that is replaced while it loads its libraries begins them anew: none would ever be up.
"""

LEAVE_S = 1.0
"""To say goodbye to a camera, from being told to being killed."""

_TURN_S = 0.25  # a wait for the process looks up this often to beat and to see that it shall stop
_LATE_S = 2.0 * _TURN_S  # of a turn that took longer, the rest was ours: this process stood still
_NAP_S = 1.0  # likewise a wait in backoff, and a look at memory
_MOST_LINES = 20  # that a process may write to the log; one that was taken over could flood it


@dataclass(frozen=True)
class CameraChanged:
    """A camera entered another phase; ``reason`` says why it was lost, until it streams again."""

    camera: str
    phase: CameraPhase
    reason: str
    attempts: int
    retry_in_s: float | None


@dataclass(frozen=True)
class CameraCounters:
    """What a camera did since its grabber was made.

    Attributes:
        phase: where it stands.
        frames_read: frames the source gave, without those above the rate cap.
        frames_dropped: frames that a newer one displaced before anybody took them (counted over reopenings).
        decode_errors: images that could not be decoded and were skipped.
        losses: how often it was lost or could not be opened.
        fps: frames a second over the last five seconds; 0 while it does not stream.
        pid: of the process that it is decoded in; None: there is none now.
        starts: how many of them there were.
        memory_bytes: private memory of that process, when last looked at.
        resolution_wh: of the newest frame, in pixels.
    """

    camera: str
    phase: CameraPhase
    frames_read: int
    frames_dropped: int
    decode_errors: int
    losses: int
    fps: float
    pid: int | None = None
    starts: int = 0
    memory_bytes: int = 0
    resolution_wh: tuple[int, int] | None = None


class Grabber:
    """The thread of one camera.

    Args:
        camera: its settings.
        mailboxes: where frames go; ``start`` adds the camera's slot, whoever retires the camera removes it.
        post: takes each CameraChanged; called from two threads and under a lock, so it must only enqueue.
        beat: called whenever the thread made progress or waits on purpose.
        children: starts the camera's process; whoever made it closes it, after ``stop``.
        policy: patience; None: the camera's settings.
        dice: a random number in 0..1, for the delays.
    """

    def __init__(
        self,
        camera: CameraSettings,
        mailboxes: Mailboxes,
        post: Callable[[CameraChanged], None],
        beat: Callable[[], None],
        children: Children,
        *,
        policy: Policy | None = None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._camera = camera
        self._live = comes_live(camera)
        self._mailboxes = mailboxes
        self._post = post
        self._beat = beat
        self._children = children
        self._policy = policy or Policy.of(camera, live=self._live)
        self._dice = dice
        self._login_file = LoginFile(camera)
        self._lock = threading.RLock()  # over the machine, the list of actions and the counters
        self._state = reconnect.CameraState()
        self._actions: deque[reconnect.Open | reconnect.Close | reconnect.Kill] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: Child | None = None
        self._silent_s = self._lines = 0.0
        self._looked_s = self._turned_s = 0.0
        self._memory_bytes = self._starts = 0
        self._read = self._losses = 0
        self._child_dropped = self._past_dropped = 0
        self._decode_errors = self._past_decode_errors = 0
        self._resolution_wh: tuple[int, int] | None = None
        self._rate = Rate()

    def start(self) -> None:
        """Begin to read; once only."""
        self._mailboxes.add(self._camera.id)
        self._advance(reconnect.Start())
        # A daemon thread: a process that cannot be killed must not keep ours from its exit.
        self._thread = threading.Thread(target=self._run, name=f"camera-{self._camera.id}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread and its process; no frame and no change of phase comes from it afterwards.

        Returns:
            False where it has not ended after ``timeout_s``. It does soon: what does not end by itself is killed, and
            what cannot be killed is left behind.
        """
        with self._lock:
            self._stopping.set()
            if self._child is not None:
                self._child.leave()
            self._advance(reconnect.StopCamera())
            self._mailboxes.rest(self._camera.id, discard=self._live)
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def counters(self) -> CameraCounters:
        """A snapshot."""
        with self._lock:
            child = self._child
            return CameraCounters(
                camera=self._camera.id,
                phase=self._state.phase,
                frames_read=self._read,
                frames_dropped=self._mailboxes.dropped(self._camera.id) + self._past_dropped + self._child_dropped,
                decode_errors=self._past_decode_errors + self._decode_errors,
                losses=self._losses,
                fps=self._rate.per_second(time.monotonic()),
                pid=child.pid if child else None,
                starts=self._starts,
                memory_bytes=self._memory_bytes if child else 0,
                resolution_wh=self._resolution_wh,
            )

    def _run(self) -> None:
        while self._round():
            pass

    def _round(self) -> bool:
        """One action or one message; False once there is nothing more to come."""
        try:
            self._beat()
            self._perform()
            if self._state.phase in (CameraPhase.CLOSED, CameraPhase.ENDED):
                return bool(self._actions)
            if self._child is not None:
                self._hear(self._child)
            else:
                self._nap()
                self._look_at_login()
                self._tick()
        except SourceError as error:
            self._fail(str(error), login_refused=error.login_refused)
        except VajraError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001  the top of the thread: a bug in a source costs a reconnection, not the camera
            told = address.conceal(
                f"unexpected {type(error).__name__}: {error}", self._camera.source
            )  # it may quote it
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("camera %s: %s\n%s", self._camera.id, told, frames)  # noqa: TRY400  the text of error is in told
            self._fail(told)
            self._stopping.wait(_NAP_S)
        return True

    def _perform(self) -> None:
        while self._actions:
            match self._actions.popleft():
                case reconnect.Open():
                    if not self._stopping.is_set():
                        self._open()
                case reconnect.Close():
                    self._release(LEAVE_S)
                case reconnect.Kill():
                    self._release(0.0)

    def _open(self) -> None:
        """Start the camera's process, unless the one before is there still."""
        before = self._children.before(self._camera.id)
        if before is not None and not self._children.end(before, LEAVE_S, self._beat):
            self._advance(reconnect.ChildStuck(time.monotonic(), self._dice(), before.pid or 0))
            return
        self._login_file.note()
        child = self._children.start(self._camera)
        with self._lock:
            self._child = child
            self._silent_s, self._lines = 0.0, 0
            self._turned_s = time.monotonic()
            self._starts += 1

    def _hear(self, child: Child) -> None:
        began_s = time.monotonic()
        message = child.receive(_TURN_S)
        self._excuse()
        if message is not None:
            self._silent_s = 0.0
            self._heed(message)
        elif child.exited is not None:
            how = how_it_ended(child.exited, self._camera.source, has_secret=self._has_secret())
            self._advance(reconnect.ChildDied(time.monotonic(), self._dice(), how))
        else:
            self._silent_s += min(time.monotonic() - began_s, _LATE_S)
            self._judge(child)
        if message is None or time.monotonic() - self._looked_s > _NAP_S:
            self._look_at(child)
            self._excuse()
            self._tick()

    def _excuse(self) -> None:
        """While this process stands still a camera's frames wait to be heard; it is called twice a turn."""
        now_s = time.monotonic()
        still_s, self._turned_s = now_s - self._turned_s - _LATE_S, now_s
        if still_s > 0.0:
            self._advance(reconnect.StoodStill(still_s))

    def _heed(self, message: protocol.FromChild | Arrived) -> None:
        now_s = time.monotonic()
        match message:
            case Arrived():
                self._got(message)
            case protocol.CameraOpened():
                self._advance(reconnect.Opened(now_s))
            case protocol.Alive(read, decode_errors, digest):
                self._decode_errors = decode_errors
                if read:
                    self._advance(reconnect.GotFrame(now_s, self._dice(), digest))
            case protocol.Note(level, text):
                self._lines += 1
                if self._lines <= _MOST_LINES:
                    log.log(min(level, logging.ERROR), "camera %s: %s", self._camera.id, address.shortened(text))
            case protocol.CameraEnded(decode_errors):
                self._decode_errors = decode_errors
                self._advance(reconnect.Ended())
            case protocol.CameraFailed(text, remedy, login_refused, decode_errors):
                self._decode_errors = decode_errors
                told = address.shortened(text)
                raise SourceError(told, remedy=address.shortened(remedy), login_refused=login_refused)
            case _:  # it runs, or has made room for its pictures
                pass

    def _has_secret(self) -> bool:
        camera = self._camera
        return camera.credentials_file is not None or credential(f"camera-{camera.id}") is not None

    def _judge(self, child: Child) -> None:
        """End a process of which nothing was heard for longer than its call into a library may take."""
        if child.pid is None:
            most_s = START_S
        elif self._state.opened_s is None:
            most_s = self._camera.open_timeout_s + GRACE_S
        else:
            most_s = patience_s(self._camera) + GRACE_S
        if self._silent_s > most_s:
            if child.pid is None:
                self._children.replace_server()
            self._advance(reconnect.ChildHung(time.monotonic(), self._dice(), self._silent_s))

    def _look_at(self, child: Child) -> None:
        self._looked_s = time.monotonic()
        self._memory_bytes = limits.memory_bytes(child.pid) if child.pid else 0
        if self._memory_bytes > limits.MEMORY_BYTES:
            used = self._memory_bytes, limits.MEMORY_BYTES
            self._advance(reconnect.ChildOverFull(time.monotonic(), self._dice(), *used))

    def _release(self, leave_s: float) -> None:
        """End the process: tell it, kill it after ``leave_s``, and leave one behind that is not gone by then."""
        with self._lock:
            child, self._child = self._child, None
            self._past_decode_errors += self._decode_errors
            self._past_dropped += self._child_dropped
            self._decode_errors = self._child_dropped = self._memory_bytes = 0
            self._rate = Rate()
        if child is not None and not self._children.end(child, leave_s, self._beat):
            self._advance(reconnect.ChildStuck(time.monotonic(), self._dice(), child.pid or 0))

    def _got(self, arrived: Arrived) -> None:
        picture = arrived.picture
        with self._lock:
            self._resolution_wh = picture.width_px, picture.height_px  # known before anybody hears that it streams
        if self._advance(reconnect.GotFrame(time.monotonic(), self._dice(), picture.digest)) is CameraPhase.STREAMING:
            self._leave(arrived)  # else it came too late: the others have been told that this camera is lost

    def _leave(self, arrived: Arrived) -> None:
        """Put the frame into the mailbox, unless the camera was lost or stopped meanwhile."""
        picture = arrived.picture
        with self._lock:
            if self._state.phase is not CameraPhase.STREAMING:
                return
            self._read += max(picture.dropped - self._child_dropped, 0)
            self._child_dropped, self._decode_errors = picture.dropped, picture.decode_errors
            synchronised = picture.clock_synchronised if self._live else clock.is_synchronised()
            frame = Frame(
                image=arrived.image,
                captured_ns=picture.captured_ns if self._live else time.monotonic_ns(),
                taken_at=_utc(picture.taken_ns) if self._live else datetime.now(timezone.utc),
                seq=self._read,
                camera=self._camera.id,
                clock_synchronised=synchronised,
                memory=arrived.memory,
                pixels=picture.pixels,
                colorimetry=picture.colorimetry,
            )
            self._read += 1
            self._rate.count(time.monotonic())
            if self._live or self._camera.realtime:
                self._mailboxes.put(frame)
                return
        self._mailboxes.put_wait(frame, self._stopping, self._beat)

    def _fail(self, reason: str, *, login_refused: bool = False) -> None:
        self._advance(reconnect.SourceFailed(time.monotonic(), self._dice(), reason, login_refused))

    def _tick(self) -> None:
        self._advance(reconnect.CameraTick(time.monotonic(), self._dice()))

    def _advance(self, event: reconnect.Event) -> CameraPhase:
        with self._lock:
            before = self._state.phase
            self._state, actions = reconnect.advance(self._state, event, self._policy)
            self._losses += before is not self._state.phase is CameraPhase.BACKOFF
            for action in actions:
                if isinstance(action, reconnect.ReportState):
                    self._tell(action)
                else:
                    self._actions.append(action)
            return self._state.phase

    def _tell(self, report: reconnect.ReportState) -> None:
        if report.phase in (CameraPhase.BACKOFF, CameraPhase.ENDED):
            self._mailboxes.rest(self._camera.id, discard=report.phase is CameraPhase.BACKOFF and self._live)
        level = logging.WARNING if report.phase is CameraPhase.BACKOFF else logging.INFO
        after = f"; next attempt in {report.retry_in_s:.1f} s" if report.retry_in_s is not None else ""
        log.log(level, "camera %s: %s %s%s", self._camera.id, report.phase.value, report.reason, after)
        self._post(CameraChanged(self._camera.id, report.phase, report.reason, report.attempts, report.retry_in_s))

    def _nap(self) -> None:
        """Wait on purpose, no longer than the next attempt is away; ``stop`` ends it."""
        left_s = (self._state.retry_at_s or 0.0) - time.monotonic()
        self._stopping.wait(min(max(left_s, 0.0), _NAP_S))

    def _look_at_login(self) -> None:
        if self._state.refused_logins and self._login_file.is_other():
            self._advance(reconnect.LoginChanged(time.monotonic(), self._dice()))


def comes_live(camera: CameraSettings) -> bool:
    """Whether frames come when the world makes them; an address of no known kind counts as live."""
    try:
        return is_live(camera.source)
    except SourceError:
        return True


def _utc(since_1970_ns: int) -> datetime:
    return datetime.fromtimestamp(since_1970_ns / 1e9, timezone.utc)
