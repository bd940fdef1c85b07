"""Fork server: a process that has loaded what cameras need, and forks one process a camera, in milliseconds.

Nothing of a camera happens in it: it has one thread, opens nothing and waits for nothing but its parent and its
children. A fork shares what is loaded here; a process started anew takes half a second of CPU and 35 MB for it.
Ends with its parent, and its children end with it.

    python -m vajra_edge.capture.fork_server DESCRIPTOR
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

from vajra_edge.capture import child, limits, protocol
from vajra_edge.capture.protocol import Exited, Hello, KillChild, Spawn
from vajra_edge.capture.sources import jetson, registry
from vajra_edge.capture.url import Kind, kind_of
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.opencv import load_cv2

_WORDS_BYTES = 64 * 1024  # of what a process may write to stderr; the rest of it fails
_LAST_WORDS_BYTES = 4096
_CHANNEL = 3


@dataclass(frozen=True)
class _Forked:
    """One child: its number, a copy of its end of the channel, and what it wrote to stderr."""

    number: int
    channel: socket.socket
    stderr: int


class _Server:
    """Forks, kills and collects children. The one thread of its process."""

    def __init__(self, control: socket.socket, make: child.Make) -> None:
        self._control, self._make = control, make
        self._children: dict[int, _Forked] = {}  # by pid

    def serve(self) -> None:
        """Do what the parent says, until it is gone."""
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        while True:
            select.select([self._control.fileno(), woken], [], [])
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            self._collect()
            while (came := protocol.receive(self._control)) is not None:
                if not came[0]:
                    self._end()
                    return
                self._do(*came)

    def _do(self, datagram: bytes, descriptor: int | None) -> None:
        order = protocol.to_server(datagram)
        if isinstance(order, KillChild):
            for pid, forked in self._children.items():
                if forked.number == order.number:
                    _kill(pid)
        elif descriptor is not None:
            self._fork(order, socket.socket(fileno=descriptor))

    def _fork(self, order: Spawn, channel: socket.socket) -> None:
        stderr = os.memfd_create("stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(stderr, _WORDS_BYTES)
        fcntl.fcntl(stderr, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            protocol.send(channel, Exited(0, f"no process can be started for it: {error.strerror}"))
            channel.close()
            os.close(stderr)
            return
        if pid == 0:
            self._be_child(order, channel, stderr, parent)
        self._children[pid] = _Forked(order.number, channel, stderr)

    def _be_child(self, order: Spawn, channel: socket.socket, stderr: int, parent: int) -> NoReturn:
        """Never returns, whatever happens: two servers with one channel would be the end of both."""
        code = 1
        try:
            limits.die_with(parent)
            own = _settle(channel, stderr)
            protocol.send(own, Hello(os.getpid()))
            camera = settings_of(order)
            limits.confine(_kind(camera), hardware=camera.decode != "cpu" and jetson.has_decoder())
            child.run(own, camera, self._make)
            code = 0
        except BaseException as error:  # noqa: BLE001  the top of a process; stderr becomes the reason
            os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace"))
        finally:
            os._exit(code)

    def _collect(self) -> None:
        """Tell of each child that ended; what it left in its session ends too, while its number is still its own."""
        while self._children:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            _kill(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            if (forked := self._children.pop(ended.si_pid, None)) is not None:
                protocol.send(forked.channel, Exited(os.waitstatus_to_exitcode(status), _last_words(forked.stderr)))
                forked.channel.close()
                os.close(forked.stderr)

    def _end(self) -> None:
        for pid in self._children:
            _kill(pid)


def settings_of(order: Spawn) -> CameraSettings:
    """As the settings file is read: strict fields take no text for a path from JSON, their own checks do."""
    return CameraSettings.model_validate(json.loads(order.camera))


def _settle(channel: socket.socket, stderr: int) -> socket.socket:
    """Keep nothing of the server but the channel: its children's channels, signals and group are not ours."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    kept, words = (fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 64) for one in (channel.fileno(), stderr))
    os.dup2(kept, _CHANNEL, inheritable=False)
    os.dup2(words, 1)
    os.dup2(words, 2)
    os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
    channel.detach()
    faulthandler.enable(2)
    return socket.socket(fileno=_CHANNEL)


def _kind(camera: CameraSettings) -> Kind | None:
    try:
        return kind_of(camera.source)
    except SourceError:  # the source says so again, as the reason
        return None


def _kill(pid: int) -> None:
    """The child and whatever it started; it has not been waited for, so that its number is nobody else's."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _last_words(stderr: int) -> str:
    written = os.pread(stderr, _WORDS_BYTES, 0).rstrip(b"\0")
    return written[-_LAST_WORDS_BYTES:].decode(errors="replace")


def _load() -> None:
    """What sources load once they are chosen; what is absent here says so when it is."""
    load_cv2()
    with contextlib.suppress(ImportError):
        import av  # noqa: F401
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise touch, and so copy, all of this


def main(make: child.Make = registry.make) -> None:
    """Serve the parent at the other end of the descriptor that the command line names.

    Args:
        make: the source of a camera's settings.
    """
    control = socket.socket(fileno=int(sys.argv[1]))
    _load()
    _Server(control, make).serve()


if __name__ == "__main__":
    main()
