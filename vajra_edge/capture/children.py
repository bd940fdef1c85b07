"""Children: the processes that cameras are decoded in, seen from the daemon. Nothing here ever waits for one.

One camera has one process at a time: one that cannot be killed is left behind, and until it is gone no other is started
for that camera.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vajra_edge.capture import limits, protocol
from vajra_edge.capture.protocol import Back, Exited, FilledSlot, FromChild, Hello, KillChild, Slots, Spawn
from vajra_edge.capture.ring import Segment
from vajra_edge.config import address
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.types import Memory

KILLED_S = 2.0
"""A process that was killed and is not gone by then sleeps in the kernel: a hung file system, a driver."""

SERVER_S = 10.0
"""A server that has not told by then of the end of a process that it was to kill does not work itself."""

SERVER_LEAVES_S = 1.0
"""A server that was left by its parent kills its children and ends; nobody waits longer for it."""

_KILLED = Exited(-signal.SIGKILL, "")
_COMMAND = (sys.executable, "-m", "vajra_edge.capture.fork_server")
_PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|LD_\w+|PYTHON\w+|VIRTUAL_ENV|CREDENTIALS_DIRECTORY|XDG_\w+|(GST|OPENCV|AV)_\w+"
    r"|(CUDA|NVIDIA|EGL|V4L2?|SSL)_\w+|DISPLAY|JETSON_\w+"
)
"""Of the environment: what libraries are set up by. Settings, tokens and systemd's sockets are the daemon's alone.

No proxy, which FFmpeg and GStreamer would ask and our own requests would not: cameras are in the same network.
"""


@dataclass(frozen=True)
class Arrived:
    """A picture, the image where it lies (see ``ring.Segment.lend``), and the memory that it lies in."""

    picture: FilledSlot
    image: NDArray[np.uint8]
    memory: Memory


class Child:
    """The process of one camera, from its start until it is gone. Used by the camera's thread, then by others.

    Attributes:
        pid: once it said so.
        exited: how it ended; None while it lives.
        began_s: ``time.monotonic()`` of its start.
        killed_s: ``time.monotonic()`` when it was killed; None: it was not.
    """

    def __init__(self, number: int, channel: socket.socket, kill: Callable[[int], None]) -> None:
        self.pid: int | None = None
        self.exited: Exited | None = None
        self.began_s = time.monotonic()
        self.killed_s: float | None = None
        self._number, self._channel, self._kill = number, channel, kill
        self._hearing = threading.Lock()  # a process that was left behind is asked after by whoever comes next
        self._waiting = select.poll()
        self._waiting.register(channel, select.POLLIN)
        self._segment: Segment | None = None
        self._returned: deque[Back] = deque()
        self._closing = threading.RLock()  # nobody who lets go of an image waits for it, see ``_send_back``
        self._told = False

    def receive(self, timeout_s: float) -> FromChild | Arrived | None:
        """What it says next; None: nothing within ``timeout_s``, or it is gone, see ``exited``.

        Raises:
            BrokenProtocol: it says what makes no sense.
        """
        timeout_s = max(timeout_s, 0.0)
        self._send_back()
        if self.exited is not None or not self._hearing.acquire(timeout=timeout_s):
            return None
        try:
            came = protocol.receive(self._channel) if self._waiting.poll(timeout_s * 1e3) else None
        finally:
            self._hearing.release()
        if came is None:
            return None
        datagram, descriptor = came
        try:
            return self._heard(datagram, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def leave(self) -> None:
        """Tell it to end: it closes its source, for the camera may count its clients. Callable from any thread."""
        with self._closing, contextlib.suppress(OSError):
            self._told = True
            self._channel.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it at once."""
        self._told = True
        self.killed_s = self.killed_s or time.monotonic()
        self._kill(self._number)

    def abandon(self) -> None:
        """Listen to it no more, whatever becomes of it; idempotent."""
        if self.exited is None:
            self._gone(_KILLED)

    def is_stuck(self) -> bool:
        """Whether it was killed and is there still; to be asked once its thread does not listen any more."""
        overdue = self.killed_s is not None and time.monotonic() - self.killed_s > KILLED_S
        return overdue and not self.wait(0.0)

    def wait(self, timeout_s: float) -> bool:
        """Whether it is gone within ``timeout_s``; what it still says is nothing to anybody."""
        until_s = time.monotonic() + timeout_s
        while self.exited is None:
            with contextlib.suppress(protocol.BrokenProtocol):
                self.receive(until_s - time.monotonic())
            if time.monotonic() >= until_s:
                break
        return self.exited is not None

    def _heard(self, datagram: bytes, descriptor: int | None) -> FromChild | Arrived | None:
        if not datagram:
            self._gone(_KILLED)  # with its server, for otherwise that would have told
            return None
        message = protocol.from_child(datagram)
        match message:
            case Exited():
                self._gone(message)
                return None
            case Hello(pid):
                self.pid = pid
            case Slots():
                if descriptor is None:
                    raise protocol.BrokenProtocol("a segment without memory")
                self._segment = Segment(message, descriptor, self._back)
            case FilledSlot():
                if self._told:
                    return None
                if self._segment is None or self._segment.number != message.segment:
                    raise protocol.BrokenProtocol("a picture in no segment")
                return Arrived(message, self._segment.lend(message), self._segment.memory)
            case _:
                pass
        return message

    def _gone(self, exited: Exited) -> None:
        with self._closing:
            self.exited = exited
            self._segment = None
            self._channel.close()

    def _back(self, segment: int, slot: int, generation: int) -> None:
        self._returned.append(Back(segment, slot, generation))
        self._send_back()

    def _send_back(self) -> None:
        """Give back what came back. Never waits: a collection may call this from within any thread that holds a lock.

        What is left while another thread is about to close the channel goes with the next ``receive``.
        """
        while self._returned and self._closing.acquire(blocking=False):
            try:
                with contextlib.suppress(IndexError):  # another one was faster
                    returned = self._returned.popleft()
                    if self.exited is None:
                        protocol.send(self._channel, returned)
            finally:
                self._closing.release()


