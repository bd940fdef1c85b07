"""Sixteen cameras, of which eight hang in eight ways: the other eight publish what they publish alone.

    python tests/faults/hanging_cameras.py [--minutes 10] [--alone-minutes 2] [--fps 5]

As root: it changes the name servers of its own mount namespace and mounts a file system that never answers. Every
picture of the good cameras carries its number in red and green cells, which the tiny network finds; the numbers that
arrive at the broker are compared with those that were sent. A stand-in of systemd with WatchdogSec=30 restarts what
dies. One JSON line a run, the last line says what differs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.server
import itertools
import json
import os
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import tiny  # noqa: E402
from ports import free_port  # noqa: E402
from station import Ears, Station  # noqa: E402
from stuck_disk import StuckDisk  # noqa: E402
from supervised import Supervised  # noqa: E402
from waiting import wait_for  # noqa: E402

GOOD = 8
BITS = 16
SIDE_PX = 256
CELLS = SIDE_PX // tiny.STRIDE
SETTLE_S = 10.0
"""After all good cameras stream, before numbers count."""
WATCHDOG_S = 30.0
CRASH_EVERY_S = 20.0
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


def numbered(number: int) -> bytes:
    """A JPEG whose first cells say ``number``: red is 1, green 0."""
    image = np.full((SIDE_PX, SIDE_PX, 3), tiny.GREY, np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, CELLS)
        top, left = row * tiny.STRIDE, column * tiny.STRIDE
        image[top : top + tiny.STRIDE, left : left + tiny.STRIDE] = tiny.RED if number >> bit & 1 else tiny.GREEN
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def number_of(detections: list[dict[str, Any]]) -> int | None:
    """What the boxes say; None where one is missing."""
    found = {}
    for one in detections:
        left, top, right, bottom = one["xyxy"]
        cell = int((top + bottom) / 2 // tiny.STRIDE) * CELLS + int((left + right) / 2 // tiny.STRIDE)
        found[cell] = one["class_id"] == tiny.NAMES.index("person")
    if sorted(found) != list(range(BITS)):
        return None
    return sum(1 << bit for bit, is_red in found.items() if is_red)


class Feed(socketserver.ThreadingTCPServer):
    """HTTP cameras: all good ones, and those of the bad ones that speak HTTP."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, fps: float) -> None:
        self.fps, self.began_s = fps, time.monotonic()
        super().__init__(("127.0.0.1", 0), _Request)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def numbers(self) -> Iterator[int]:
        """Each number of the common count, when its time has come."""
        number = int((time.monotonic() - self.began_s) * self.fps)
        while True:
            number += 1
            time.sleep(max(self.began_s + number / self.fps - time.monotonic(), 0.0))
            yield number % (1 << BITS)


