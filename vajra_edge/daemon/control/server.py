"""Control: the daemon's local socket. One JSON line asks, JSON lines answer, the last of them closes.

Requests ``{"verb": "status"}``, ``{"verb": "reload"}``, ``{"verb": "rebuild", "force": false, "dry_run": false,
"rollback": false, "wait": true}``, ``{"verb": "adopt", "bundle": "<its digest>", "wait": true}``, ``{"verb": "set",
"setting": "detect.confidence", "value": 0.4}``, ``{"verb": "unset", "setting": "detect.confidence"}``. Every reply has
a ``kind``: ``progress`` (more will come), ``done`` or ``error`` (the last one).

One thread serves all clients without blocking; requests go into the supervisor's inbox, and its replies wait in bounded
buffers, so that a silent or slow client costs nobody else anything. A flood is let in no faster than it can be refused:
connections are taken at a pace, a few at one time of each process, and who hears "busy" hears it late.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vajra_edge.admission import Admission, AdmissionLimits, Bucket, RequestPace, Verdict
from vajra_edge.daemon.control.client import MAX_REQUEST_BYTES, ask
from vajra_edge.daemon.control.socket_file import ControlSocket
from vajra_edge.errors import ControlError
from vajra_edge.wording import clipped

__all__ = ["Asked", "Control", "ask"]

log = logging.getLogger(__name__)

VERBS = ("status", "rebuild", "reload", "adopt", "set", "unset")
MAX_CLIENTS = 32
"""Connections at one time: what all the rest of the daemon needs of its descriptors is never used up here."""

MAX_CLIENTS_OF_A_PROCESS = 16
"""Of them, so that one program that went wild leaves room for its operator."""

MAX_UNSENT_BYTES = 1024 * 1024
ASK_WITHIN_S = 5.0
LEAVE_WITHIN_S = 5.0

LIMITS = AdmissionLimits(
    caller=RequestPace(50.0, 100.0),
    all_callers=RequestPace(100.0, 200.0),
    refusals=RequestPace(100.0, 200.0),
    open=MAX_CLIENTS,
)
"""Of requests; a caller is a process. A terminal that asks again and again asks twenty times a second."""

ACCEPTS = RequestPace(1000.0, 200.0)
"""Connections taken, each for a tenth of a millisecond of the interpreter that the frames need too."""

BUSY_AFTER_S = 0.5
"""Whoever is refused for asking too often hears it so late: most come again at once."""

LOOK_EVERY_S = 2.0
"""How often the socket's file is looked at: cleaners of temporary files remove it, and operators do."""

_TURN_S = 0.5
_SHORT_TURN_S = 0.05
_CHUNK_BYTES = 65_536
_PEER = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


@dataclass(frozen=True)
class Peer:
    """A process at the other end of a local socket.

    Attributes:
        pid: its number.
        uid: its effective user's.
    """

    pid: int
    uid: int

    @property
    def may_adopt(self) -> bool:
        """New weights are root's and the service's own to give; the group may only ask."""
        return self.uid in (0, os.geteuid())


@dataclass(frozen=True)
class Asked:
    """Event: a client asks for a verb; answered with ``Control.reply``.

    Attributes:
        client: for ``Control.reply``.
        verb: one of ``VERBS``.
        fields: the rest of the request.
        peer: who asks, as the kernel says; None: unknown.
    """

    client: int
    verb: str
    fields: Mapping[str, Any]
    peer: Peer | None = None


class _SocketClient:
    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.peer = _peer_of(sock)
        self.process = str(self.peer.pid)
        self.received = bytearray()
        self.unsent = bytearray()
        self.asked = self.closing = self.put_out = False
        self.until_s = now_s + ASK_WITHIN_S  # by then it must have asked, or, once closing, have read everything
        self.unsent_from_s = 0.0  # nothing is sent before


