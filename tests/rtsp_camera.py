"""An RTSP camera: streams H.264 over RTP, by TCP or UDP, with the habits of real ones."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from little_servers import head_of, listening

REALM, NONCE = "camera", "7e3b1c"
_LARGEST_PAYLOAD = 1200


def _digest(algorithm: str, text: str) -> str:
    return hashlib.new(algorithm.replace("-", ""), text.encode(), usedforsecurity=False).hexdigest()


@dataclass
class RtspCamera:
    """What it streams, and how.

    Attributes:
        frames: NAL units of each frame; sent over and over.
        transports: that it speaks; it answers 461 to others, or with ``refusal``.
        begin_at: the frame at which a client comes in.
        every_s: time between two frames.
        drop: numbers of RTP packets that are lost.
        login: user and password, by digest.
        algorithms: of the digests that it offers, in this order; it takes any of them.
        silent_tcp: over TCP it plays and sends nothing.
        asked: requests that came.
    """

    frames: Sequence[Sequence[bytes]]
    transports: frozenset[str] = frozenset({"tcp", "udp"})
    refusal: str = "461 Unsupported Transport"
    begin_at: int = 0
    every_s: float = 0.01
    drop: frozenset[int] = frozenset()
    login: tuple[str, str] | None = None
    algorithms: tuple[str, ...] = ("MD5",)
    silent_tcp: bool = False
    asked: list[str] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Its address, while it runs."""
        with listening(self._serve) as port:
            yield f"rtsp://127.0.0.1:{port}/live"

    def _serve(self, connection: socket.socket) -> None:
        stop = threading.Event()
        target: tuple[str, int] = ("", 0)
        try:
            while request := head_of(connection):
                method = request.split()[0]
                self.asked.append(request)
                said = self._answer(method, request)
                number = re.search(r"CSeq: *(\d+)", request)
                assert number is not None
                if method == "SETUP" and said[0] == "200 OK":
                    found = re.search(r"client_port=(\d+)", request)
                    target = ("udp", int(found[1])) if found else ("tcp", 0)
                body = said[2].encode()
                length = f"Content-Length: {len(body)}\r\n" if body else ""
                head = f"RTSP/1.0 {said[0]}\r\nCSeq: {number[1]}\r\n{said[1]}{length}\r\n"
                connection.sendall(head.encode() + body)
                if method == "PLAY":
                    threading.Thread(target=self._stream, args=(connection, *target, stop), daemon=True).start()
                if method == "TEARDOWN":
                    return
        finally:
            stop.set()

    def _answer(self, method: str, request: str) -> tuple[str, str, str]:
        if self.login and method != "OPTIONS" and not self._is_logged_in(method, request):
            offer = f'WWW-Authenticate: Digest realm="{REALM}", nonce="{NONCE}", algorithm='
            return "401 Unauthorized", "".join(f"{offer}{one}\r\n" for one in self.algorithms), ""
        if method == "DESCRIBE":
            sdp = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
            )
            return "200 OK", "Content-Type: application/sdp\r\n", sdp
        if method == "SETUP":
            transport = "tcp" if "TCP" in request else "udp"
            if transport not in self.transports:
                return self.refusal, "", ""
            ports = re.search(r"client_port=([\d-]+)", request)
            means = f"RTP/AVP;unicast;client_port={ports[1]}" if ports else "RTP/AVP/TCP;unicast;interleaved=0-1"
            return "200 OK", f"Transport: {means}\r\nSession: 1\r\n", ""
        return "200 OK", "Session: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""

    def _is_logged_in(self, method: str, request: str) -> bool:
        assert self.login is not None
        uri = re.search(r'uri="([^"]*)"', request)
        response = re.search(r'response="([^"]*)"', request)
        if uri is None or response is None:
            return False
        named = re.search(r"algorithm=\"?([\w-]+)", request)
        algorithm = named[1] if named else "MD5"
        who = _digest(algorithm, f"{self.login[0]}:{REALM}:{self.login[1]}")
        what = _digest(algorithm, f"{method}:{uri[1]}")
        return algorithm in self.algorithms and response[1] == _digest(algorithm, f"{who}:{NONCE}:{what}")

    def _stream(self, connection: socket.socket, transport: str, port: int, stop: threading.Event) -> None:
        if transport == "tcp" and self.silent_tcp:
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, suppress(OSError):
            for number, packet in enumerate(self._packets(stop)):
                if number in self.drop:
                    continue
                if transport == "tcp":
                    connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                else:
                    datagrams.sendto(packet, ("127.0.0.1", port))

    def _packets(self, stop: threading.Event) -> Iterator[bytes]:
        at, number = self.begin_at, 0
        while not stop.is_set():
            payloads = [payload for unit in self.frames[at % len(self.frames)] for payload in _payloads(unit)]
            for payload in payloads:
                mark = 0x80 if payload is payloads[-1] else 0
                yield struct.pack(">BBHII", 0x80, mark | 96, number & 0xFFFF, at * 3600 & 0xFFFFFFFF, 0x1234) + payload
                number += 1
            at += 1
            time.sleep(self.every_s)


def _payloads(unit: bytes) -> Iterator[bytes]:
    """A NAL unit as it is, or in fragments (FU-A, RFC 6184)."""
    if len(unit) <= _LARGEST_PAYLOAD:
        yield unit
        return
    kind, rest = unit[0], unit[1:]
    for start in range(0, len(rest), _LARGEST_PAYLOAD):
        piece = rest[start : start + _LARGEST_PAYLOAD]
        first, last = start == 0, start + _LARGEST_PAYLOAD >= len(rest)
        yield bytes([kind & 0xE0 | 28, (first << 7) | (last << 6) | kind & 0x1F]) + piece
