"""The client's side of the control socket, for the commands."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vajra_edge.errors import ControlError
from vajra_edge.wording import Setting, say

MAX_REQUEST_BYTES = 16 * 1024
MAX_REPLY_BYTES = 4 * 1024 * 1024
ANSWER_WITHIN_S = 15.0
_CHUNK_BYTES = 65_536
_AGAIN_S = 0.02


def ask(
    path: Path, request: Mapping[str, object], *, answer_within_s: float = ANSWER_WITHIN_S
) -> Iterator[dict[str, Any]]:
    """Ask the running daemon.

    Args:
        path: the socket, ``[service] control_socket``.
        request: ``{"verb": ..., ...}``; see ``control``.
        answer_within_s: longest silence; the daemon sends progress at least every few seconds while work goes on.

    Yields:
        Each reply as it comes: any number of kind ``progress``, then one of kind ``done``.

    Raises:
        ControlError: no daemon answers there (``absent`` is true), or it answered with an error.
    """
    line = json.dumps(dict(request)).encode() + b"\n"
    if len(line) > MAX_REQUEST_BYTES:
        raise ControlError(f"the request has {len(line)} bytes", remedy=f"send at most {MAX_REQUEST_BYTES}")
    with _connect(path, answer_within_s) as sock:
        with suppress(OSError):  # it refused before it read; what it said is still to be had
            sock.sendall(line)
        for reply in _replies(sock, path, answer_within_s):
            if reply.get("kind") == "error":
                raise ControlError(str(reply.get("error", "the daemon refused without a word")), reply=reply)
            yield reply
            if reply.get("kind") == "done":
                return
    raise ControlError("the daemon closed the connection before it was done", remedy="see its log: it may have ended")


def _connect(path: Path, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        _join(sock, path, time.monotonic() + timeout_s)
    except PermissionError as error:
        sock.close()
        raise ControlError(f"this user may not use {path}", remedy="use sudo, or join the service's group") from error
    except OSError as error:
        sock.close()
        raise ControlError(
            f"no daemon answers at {path}: {error.strerror or error}",
            remedy=say("start it (systemctl start vajra-edge), or check ", Setting.CONTROL_SOCKET),
            absent=isinstance(error, (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)),
        ) from error
    return sock


def _join(sock: socket.socket, path: Path, until_s: float) -> None:
    """Connect; while so many do that the kernel turns us away, once more."""
    while time.monotonic() < until_s:
        with suppress(BlockingIOError):
            sock.connect(str(path))
            return
        time.sleep(_AGAIN_S)
    raise TimeoutError(errno.ETIMEDOUT, "it is asked by too many")


def _replies(sock: socket.socket, path: Path, timeout_s: float) -> Iterator[dict[str, Any]]:
    received = bytearray()
    while chunk := _receive(sock, path, timeout_s):
        received += chunk
        while (end := received.find(b"\n")) >= 0:
            line = bytes(received[:end])
            del received[: end + 1]
            yield _parse(line, path)
        if len(received) > MAX_REPLY_BYTES:
            raise ControlError(f"{path} sent more than {MAX_REPLY_BYTES} bytes in one line", remedy="is it the daemon?")


def _receive(sock: socket.socket, path: Path, timeout_s: float) -> bytes:
    try:
        return sock.recv(_CHUNK_BYTES)
    except TimeoutError as error:
        raise ControlError(
            f"the daemon at {path} said nothing for {timeout_s:.0f} s", remedy="see its log, or restart it"
        ) from error
    except ConnectionError:
        return b""


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    try:
        reply = json.loads(line)
    except ValueError as error:
        raise ControlError(f"{path} answered something that is not JSON", remedy="is it the daemon?") from error
    if not isinstance(reply, dict):
        raise ControlError(f"{path} answered something that is not a JSON object", remedy="is it the daemon?")
    return reply
