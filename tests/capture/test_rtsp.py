"""Two RTSP cameras against a real server that is killed, restarted, stopped and continued."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port
from system import rtsp_server
from typing_extensions import Self
from waiting import LIMIT_S

from vajra_edge.capture.camera import CameraChanged, Grabber
from vajra_edge.capture.children import Children
from vajra_edge.capture.reconnect import CameraPhase
from vajra_edge.config.settings import CameraSettings
from vajra_edge.inference.mailboxes import Mailboxes

pytestmark = pytest.mark.skipif(
    not rtsp_server.is_installed(), reason=f"absent here: apt-get install {' '.join(rtsp_server.PACKAGES)}"
)
SERVER = Path(rtsp_server.__file__)


class Server:
    """The server as a process that can be killed and started again on the same port."""

    def __init__(self, clip: Path) -> None:
        self.port, self.clip = free_port(), clip
        self.child: subprocess.Popen[str] | None = None

    def start(self, *more: str) -> None:
        command = [sys.executable, str(SERVER), "--port", str(self.port), "--clip", str(self.clip)]
        paths = ["--path", "/gate", "--path", "/yard", *more]
        here = {**os.environ, "TMPDIR": str(self.clip.parent)}  # where the server unpacks the clip
        self.child = subprocess.Popen([*command, *paths], stdout=subprocess.PIPE, text=True, env=here)
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n"

    def send(self, number: int) -> None:
        assert self.child is not None
        self.child.send_signal(number)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
            self.child = None


@pytest.fixture
def server(make_clip: Callable[..., Path]) -> Iterator[Server]:
    made = Server(make_clip(50, fps=25.0))
    yield made
    made.kill()


class Cameras:
    """Grabbers of the server's two cameras, and the phases each has gone through."""

    def __init__(self, port: int, **settings: object) -> None:
        self.mailboxes, self.children = Mailboxes(), Children()
        self.news: queue.SimpleQueue[CameraChanged] = queue.SimpleQueue()
        self.seen: dict[str, list[CameraChanged]] = {"gate": [], "yard": []}
        self.grabbers = [
            Grabber(
                CameraSettings.model_validate(
                    {
                        "id": name,
                        "source": f"rtsp://127.0.0.1:{port}/{name}",
                        "stall_s": 1.5,
                        "open_timeout_s": 8.0,
                        "backoff_max_s": 1.0,
                        **settings,
                    }
                ),
                self.mailboxes,
                self.news.put,
                lambda: None,
                self.children,
            )
            for name in self.seen
        ]

    def wait_until(self, phase: CameraPhase) -> None:
        """Until both cameras came to ``phase``; they need not be there at the same time."""
        reached = {name for name, told in self.seen.items() if told and told[-1].phase is phase}
        while reached != set(self.seen):
            news = self.news.get(timeout=LIMIT_S)
            self.seen[news.camera].append(news)
            if news.phase is phase:
                reached.add(news.camera)

    def wait_until_told(self, text: str) -> None:
        """Until each camera gave this reason once."""
        while not all(any(text in item.reason for item in told) for told in self.seen.values()):
            news = self.news.get(timeout=LIMIT_S)
            self.seen[news.camera].append(news)

    def losses(self, camera: str) -> list[str]:
        """Why it was lost, each time."""
        return [news.reason for news in self.seen[camera] if news.phase is CameraPhase.BACKOFF]

    def stream(self, count: int) -> None:
        """Until each camera gave so many frames more."""
        left = dict.fromkeys(self.seen, count)
        while any(more > 0 for more in left.values()):
            frames = self.mailboxes.take(2, LIMIT_S)
            assert frames, f"{left} frames did not come"
            for frame in frames:
                left[frame.camera] -= 1

    def frames(self, seconds: float) -> dict[str, int]:
        counts, until_s = {"gate": 0, "yard": 0}, time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0.0:
            for frame in self.mailboxes.take(2, left_s):
                counts[frame.camera] += 1
        return counts

    def phases(self, camera: str) -> list[str]:
        """The phases without the attempts in between."""
        return [
            news.phase.value for news in self.seen[camera] if news.phase in (CameraPhase.STREAMING, CameraPhase.BACKOFF)
        ]

    def __enter__(self) -> Self:
        for grabber in self.grabbers:
            grabber.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mailboxes.close()
        ended = [grabber.stop(LIMIT_S) for grabber in self.grabbers]
        self.children.close()
        assert all(ended)


def test_a_killed_server_is_two_lost_cameras_and_its_return_brings_both_back(server: Server) -> None:
    server.start()
    with Cameras(server.port, stall_s=60.0) as cameras:
        for _ in range(2):
            cameras.wait_until(CameraPhase.STREAMING)
            cameras.stream(10)
            server.kill()
            cameras.wait_until(CameraPhase.BACKOFF)
            assert cameras.frames(1.0) == {"gate": 0, "yard": 0}, "a lost camera gave a frame"
            cameras.wait_until_told("has nothing that listens at this port")
            server.start()
        cameras.wait_until(CameraPhase.STREAMING)
        for camera, news in cameras.seen.items():
            phases = cameras.phases(camera)
            assert phases[0] == phases[-1] == "streaming"
            assert phases.count("streaming") == 3
            assert all(item.reason == "" for item in news if item.phase is CameraPhase.STREAMING)


def test_a_server_that_hangs_is_noticed_by_the_clock(server: Server) -> None:
    server.start()
    with Cameras(server.port) as cameras:
        cameras.wait_until(CameraPhase.STREAMING)
        cameras.stream(5)
        server.send(signal.SIGSTOP)
        cameras.wait_until(CameraPhase.BACKOFF)
        # One may be on to its next attempt when the other is lost; on a busy machine the last packets are too few.
        told = re.compile(r"no new frame for|nothing that can be decoded for")
        for camera in cameras.seen:
            assert any(map(told.search, cameras.losses(camera)))
        server.send(signal.SIGCONT)
        cameras.wait_until(CameraPhase.STREAMING)


def test_credentials_with_awkward_characters_open_a_protected_camera(server: Server, tmp_path: Path) -> None:
    server.start("--credentials", "ad@min:p/w:#1")
    (tmp_path / "own").write_text("ad@min:p/w:#1\n", encoding="utf-8")
    with Cameras(server.port, credentials_file=tmp_path / "own") as cameras:
        cameras.wait_until(CameraPhase.STREAMING)
        cameras.stream(1)


def test_a_refused_password_is_said_and_not_shown(server: Server, tmp_path: Path) -> None:
    server.start("--credentials", "admin:right")
    (tmp_path / "own").write_text("admin:hunter2\n", encoding="utf-8")
    with Cameras(server.port, credentials_file=tmp_path / "own") as cameras:
        cameras.wait_until(CameraPhase.BACKOFF)
        for camera, news in cameras.seen.items():
            assert "refuses user and password (401); check user and password" in cameras.losses(camera)[-1]
            assert not any("hunter2" in item.reason for item in news)