class _Request(http.server.BaseHTTPRequestHandler):
    server: Feed

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            answer = getattr(self, self.path.strip("/").partition("/")[0])
            answer()

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def good(self) -> None:
        self._begin()
        for number in self.server.numbers():
            self._part(numbered(number))

    def crash(self) -> None:
        self.good()

    def header(self) -> None:
        """Never comes to its end."""
        self.send_response(200)
        while True:
            self.wfile.write(b"X-More: " + b"a" * 1000 + b"\r\n")
            time.sleep(0.01)

    def bomb(self) -> None:
        """A few hundred bytes that claim 30,000 x 30,000 pixels."""
        size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        body = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", zlib.compress(bytes(100_000)))
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def slow(self) -> None:
        """Five seconds a read."""
        self._begin()
        while True:
            picture = numbered(0)
            for piece in (picture[:500], picture[500:]):
                if piece is picture[:500]:
                    self._head(len(picture))
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(5.0)

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
        self.end_headers()

    def _head(self, length: int) -> None:
        self.wfile.write(b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % length)

    def _part(self, picture: bytes) -> None:
        self._head(len(picture))
        self.wfile.write(picture + b"\r\n")
        self.wfile.flush()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def listen(serve: Callable[[socket.socket], None]) -> int:
    """A loopback server, a thread a client; its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                serve(self.request)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def mute(client: socket.socket) -> None:
    """Takes the connection and says nothing."""
    client.recv(1)
    time.sleep(3600)


def garbage_after_play(client: socket.socket) -> None:
    """Good RTSP up to PLAY, then noise for ever."""
    sdp = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n"
    sdp += b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:t\r\n"
    while True:
        asked = b""
        while b"\r\n\r\n" not in asked:
            came = client.recv(4096)
            if not came:
                return
            asked += came
        verb = asked.split(b" ", 1)[0]
        number = next(line for line in asked.split(b"\r\n") if line.lower().startswith(b"cseq"))
        head = b"RTSP/1.0 200 OK\r\n" + number + b"\r\nSession: 1\r\n"
        if verb == b"OPTIONS":
            client.sendall(head + b"Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n")
        elif verb == b"DESCRIBE":
            client.sendall(head + b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(sdp) + sdp)
        elif verb == b"SETUP":
            client.sendall(head + b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n")
        elif verb == b"PLAY":
            client.sendall(head + b"\r\n")
            while True:
                client.sendall(os.urandom(2000))
                time.sleep(0.02)


@dataclass(frozen=True)
class Seen:
    """What the good cameras gave.

    Attributes:
        seconds: that counted.
        expected: numbers between the first and the last of each camera.
        missing: of them.
        unreadable: messages whose boxes gave no number.
        backwards: numbers that came after a later one.
        displaced: frames that a newer one displaced in the daemon, by its own count: it was too slow for them.
        restarts: of the daemon.
        longest_ping_gap_s: between two signs of life to the watchdog.
        daemon_mb: private memory of the daemon after the first fifth, and at the end.
        children_mb: of all its children together, likewise.
        bad: state and reason of each bad camera at the end.
    """

    seconds: float
    expected: int
    missing: int
    unreadable: int
    backwards: int
    displaced: int
    restarts: int
    longest_ping_gap_s: float
    daemon_mb: tuple[float, float]
    children_mb: tuple[float, float]
    bad: dict[str, str]


def private_mb(pid: int) -> float:
    """Memory that only this process has."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Dirty",)):
                return int(line.split()[1]) / 1024
    return 0.0


def descendants(pid: int) -> list[int]:
    """All below a process."""
    found, due = [], [pid]
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            child = int(entry.name)
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(child)
    while due:
        for child in parents.get(due.pop(), ()):
            found.append(child)
            due.append(child)
    return found


def memory(daemon: int) -> tuple[float, float]:
    return round(private_mb(daemon), 1), round(sum(map(private_mb, descendants(daemon))), 1)


def run(folder: Path, broker: int, feed: Feed, bad: dict[str, dict[str, Any]], seconds: float) -> Seen:
    """The daemon with eight good cameras and ``bad``, for so long."""
    folder.mkdir()
    station = Station(folder, broker)
    station.settings["cameras"] = {
        **{f"good{number}": {"source": feed.url(f"good/{number}")} for number in range(GOOD)},
        **bad,
    }
    station.settings["service"] |= {"log_level": "info", "threads": 1}
    ears = Numbers(station)
    systemd = Supervised(station, watchdog_s=WATCHDOG_S).start()
    try:
        good = [f"good{number}" for number in range(GOOD)]
        systemd.until(lambda status: all(_state(status, name) == "streaming" for name in good), limit_s=180.0)
        until_s = time.monotonic() + SETTLE_S
        ears.listen_until(until_s)
        since_s, crashed_s = time.monotonic(), time.monotonic()
        assert systemd.process is not None
        early = late = (0.0, 0.0)
        displaced = dropped(station.status())
        while time.monotonic() < since_s + seconds:
            ears.listen_until(time.monotonic() + 1.0)
            if early == (0.0, 0.0) and time.monotonic() > since_s + seconds / 5:
                early = memory(systemd.process.pid)
            if "crash" in bad and time.monotonic() > crashed_s + CRASH_EVERY_S:
                crashed_s = time.monotonic()
                crash(station)
        late = memory(systemd.process.pid)
        status = station.status()
        states = {name: f"{_state(status, name)}: {_reason(status, name)}" for name in bad}
        gaps = systemd.longest_gap_s
        displaced = dropped(status) - displaced
        return ears.seen(
            since_s, seconds, displaced, len(systemd.ended), gaps, (early[0], late[0]), (early[1], late[1]), states
        )
    finally:
        code = systemd.stop()
        ears.close()
        print(f"the daemon ended with {code}", file=sys.stderr)