class Children:
    """Starts the processes of all cameras of one daemon, through a fork server that the first one brings up.

    Args:
        command: the fork server; the descriptor of its channel is added.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = command
        self._numbers = itertools.count(1)
        self._changing = threading.Lock()
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._by_camera: dict[str, Child] = {}
        self._closed = False

    def start(self, camera: CameraSettings) -> Child:
        """Start a process for a camera, of which the one before has ended: see ``before``.

        Raises:
            SourceError: none can be started.
        """
        with self._changing:
            number, control = next(self._numbers), self._control()
            ours, theirs = protocol.pair()
            child = Child(number, ours, self._kill)
            with theirs:
                asked = protocol.send(control, Spawn(number, camera.model_dump_json()), theirs.fileno())
            if not asked:
                child.abandon()
                self._drop_server()
                raise SourceError(f"no process can be started for camera {camera.id}", remedy="see the journal")
            there = {name: other for name, other in self._by_camera.items() if other.exited is None}
            self._by_camera = {**there, camera.id: child}
            return child

    def end(self, child: Child, leave_s: float, beat: Callable[[], None]) -> bool:
        """End a process for certain: it is told, killed after ``leave_s``, and waited for; whether it is gone.

        Args:
            child: of any camera.
            leave_s: time to close its source by itself.
            beat: called while waiting, which is on purpose.
        """
        child.leave()
        if child.wait(leave_s):
            return True
        beat()
        child.kill()
        if child.wait(KILLED_S):
            return True
        beat()
        overdue = child.killed_s is not None and time.monotonic() - child.killed_s > SERVER_S
        if not overdue or (child.pid is not None and limits.sleeps_in_the_kernel(child.pid)):
            return False
        self.replace_server()  # which kills and collects for us, and did not
        return child.wait(KILLED_S)

    def before(self, camera: str) -> Child | None:
        """The process of a camera that was started last and is not known to be gone."""
        child = self._by_camera.get(camera)
        return child if child is not None and child.exited is None else None

    def stuck(self) -> Mapping[str, int]:
        """By camera: ids of processes that were killed and are there still; 0 for one that never told its own."""
        return {name: child.pid or 0 for name, child in self._by_camera.items() if child.is_stuck()}

    def replace_server(self) -> None:
        """The server does not do its work: end it, and with it every child, so that the next start gets another."""
        with self._changing:
            self._drop_server()

    def close(self) -> None:
        """End every process that is left; idempotent. What cannot be killed is left to the system."""
        with self._changing:
            self._closed = True
            self._drop_server()
            for child in self._by_camera.values():
                child.abandon()

    def _kill(self, number: int) -> None:
        with self._changing:
            if self._server is not None:
                protocol.send(self._server[1], KillChild(number))

    def _control(self) -> socket.socket:
        """The channel to a server that lives, started where there is none."""
        if self._closed:
            raise SourceError("no process is started any more: all are being ended")
        if self._server is not None and self._server[0].poll() is not None:
            self._drop_server()
        if self._server is None:
            ours, theirs = protocol.pair()
            with theirs:
                try:
                    process = subprocess.Popen(
                        [*self._command, str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=None,
                        env=_environment(os.environ),
                        start_new_session=True,
                    )
                except OSError as error:
                    ours.close()
                    raise SourceError(f"no process can be started: {error.strerror}") from error
            self._server = process, ours
        return self._server[1]

    def _drop_server(self) -> None:
        if self._server is None:
            return
        process, control = self._server
        self._server = None
        control.close()
        try:
            process.wait(SERVER_LEAVES_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SERVER_LEAVES_S)


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """What libraries need of ours, and the way to this package; BLAS gets no threads, which a fork would lose."""
    package = str(Path(__file__).parents[2])
    kept = {name: value for name, value in own.items() if _PASSED_ON.fullmatch(name)}
    paths = [package, *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


_NAMES = {number.value: number.name for number in signal.Signals}


def how_it_ended(exited: Exited, source: str, *, has_secret: bool) -> str:
    """In the user's words.

    Args:
        exited: what is known of the end.
        source: of the camera; nothing that a library quotes of it is told.
        has_secret: the camera has a password beside its source. The process alone knew it, so that a library's line,
            which may quote it, is not told.
    """
    last = _last_line(exited.words, source, has_secret=has_secret)
    said = f": {last}" if last else ""
    if exited.code < 0:
        name = _NAMES.get(-exited.code, f"signal {-exited.code}")
        verb = "was killed" if exited.code == -signal.SIGKILL else "crashed"
        return f"the decoder {verb} ({name}){said}"
    return f"the decoder ended with exit code {exited.code}{said}"


def _last_line(words: str, source: str, *, has_secret: bool) -> str:
    """What a dying process said before its traceback: a library's last line, or else the fault handler's first."""
    before, fatal, after = words.partition("Fatal Python error: ")
    lines = [line.strip() for line in before.splitlines() if line.strip()]
    if lines and not has_secret:
        return address.conceal(lines[-1][: protocol.LONGEST_TEXT], source)
    return (fatal + after.partition("\n")[0]).strip()[: protocol.LONGEST_TEXT]
