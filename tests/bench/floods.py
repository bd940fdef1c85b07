"""Floods of requests: how long systemd's watchdog and the subscribers wait meanwhile.

    .venv/bin/python tests/bench/floods.py [--seconds 30] [--rate 1000] [--only mqtt,large]

Needs mosquitto. A whole daemon of its own, a stand-in of systemd that notes each ping (WatchdogSec=30), a subscriber
that notes each detection message, and floods from processes of their own. Prints a JSON line for each flood:

* ``ping_gap_s``, ``frame_gap_s``: the longest silence, from the beginning of the flood until five seconds after it.
* ``frame_age_ms``: the oldest that a frame was when its message was made, of so many ``frames``.
* ``requests``, ``answers``: how many were sent, and how many of which kind came back.
* ``rss_mib``, ``descriptors``: of the daemon, before, at the most, and five seconds after.
* ``connections``: how often the daemon came to the broker.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import paho.mqtt.client as paho  # noqa: E402
from station import Station  # noqa: E402  the checkout is put on the path first

from vajra_edge.demo.broker import Broker  # noqa: E402

FPS, WATCHDOG_S, QUIET_S = 20.0, 30.0, 5.0
REQUEST = b'{"verb":"status"}\n'
REQUEST_TOPIC, RESPONSE_TOPIC = "vajra/test/request/status", "vajra/test/response/status"
LARGE_BYTES = 200 << 20


def client_of(port: int) -> paho.Client:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def hear(port: int, topic: str, heard: Callable[[bytes], None]) -> paho.Client:
    """A subscriber that comes back as one."""
    ear = client_of(port)
    ear.on_message = lambda _c, _u, item: heard(item.payload)
    ear.on_connect = lambda client, *_: client.subscribe(topic, 1)
    ear.subscribe(topic, 1)
    return ear


def flood_mqtt(port: int, rate: float, seconds: float) -> Counter[str]:
    """``rate`` requests a second."""
    told: Counter[str] = Counter()
    client = client_of(port)
    client.on_message = lambda _c, _u, item: told.update(["busy" if b"is busy" in item.payload[:400] else "answers"])
    client.subscribe(RESPONSE_TOPIC)
    began_s, sent = time.monotonic(), 0
    while (passed_s := time.monotonic() - began_s) < seconds:
        while sent < rate * passed_s:
            client.publish(REQUEST_TOPIC, b"{}")
            sent += 1
        time.sleep(0.01)
    time.sleep(1.0)
    return told + Counter(requests=sent)


def flood_large(port: int, _rate: float, seconds: float) -> Counter[str]:
    """A request of 200 MB every two seconds."""
    client, sent = client_of(port), 0
    for _ in range(int(seconds / 2)):
        client.publish(REQUEST_TOPIC, b"x" * LARGE_BYTES, qos=0)
        sent += 1
        time.sleep(2.0)
    return Counter(requests=sent)


def ask(path: str, told: Counter[str]) -> None:
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.settimeout(5.0)
        sock.connect(path)
        told["requests"] += 1
        sock.sendall(REQUEST)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
        told["busy" if b"busy" in answer[:200] else "answers" if b'"done"' in answer[:200] else "refused"] += 1


def flood_connections(path: str, _rate: float, _seconds: float) -> Counter[str]:
    """10,000 connections: 9,000 that come and go, 1,000 that stay and say nothing."""
    told: Counter[str] = Counter()
    kept: list[socket.socket] = []
    for number in range(10_000):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(1.0)
        try:
            sock.connect(path)
            told["requests"] += 1
        except OSError:
            told["refused"] += 1
        if number % 10:
            sock.close()
        else:
            kept.append(sock)
    time.sleep(2.0)
    return told


def flood_readers(path: str, _rate: float, seconds: float) -> Counter[str]:
    """30 clients that ask again as soon as they are answered."""
    told: Counter[str] = Counter()
    until_s = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < until_s:
            ask(path, told)

    run_all(client)
    return told


def flood_mutes(path: str, _rate: float, seconds: float) -> Counter[str]:
    """30 clients that ask and never read, and come again as soon as they are put out."""
    told: Counter[str] = Counter()
    until_s = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < until_s:
            with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                sock.settimeout(1.0)
                sock.connect(path)
                while time.monotonic() < until_s:
                    sock.sendall(REQUEST)
                    told["requests"] += 1
                    time.sleep(0.05)

    run_all(client)
    return told


def run_all(client: Callable[[], None], count: int = 30) -> None:
    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


FLOODS: dict[str, tuple[Callable[..., Counter[str]], bool]] = {
    "mqtt": (flood_mqtt, True),
    "connections": (flood_connections, False),
    "readers": (flood_readers, False),
    "mutes": (flood_mutes, False),
    "large": (flood_large, True),
}
"""By name; whether it goes to the broker's port, else to the control socket."""


