"""A stand-in of systemd around a whole daemon: it restarts what died, and aborts what does not feed its watchdog."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from station import ROOT, Ears, Station
from waiting import LIMIT_S, wait_for

CRASHING = Path(__file__).parent / "crashing.py"
RESTART_S = 2.0


@dataclass
class Ended:
    """One process that is no more."""

    code: int
    at_s: float = field(default_factory=time.monotonic)


class Supervised:
    """As the unit has it: Restart=on-failure, RestartSec=2, WatchdogSec, SIGABRT.

    Args:
        station: the daemon's files.
        fault: of ``crashing.py``; empty: none.
        watchdog_s: patience; None: no watchdog.
    """

    def __init__(self, station: Station, fault: str = "", watchdog_s: float | None = None) -> None:
        self.station, self.fault, self.watchdog_s = station, fault, watchdog_s
        self.ended: list[Ended] = []
        self.longest_gap_s = 0.0  # between two signs of life
        self.process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._notify = station.folder / "notify"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Supervised:
        self.station.write()
        self._thread.start()
        return self

    def stop(self) -> int | None:
        """As ``systemctl stop``; the exit code."""
        self._stopping.set()
        process = self.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LIMIT_S)
            if process.poll() is None:
                process.kill()
        self._thread.join(LIMIT_S)
        return self.ended[-1].code if self.ended else None

    def until(self, condition: Callable[[dict], object], limit_s: float = LIMIT_S) -> dict:
        """The first status of whichever process for which ``condition`` holds."""
        found: dict = {}

        def look() -> bool:
            with contextlib.suppress(Exception):
                found.clear()
                found.update(self.station.status())
                return bool(condition(found))
            return False

        wait_for(look, limit_s=limit_s, step_s=0.2)
        return found

    def _run(self) -> None:
        while not self._stopping.is_set():
            code = self._live()
            self.ended.append(Ended(code))
            if code in (0, 78):
                return
            self._stopping.wait(RESTART_S)

    def _live(self) -> int:
        self._notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(self._notify))
            sock.settimeout(0.2)
            fault = [str(CRASHING), self.fault] if self.fault else ["-m", "vajra_edge"]
            environ = {**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(self._notify)}
            if self.watchdog_s:
                environ["WATCHDOG_USEC"] = str(int(self.watchdog_s * 1e6))
            command = [sys.executable, *fault, "run", "--config", str(self.station.config)]
            with (self.station.folder / "daemon.log").open("ab") as log:
                process = subprocess.Popen(command, stderr=log, stdout=log, env=environ, cwd=ROOT)
            self.process = process
            return self._watch(process, sock)

    def _watch(self, process: subprocess.Popen[bytes], sock: socket.socket) -> int:
        fed_s, ready = time.monotonic(), False
        while process.poll() is None:
            with contextlib.suppress(TimeoutError):
                told = sock.recv(4096)
                ready = ready or b"READY=1" in told
                if b"WATCHDOG=1" in told or b"READY=1" in told:
                    now_s = time.monotonic()
                    self.longest_gap_s = max(self.longest_gap_s, now_s - fed_s if b"WATCHDOG=1" in told else 0.0)
                    fed_s = now_s
            if ready and self.watchdog_s and time.monotonic() - fed_s > self.watchdog_s:
                process.send_signal(signal.SIGABRT)
                process.send_signal(signal.SIGCONT)
                fed_s = time.monotonic()
        return process.returncode


def gap_s(ears: Ears, since_s: float, camera: str = "") -> float:
    """The longest time without a detection message since then, up to now; of one camera, or of any."""
    end = f"{camera}/detections"
    times = [at_s for path, _, at_s in ears.all() if path.endswith(end) and at_s >= since_s]
    edges = [since_s, *times, time.monotonic()]
    return max(later - earlier for earlier, later in itertools.pairwise(edges))
