"""Camera: one thread that reads its source and leaves the newest frame in the mailbox.

The thread performs what the machine in ``reconnect.py`` decides. Only this thread ever touches the source: OpenCV
crashes when a capture is released under a reader. A reader that hangs is therefore left to its own timeout.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from vajra_edge.capture import reconnect
from vajra_edge.capture.rate import Pace, Rate, RateCap
from vajra_edge.capture.reconnect import CameraPhase, Policy
from vajra_edge.capture.sources.base import RawFrame, Source
from vajra_edge.capture.sources.registry import make
from vajra_edge.capture.url import conceal, is_live
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import VajraError
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.types import Frame

__all__ = ["CameraChanged", "CameraCounters", "Grabber", "Mailboxes"]

log = logging.getLogger(__name__)

_GRACE_S = 5.0  # beyond its own timeout, a library call may take this long before it counts as stuck
_NAP_S = 1.0  # a wait on purpose beats this often
_DIGEST_STEP_PX = 16  # every 16th pixel of every 16th row: sensor noise alone changes it


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
    """

    camera: str
    phase: CameraPhase
    frames_read: int
    frames_dropped: int
    decode_errors: int
    losses: int
    fps: float


class Grabber:
    """The capture thread of one camera.

    Args:
        camera: its settings.
        mailboxes: where frames go; ``start`` adds the camera's slot, whoever retires the camera removes it.
        post: takes each CameraChanged; called from two threads and under a lock, so it must only enqueue.
        beat: called whenever the thread made progress or waits on purpose.
        policy: patience; None: the camera's settings.
        open_source: makes the source, anew for each attempt.
        dice: a random number in 0..1, for the delays.
    """

    def __init__(
        self,
        camera: CameraSettings,
        mailboxes: Mailboxes,
        post: Callable[[CameraChanged], None],
        beat: Callable[[], None],
        *,
        policy: Policy | None = None,
        open_source: Callable[[CameraSettings], Source] = make,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._camera = camera
        self._live = is_live(camera.source)
        self._mailboxes = mailboxes
        self._post = post
        self._beat = beat
        self._policy = policy or Policy.of(camera, live=self._live)
        self._open_source = open_source
        self._dice = dice
        self._lock = threading.RLock()  # over the machine, the list of actions and the counters
        self._state = reconnect.CameraState()
        self._actions: deque[reconnect.Open | reconnect.Close] = deque()
        self._call_began_s: float | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._source: Source | None = None
        self._pace, self._cap = Pace(), RateCap(camera.fps)
        self._read, self._losses, self._past_decode_errors = 0, 0, 0
        self._rate = Rate()

    def start(self) -> None:
        """Begin to read; once only."""
        self._mailboxes.add(self._camera.id)
        self._advance(reconnect.Start())
        # A daemon thread: a driver that never returns must not keep the process from its exit.
        self._thread = threading.Thread(target=self._run, name=f"camera-{self._camera.id}", daemon=True)
        self._thread.start()

    def tick(self, now_s: float) -> None:
        """Look at a call into the library from outside; for the supervisor, about once a second.

        While the call is within its own timeout this beats in the thread's place, since it waits on purpose. A stall is
        told even while the read hangs; only a call that hangs far beyond its timeout lets the beat grow old.

        Args:
            now_s: ``time.monotonic()``.
        """
        with self._lock:
            began_s = self._call_began_s
            if began_s is None:
                return
            if self._state.phase is not CameraPhase.BACKOFF:
                self._advance(reconnect.CameraTick(now_s, self._dice()))
        if now_s - began_s <= max(self._camera.open_timeout_s, self._camera.stall_s) + _GRACE_S:
            self._beat()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; no frame and no change of phase comes from it afterwards.

        Returns:
            False where the thread is still inside a call of the library after ``timeout_s``. It then ends, and releases
            its source, as soon as that call returns: after the camera's ``stall_s`` or ``open_timeout_s``.
        """
        with self._lock:
            self._stopping.set()
            self._advance(reconnect.StopCamera())
            self._mailboxes.rest(self._camera.id, discard=self._live)
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def counters(self) -> CameraCounters:
        """A snapshot."""
        with self._lock:
            return CameraCounters(
                camera=self._camera.id,
                phase=self._state.phase,
                frames_read=self._read,
                frames_dropped=self._mailboxes.dropped(self._camera.id),
                decode_errors=self._past_decode_errors + (self._source.decode_errors if self._source else 0),
                losses=self._losses,
                fps=self._rate.per_second(time.monotonic()),
            )

    def _run(self) -> None:
        while self._round():
            pass

    def _round(self) -> bool:
        """One action or one frame; False once there is nothing more to come."""
        try:
            self._beat()
            self._perform()
            if self._state.phase in (CameraPhase.CLOSED, CameraPhase.ENDED):
                return bool(self._actions)
            self._step()
        except VajraError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001  the top of the thread: a bug in a source costs a reconnection, not the camera
            told = conceal(self._camera, f"unexpected {type(error).__name__}: {error}")  # it may quote the address
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("camera %s: %s\n%s", self._camera.id, told, frames)  # noqa: TRY400  the text of error is in told
            self._fail(told)
            self._stopping.wait(_NAP_S)
        return True

    def _perform(self) -> None:
        while self._actions:
            if isinstance(self._actions.popleft(), reconnect.Close):
                self._release()
            elif not self._stopping.is_set():
                self._open()

    def _open(self) -> None:
        self._source = source = self._open_source(self._camera)
        self._call(source.open)
        self._pace, self._cap = Pace(), RateCap(self._camera.fps)
        self._advance(reconnect.Opened(time.monotonic()))

    def _step(self) -> None:
        """Read one frame, or wait for the next attempt."""
        if self._source is None:
            self._pause((self._state.retry_at_s or 0.0) - time.monotonic())
            self._advance(reconnect.CameraTick(time.monotonic(), self._dice()))
            return
        picture = self._call(self._source.read)
        if picture is None:
            self._advance(reconnect.Ended())
        else:
            self._got(picture)

    def _release(self) -> None:
        with self._lock:
            source, self._source = self._source, None
            self._past_decode_errors += source.decode_errors if source else 0
            self._rate = Rate()
        if source is not None:
            source.close()

    def _got(self, picture: RawFrame) -> None:
        now_s = time.monotonic()
        digest = self._digest(picture) if self._policy.freeze_s is not None else None
        if self._advance(reconnect.GotFrame(now_s, self._dice(), digest)) is not CameraPhase.STREAMING:
            return  # it came too late: the others have been told that this camera is lost
        if not self._cap.admits(now_s if picture.position_s is None else picture.position_s):
            return
        if picture.position_s is not None and self._camera.realtime:
            self._pause(self._pace.delay_s(picture.position_s, now_s))
        self._leave(picture)

    def _leave(self, picture: RawFrame) -> None:
        """Put the frame into the mailbox, unless the camera was lost or stopped meanwhile."""
        with self._lock:
            if self._state.phase is not CameraPhase.STREAMING:
                return
            frame = Frame(
                image=picture.image,
                captured_ns=time.monotonic_ns(),
                taken_at=datetime.now(timezone.utc),
                seq=self._read,
                camera=self._camera.id,
            )
            self._read += 1
            self._rate.count(time.monotonic())
            if self._live or self._camera.realtime:
                self._mailboxes.put(frame)
                return
        self._mailboxes.put_wait(frame, self._stopping, self._beat)

    def _fail(self, reason: str) -> None:
        self._advance(reconnect.SourceFailed(time.monotonic(), self._dice(), reason))

    def _advance(self, event: reconnect.Event) -> CameraPhase:
        with self._lock:
            self._state, actions = reconnect.advance(self._state, event, self._policy)
            for action in actions:
                if isinstance(action, reconnect.ReportState):
                    self._tell(action)
                else:
                    self._actions.append(action)
            return self._state.phase

    def _tell(self, report: reconnect.ReportState) -> None:
        if report.phase in (CameraPhase.BACKOFF, CameraPhase.ENDED):
            self._mailboxes.rest(self._camera.id, discard=report.phase is CameraPhase.BACKOFF and self._live)
        self._losses += report.phase is CameraPhase.BACKOFF
        level = logging.WARNING if report.phase is CameraPhase.BACKOFF else logging.INFO
        after = f"; next attempt in {report.retry_in_s:.1f} s" if report.retry_in_s is not None else ""
        log.log(level, "camera %s: %s %s%s", self._camera.id, report.phase.value, report.reason, after)
        self._post(CameraChanged(self._camera.id, report.phase, report.reason, report.attempts, report.retry_in_s))

    def _call(self, call: Callable[[], RawFrame | None]) -> RawFrame | None:
        """A call into the library, seen by ``tick`` while it lasts."""
        self._call_began_s = time.monotonic()
        try:
            return call()
        finally:
            self._call_began_s = None

    def _pause(self, seconds: float) -> None:
        """Wait on purpose; ``stop`` ends it."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0.0 and not self._stopping.wait(min(left_s, _NAP_S)):
            self._beat()

    @staticmethod
    def _digest(picture: RawFrame) -> int:
        return zlib.crc32(picture.image[::_DIGEST_STEP_PX, ::_DIGEST_STEP_PX].tobytes())