class Systemd:
    """Notes when it was pinged."""

    def __init__(self, path: Path) -> None:
        self.pings_s = [time.monotonic()]
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            if any(line in (b"WATCHDOG=1", b"READY=1") for line in self._sock.recv(65536).split(b"\n")):
                self.pings_s.append(time.monotonic())


@contextmanager
def serving(folder: Path, port: int, protocol: str) -> Iterator[tuple[Station, Systemd]]:
    """A daemon that serves; ended afterwards."""
    systemd = Systemd(folder / "notify")
    os.environ |= {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    station = Station(folder, port)
    station.camera("gate", fps=FPS)
    station.write(mqtt={"commands": True, "protocol": protocol}, service={"log_level": "info", "threads": 1})
    station.spawn()
    try:
        station.serving()
        yield station, systemd
    finally:
        print(json.dumps({"exit": station.stop()}), flush=True)


def facts(pid: int) -> tuple[int, int]:
    """Resident MiB and open descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def longest_s(times_s: list[float], begin_s: float, end_s: float) -> float:
    inside = [begin_s, *(at_s for at_s in times_s if begin_s < at_s < end_s), end_s]
    return round(max(after - before for before, after in itertools.pairwise(inside)), 2)


def measure(name: str, station: Station, systemd: Systemd, arguments: argparse.Namespace) -> None:
    """One flood, then five quiet seconds."""
    to_broker = FLOODS[name][1]
    place = str(station.port if to_broker else station.socket)
    frames_s: list[float] = []
    ages_ms: list[float] = []

    def heard(payload: bytes) -> None:
        frames_s.append(time.monotonic())
        ages_ms.append(json.loads(payload)["frame_age_ms"])

    ear = hear(station.port, "vajra/test/camera/gate/detections", heard)
    time.sleep(2.0)
    pid, begin_s = station.process.pid, time.monotonic()
    before = most = facts(pid)
    command = [sys.executable, __file__, "--flood", name, place]
    command += ["--rate", str(arguments.rate), "--seconds", str(arguments.seconds)]
    flood = subprocess.Popen(command, stdout=subprocess.PIPE)
    while flood.poll() is None and station.process.poll() is None:
        most = tuple(map(max, most, facts(pid)))
        time.sleep(0.1)
    told = json.loads(flood.communicate()[0])
    time.sleep(QUIET_S)
    end_s, after = time.monotonic(), facts(pid)
    ear.loop_stop()
    # a ping every 15 s is what systemd asks for; one that is due after the end says nothing
    report = {"flood": name, "s": round(end_s - begin_s - QUIET_S, 1), **told}
    report |= {
        "ping_gap_s": longest_s(systemd.pings_s, begin_s, end_s),
        "frame_gap_s": longest_s(frames_s, begin_s, end_s),
    }
    report |= {"frame_age_ms": max(ages_ms), "frames": len(frames_s)}
    report |= {"rss_mib": [before[0], most[0], after[0]], "descriptors": [before[1], most[1], after[1]]}
    with suppress(Exception):
        status = station.status()
        report |= {"connections": status["broker"]["connections"], "reason": status["reason"], "late": status["late"]}
    print(json.dumps(report), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--only", default=",".join(FLOODS))
    parser.add_argument("--flood", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.flood:
        name, place = arguments.flood
        flood, to_broker = FLOODS[name]
        print(json.dumps(flood(int(place) if to_broker else place, arguments.rate, arguments.seconds)))
        return
    broker = Broker("mosquitto")
    _, port = broker.open()
    chosen = arguments.only.split(",")
    try:
        for protocol in ("auto", "3.1.1"):
            names = [name for name in chosen if (name == "large") == (protocol == "3.1.1")]
            with tempfile.TemporaryDirectory() as folder:
                if names:
                    with serving(Path(folder), port, protocol) as (station, systemd):
                        for name in names:
                            measure(name, station, systemd, arguments)
    finally:
        broker.close()


if __name__ == "__main__":
    main()
