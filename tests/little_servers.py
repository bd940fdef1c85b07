"""Little servers for cameras: what they answer is a function of the connection."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Serve = Callable[[socket.socket], object]


@contextmanager
def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A loopback server, ``serve(connection)`` in a thread for each client; its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        stopping = threading.Event()
        accepting = threading.Thread(target=_accept, args=(listener, serve, tls, stopping), daemon=True)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket, serve: Serve, tls: ssl.SSLContext | None, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_one, args=(connection, serve, tls), daemon=True).start()


def _one(connection: socket.socket, serve: Serve, tls: ssl.SSLContext | None) -> None:
    """Serve one client, who may hang up, or not speak TLS."""
    with suppress(OSError, ValueError), _secured(connection, tls) as line:
        serve(line)


def _secured(connection: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    return tls.wrap_socket(connection, server_side=True) if tls else connection


def head_of(connection: socket.socket) -> str:
    """The head of the next request; empty at the end."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = connection.recv(4096)
        if not more:
            return ""
        got += more
    return got.decode("latin-1")


def answering(answer: bytes) -> Serve:
    """Says the same to everybody, and hangs up."""

    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(answer)

    return serve


def http(body: bytes, content_type: str, status: str = "200 OK", *more: str, length: bool = True) -> bytes:
    """An answer of HTTP."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close", *more]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode() + body


SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
)
OK = "200 OK"


def rtsp(answers: dict[str, tuple[str, str, str]]) -> Serve:
    """An RTSP server: by method its status, headers (each with its line end) and body; 200 where none is given."""
    usual = {
        "OPTIONS": (OK, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
        "DESCRIBE": (OK, "Content-Type: application/sdp\r\n", SDP),
        "SETUP": (OK, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
        "PLAY": (OK, "Session: 1\r\n", ""),
    }

    def serve(connection: socket.socket) -> None:
        while request := head_of(connection):
            method = request.split()[0]
            number = re.search(r"CSeq: *(\d+)", request)
            assert number is not None
            status, headers, body = answers.get(method) or usual.get(method, (OK, "", ""))
            headers += f"Content-Length: {len(body)}\r\n" if body else ""
            connection.sendall(f"RTSP/1.0 {status}\r\nCSeq: {number[1]}\r\n{headers}\r\n{body}".encode())

    return serve