def crash(station: Station) -> None:
    """SIGSEGV to the process in which the camera ``crash`` is decoded."""
    for camera in station.status()["cameras"]:
        if camera["id"] == "crash" and camera.get("pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(camera["pid"], signal.SIGSEGV)


def dropped(status: dict[str, Any]) -> int:
    """Of the good cameras."""
    return sum(int(one["dropped"]) for one in status["cameras"] if one["id"].startswith("good"))


def _state(status: dict[str, Any], name: str) -> str:
    return next((one["state"] for one in status.get("cameras", ()) if one["id"] == name), "")


def _reason(status: dict[str, Any], name: str) -> str:
    return next((one["reason"] for one in status.get("cameras", ()) if one["id"] == name), "")


class Numbers:
    """Numbers by camera, with their times."""

    def __init__(self, station: Station) -> None:
        self._ears: Ears = station.listen("camera/+/detections")
        self.heard: dict[str, list[tuple[float, int | None]]] = {}

    def listen_until(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            self._ears.all()
            for path, content, at_s in self._ears.heard:
                camera = path.split("/")[1]
                if camera.startswith("good"):
                    self.heard.setdefault(camera, []).append((at_s, number_of(content["detections"])))
            self._ears.heard.clear()

    def seen(self, since_s: float, seconds: float, displaced: int, restarts: int, gap_s: float, *rest: Any) -> Seen:
        expected = missing = unreadable = backwards = 0
        for came in self.heard.values():
            numbers = [number for at_s, number in came if at_s >= since_s and number is not None]
            unreadable += sum(number is None for at_s, number in came if at_s >= since_s)
            expected += numbers[-1] - numbers[0] + 1
            missing += numbers[-1] - numbers[0] + 1 - len(set(numbers))
            backwards += sum(later < earlier for earlier, later in itertools.pairwise(numbers))
        assert len(self.heard) == GOOD, sorted(self.heard)
        counts = expected, missing, unreadable, backwards, displaced, restarts
        return Seen(round(seconds, 1), *counts, round(gap_s, 1), *rest)

    def close(self) -> None:
        self._ears.close()


def silent_name_servers(folder: Path) -> None:
    """In a mount namespace of our own, names are asked of three servers that never answer."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "unshare: needs root")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    listed = folder / "resolv.conf"
    listed.write_text("".join(f"nameserver 127.0.0.{number}\n" for number in (2, 3, 4)))
    subprocess.run(["mount", "--bind", str(listed), "/etc/resolv.conf"], check=True)
    for number in (2, 3, 4):
        hole = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        hole.bind((f"127.0.0.{number}", 53))
        _HOLES.append(hole)


_HOLES: list[socket.socket] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--alone-minutes", type=float, default=2.0)
    parser.add_argument("--fps", type=float, default=5.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as held:
        folder = Path(name)
        silent_name_servers(folder)
        disk = StuckDisk(folder / "disk")
        disk.open()
        held.callback(disk.close)
        port = free_port()
        (folder / "mosquitto.conf").write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
        )
        broker = subprocess.Popen(
            ["mosquitto", "-c", str(folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        held.callback(broker.wait)
        held.callback(broker.terminate)
        wait_for(lambda: _answers(port))
        feed = Feed(options.fps)
        bad = {
            "mute": {"source": f"rtsp://127.0.0.1:{listen(mute)}/s"},
            "nameless": {"source": "rtsp://gate.cams.example/s1"},
            "stuck": {"source": str(folder / "disk" / "clip.mp4"), "loop": True},
            "garbage": {"source": f"rtsp://127.0.0.1:{listen(garbage_after_play)}/s"},
            "header": {"source": feed.url("header")},
            "crash": {"source": feed.url("crash")},
            "bomb": {"source": feed.url("bomb")},
            "slow": {"source": feed.url("slow")},
        }
        alone = run(folder / "alone", port, feed, {}, options.alone_minutes * 60)
        print(json.dumps({"run": "eight good cameras", **asdict(alone)}), flush=True)
        beside = run(folder / "beside", port, feed, bad, options.minutes * 60)
        print(json.dumps({"run": "beside eight that hang", **asdict(beside)}), flush=True)
    lost = beside.missing - beside.displaced
    same = beside.restarts == 0 and lost <= 0 and not beside.unreadable and not beside.backwards
    print(f"{beside.missing} numbers missing, {beside.displaced} displaced for want of CPU, {beside.restarts} restarts")
    return 0 if same else 1


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