class Control:
    """The socket and its thread.

    Args:
        path: of the socket; its folder must exist.
        post: takes ``Asked``; only enqueues.
        beat: called at each turn.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        post: Callable[[Asked], None],
        beat: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = ControlSocket(path)
        self._post, self._beat, self._clock = post, beat, clock
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()  # over the clients and their buffers, and over who waits for an answer
        self._clients: dict[int, _SocketClient] = {}
        self._verbs: dict[int, str] = {}
        self._admission = Admission(LIMITS, clock)
        self._accepts = Bucket(ACCEPTS, clock())
        self._listening = False
        self._listen_from_s = 0.0
        self._look_from_s = 0.0
        self._not_made = ""  # why the file is missing, as it was logged
        self._numbers = 0
        self._stop = threading.Event()
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    @property
    def refused(self) -> int:
        """Requests that were not taken, since the start."""
        return self._admission.refused

    def open(self) -> None:
        """Bind and begin to serve.

        Raises:
            ControlError: another daemon answers there, or the socket cannot be made.
        """
        try:
            self._socket.open()
        except BaseException:
            self.close()
            raise
        self._listen(True)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._thread.start()

    def reply(self, client: int, content: Mapping[str, object], *, last: bool = True) -> bool:
        """Send a line to a client; ``last`` closes it once the line is sent. Never waits.

        Returns:
            False where the client is gone, or was put out because it does not read.
        """
        if last:
            self._answered(client)
        with self._lock:
            there = self._clients.get(client)
            if there is None or there.put_out:
                return False
        line = orjson.dumps(content, default=str, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        with self._lock:
            there.unsent += line
            there.closing = there.closing or last
            there.until_s = self._clock() + LEAVE_WITHIN_S if there.closing else float("inf")
            slow = len(there.unsent) > MAX_UNSENT_BYTES
            if slow:
                there.unsent.clear()
                there.closing = there.put_out = True
        self._wake()
        return not slow

    def close(self) -> None:
        """Send what is queued for at most a second, then close everything and remove the socket file."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.is_alive():
            self._wake()
            self._thread.join(LEAVE_WITHIN_S)
        self._socket.close()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def _wake(self) -> None:
        with suppress(OSError):  # so many wakes wait already that one more changes nothing; or all is closed
            self._waker.send(b".")

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat()
            self._look()
            self._turn(_TURN_S if self._listening and not self._held() else _SHORT_TURN_S)
        until_s = self._clock() + 1.0
        while any(client.unsent for client in self._clients.values()) and self._clock() < until_s:
            self._turn(_SHORT_TURN_S)
        for number in tuple(self._clients):
            self._drop(number)

    def _turn(self, timeout_s: float) -> None:
        for key, events in self._selector.select(timeout_s):
            if key.data is not None:
                self._serve(key.data, events)
            elif key.fileobj is self._woken:
                self._drain_wakes()
            else:
                self._accept()
        self._tend()
        if self._clock() >= self._listen_from_s and not self._stop.is_set():
            self._listen(True)

    def _look(self) -> None:
        """Make the socket's file again where it is gone: without it nobody reaches a daemon that serves."""
        if self._clock() < self._look_from_s:
            return
        self._look_from_s = self._clock() + LOOK_EVERY_S
        if self._socket.is_there():
            self._not_made = ""
            return
        self._listen(False)  # of the file that is gone; the turn after listens again
        try:
            self._socket.renew()
        except ControlError as error:
            if self._not_made != str(error):
                self._not_made = str(error)
                log.warning("control socket %s is gone, nobody reaches the daemon there: %s", self._socket.path, error)
            return
        self._not_made = ""
        log.warning("control socket %s was removed or replaced; it was made again", self._socket.path)

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            while self._woken.recv(_CHUNK_BYTES):
                pass

    def _rest(self, seconds: float) -> None:
        """Leave whoever comes with the kernel for now."""
        self._listen_from_s = self._clock() + seconds
        self._listen(False)

    def _listen(self, wanted: bool) -> None:
        listening = self._socket.listening
        if listening is None or wanted is self._listening:
            return
        self._listening = wanted
        if wanted:
            self._selector.register(listening, selectors.EVENT_READ)
        else:
            self._selector.unregister(listening)

    def _accept(self) -> None:
        listening = self._socket.listening
        if listening is None or self._stop.is_set():
            return
        if not self._accepts.take(self._clock()):
            self._rest(_SHORT_TURN_S)
            return
        try:
            sock, _ = listening.accept()
        except OSError as error:  # the client left already; or descriptors ran out, which is not over at once
            log.debug("control socket: %s", error)
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._rest(_TURN_S)
            return
        sock.setblocking(False)
        client = _SocketClient(sock, self._clock())
        with self._lock:
            number, self._numbers = self._numbers, self._numbers + 1
            self._clients[number] = client
        self._selector.register(sock, selectors.EVENT_READ, number)
        self._make_room(number, client)

    def _make_room(self, number: int, client: _SocketClient) -> None:
        """A crowd is refused; whoever has said nothing yet goes first, so that it keeps nobody out who asks."""
        others = {one: other for one, other in self._clients.items() if one != number}
        same = {one: other for one, other in others.items() if other.process == client.process}
        if len(same) >= MAX_CLIENTS_OF_A_PROCESS:
            self._put_out(same, number, f"this process has {MAX_CLIENTS_OF_A_PROCESS} connections already; close some")
        elif len(others) >= MAX_CLIENTS:
            self._put_out(others, number, f"{MAX_CLIENTS} clients are connected already; try again later")

    def _put_out(self, crowd: Mapping[int, _SocketClient], newest: int, why: str) -> None:
        silent = next((one for one, other in crowd.items() if not other.asked), None)
        if silent is None:
            self._refuse(newest, why)
        else:
            self._drop(silent)

    def _serve(self, number: int, events: int) -> None:
        client = self._clients.get(number)
        if client is None:
            return
        try:
            if events & selectors.EVENT_READ:
                self._hear(number, client)
            if events & selectors.EVENT_WRITE:
                self._send(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(number)

    def _hear(self, number: int, client: _SocketClient) -> None:
        chunk = client.sock.recv(_CHUNK_BYTES)
        if not chunk:
            self._drop(number)
            return
        if client.asked:
            return  # one request a connection
        client.received += chunk
        line, newline, _ = bytes(client.received).partition(b"\n")
        if len(line) > MAX_REQUEST_BYTES:
            self._refuse(number, f"the request is longer than {MAX_REQUEST_BYTES} bytes")
        elif newline:
            self._take(number, client, line)

    def _take(self, number: int, client: _SocketClient, line: bytes) -> None:
        client.asked, client.until_s = True, float("inf")
        client.received.clear()
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            self._refuse(number, f"the request is not JSON: {error}")
            return
        verb = fields.pop("verb", None) if isinstance(fields, dict) else None
        if verb not in VERBS:
            self._refuse(number, f"unknown verb {clipped(verb)}; use one of {', '.join(VERBS)}")
            return
        if self._admission.ask(client.process, verb) is not Verdict.TAKEN:
            self._refuse(number, busy(verb), BUSY_AFTER_S)
            return
        with self._lock:
            self._verbs[number] = verb
        self._post(Asked(number, verb, fields, client.peer))

    def _answered(self, number: int) -> None:
        with self._lock:
            verb = self._verbs.pop(number, None)
        if verb is not None:
            self._admission.done(verb)

    def _refuse(self, number: int, error: str, after_s: float = 0.0) -> None:
        client = self._clients[number]
        client.asked, client.unsent_from_s = True, self._clock() + after_s
        self.reply(number, {"kind": "error", "error": error})

    def _send(self, client: _SocketClient) -> None:
        with self._lock:
            sent = client.sock.send(client.unsent[:_CHUNK_BYTES]) if client.unsent else 0
            del client.unsent[:sent]

    def _held(self) -> bool:
        """Whether an answer waits for its time."""
        now_s = self._clock()
        return any(client.unsent and client.unsent_from_s > now_s for client in tuple(self._clients.values()))

    def _tend(self) -> None:
        """Close who is done, silent or slow, and listen for what each of the others is there for."""
        now_s = self._clock()
        for number, client in tuple(self._clients.items()):
            if (client.closing and not client.unsent) or now_s > client.until_s:
                self._drop(number)
                continue
            sends = client.unsent and (now_s >= client.unsent_from_s or self._stop.is_set())
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if sends else 0)
            if self._selector.get_key(client.sock).events != wanted:
                self._selector.modify(client.sock, wanted, number)

    def _drop(self, number: int) -> None:
        with self._lock:
            client = self._clients.pop(number, None)
        if client is not None:
            self._selector.unregister(client.sock)
            client.sock.close()


def busy(verb: str) -> str:
    """What a caller hears whose request is not taken."""
    return f"the daemon is busy: {verb} is asked for too often; wait for the answers and ask less often"


def _peer_of(sock: socket.socket) -> Peer:
    """Who connected."""
    pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return Peer(int(pid), int(uid))
