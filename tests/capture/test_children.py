"""Processes of cameras: what they may do and know, how they end, and what is left of them: nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import acted
import pytest
from clips import write_clip
from little_servers import answering, head_of, http, listening
from stuck_disk import StuckDisk, is_possible
from waiting import LIMIT_S, is_alive, wait_for

from vajra_edge.capture import limits, protocol
from vajra_edge.capture.children import Arrived, Child, Children, how_it_ended
from vajra_edge.capture.protocol import CameraOpened, Exited, FromChild, Hello
from vajra_edge.capture.ring import SLOTS
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.pixel_format import USUAL, PixelFormat

HOLD = ["nap", 600]


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children(acted.COMMAND)
    yield made
    made.close()


def camera(folder: Path, *lines: object, name: str = "gate", **settings: object) -> CameraSettings:
    source = acted.script(folder / f"{name}.json", list(lines))
    return CameraSettings.model_validate({"id": name, "source": source, **settings})


def heard(child: Child, kind: type) -> FromChild | Arrived:
    """The next message of this kind."""
    while not isinstance(message := child.receive(LIMIT_S), kind):
        assert child.exited is None, child.exited
    return message


def started(children: Children, settings: CameraSettings) -> tuple[Child, int]:
    child = children.start(settings)
    hello = heard(child, Hello)
    assert isinstance(hello, Hello)
    return child, hello.pid


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def below(pid: int) -> list[int]:
    """Children of a process that live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            try:
                if status_of(int(entry.name))["PPid"] == str(pid):
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    return found


def links_of(pid: int) -> set[str]:
    """What a process has open."""
    links = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            links.add(str(one.readlink()))
    return links


def test_a_process_is_confined(children: Children, tmp_path: Path) -> None:
    child, pid = started(children, camera(tmp_path, 1, HOLD))
    heard(child, Arrived)
    seen = status_of(pid)
    assert seen["NoNewPrivs"] == "1"
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"
    assert os.getpriority(os.PRIO_PROCESS, pid) - os.getpriority(os.PRIO_PROCESS, 0) == limits.NICENESS
    assert os.getpgid(pid) == os.getsid(pid) == pid
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.OPEN_FILES),
        (resource.RLIMIT_DATA, limits.DATA_BYTES),
    ):
        assert resource.prlimit(pid, what) == (most, most)
    assert resource.prlimit(pid, resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert 0 < limits.memory_bytes(pid) < 200 * 1024**2


def test_a_pipeline_of_the_jetson_may_map_what_it_does_not_use(children: Children, tmp_path: Path) -> None:
    settings = CameraSettings(id="gate", source="gst:nvarguscamerasrc ! appsink")
    child = children.start(settings)
    heard(child, protocol.CameraFailed)
    script = acted.script(tmp_path / "a.json", [HOLD])
    confined = subprocess.run(
        [sys.executable, "-c", _CONFINED.format(kind="GSTREAMER")], capture_output=True, text=True, check=True
    )
    assert script
    assert confined.stdout.split() == [str(resource.RLIM_INFINITY)]


_CONFINED = """
import resource
from vajra_edge.capture import limits
from vajra_edge.capture.url import Kind
limits.confine(Kind.{kind})
print(resource.getrlimit(resource.RLIMIT_DATA)[0])
"""


def test_passwords_reach_a_process_by_its_channel_alone(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAJRA_MQTT__PASSWORD_FILE", "/hunter2")
    monkeypatch.setenv("NOTIFY_SOCKET", "/hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("TZ", "Europe/Berlin")
    settings = camera(tmp_path, 1, HOLD)
    source = f"rtsp://user:hunter2@acted{settings.source.removeprefix(acted.LIVE)}"
    child, pid = started(children, settings.model_copy(update={"source": source}))
    assert children._server is not None
    for one in (pid, children._server[0].pid):
        for place in ("cmdline", "environ"):
            assert b"hunter2" not in Path(f"/proc/{one}/{place}").read_bytes()
    assert b"TZ=Europe/Berlin" in Path(f"/proc/{pid}/environ").read_bytes()
    child.kill()


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_asked_for_no_camera(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[str] = []
    clip = write_clip(tmp_path / "clip.ts", 30, options={"g": "10"}).read_bytes()

    def refuse(connection: socket.socket) -> None:
        asked.append(head_of(connection))
        connection.sendall(http(b"", "text/html", "403 Forbidden"))

    with listening(refuse) as proxy, listening(answering(http(clip, "video/mp2t"))) as port:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        child = children.start(CameraSettings(id="gate", source=f"http://127.0.0.1:{port}/live"))
        heard(child, Arrived)
        child.kill()
    assert asked == []


def test_a_process_holds_nothing_of_its_siblings_or_parents(children: Children, tmp_path: Path) -> None:
    _, first = started(children, camera(tmp_path, HOLD, name="first"))
    _, second = started(children, camera(tmp_path, HOLD, name="second"))

    def sockets(pid: int) -> set[str]:
        return {link for link in links_of(pid) if link.startswith("socket:")}

    assert len(sockets(first)) == len(sockets(second)) == 1
    assert not sockets(first) & sockets(second)
    wait_for(lambda: len(list(Path(f"/proc/{second}/fd").iterdir())) <= 6)


def test_a_process_that_is_told_to_closes_its_source_and_ends_in_order(children: Children, tmp_path: Path) -> None:
    child, pid = started(children, camera(tmp_path, ["paint", 64, 48, None, 100.0]))
    heard(child, CameraOpened)
    child.leave()
    assert child.wait(LIMIT_S)
    assert child.exited == Exited(0, "")
    assert (tmp_path / "gate.closed").exists()
    assert not is_alive(pid)
    assert children.before("gate") is None


def test_the_fork_server_has_one_thread_and_holds_nothing_of_a_camera(tmp_path: Path) -> None:
    """A fork copies one thread alone: the locks that others held would stay locked for ever."""
    children = Children()
    (tmp_path / "empty").mkdir()
    child = children.start(CameraSettings(id="gate", source=str(tmp_path / "empty")))
    heard(child, protocol.CameraFailed)
    assert child.wait(LIMIT_S)
    assert children._server is not None
    server = children._server[0].pid
    assert status_of(server)["Threads"] == "1"
    assert "cv2" in Path(f"/proc/{server}/maps").read_text()
    wait_for(lambda: not [one for one in links_of(server) if "memfd" in one])
    children.close()


def test_no_zombie_is_left(children: Children, tmp_path: Path) -> None:
    assert children.start(camera(tmp_path, ["exit", 0], name="first")).wait(LIMIT_S)
    server = children._server
    assert server is not None
    for number in range(5):
        assert children.start(camera(tmp_path, ["signal", "SEGV"], name=f"c{number}")).wait(LIMIT_S)
    entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    zombies = [one for one in entries if (one / "stat").exists() and _parent(one) == server[0].pid]
    assert zombies == []


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_what_a_process_started_itself_ends_with_it(children: Children, tmp_path: Path) -> None:
    child, pid = started(children, camera(tmp_path, ["spawn", "600"]))
    (grandchild,) = wait_for(lambda: below(pid))
    child.kill()
    assert child.wait(LIMIT_S)
    wait_for(lambda: not is_alive(grandchild))


def test_a_stopped_process_is_killed(children: Children, tmp_path: Path) -> None:
    child, pid = started(children, camera(tmp_path, ["signal", "STOP"]))
    wait_for(lambda: status_of(pid)["State"].startswith("T"))
    assert children.end(child, 0.1, lambda: None) or child.wait(LIMIT_S)
    assert not is_alive(pid)


_PARENT = """
import sys, time
sys.path.insert(0, {tests!r})
import acted
from pathlib import Path
from vajra_edge.capture.children import Arrived, Children
from vajra_edge.config.settings import CameraSettings
children = Children(acted.COMMAND)
source = acted.script(Path({folder!r}) / "a.json", {lines!r})
child = children.start(CameraSettings(id="gate", source=source))
while not isinstance(child.receive(60.0), Arrived):
    pass
print(child.pid, children._server[0].pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("lines", [[["paint", 64, 48, None, 50.0]], [1, HOLD], [1, ["signal", "STOP"]]])
def test_a_parent_that_is_killed_takes_everything_along(tmp_path: Path, lines: list[object]) -> None:
    code = _PARENT.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path), lines=lines)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(one) for one in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.send_signal(signal.SIGKILL)
        parent.wait(LIMIT_S)
        for pid in pids:
            wait_for(lambda pid=pid: not is_alive(pid))


def test_a_fork_server_that_hangs_is_replaced(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vajra_edge.capture.children.SERVER_S", 0.5)
    monkeypatch.setattr("vajra_edge.capture.children.KILLED_S", 0.6)
    child, pid = started(children, camera(tmp_path, HOLD))
    assert children._server is not None
    hung = children._server[0]
    hung.send_signal(signal.SIGSTOP)
    assert children.end(child, 0.1, lambda: None) or child.wait(LIMIT_S)
    wait_for(lambda: not is_alive(pid))
    _, again = started(children, camera(tmp_path, HOLD))
    assert children._server[0].pid != hung.pid
    assert is_alive(again)


def test_closing_ends_every_process_at_once(tmp_path: Path) -> None:
    children = Children(acted.COMMAND)
    pids = [started(children, camera(tmp_path, HOLD, name=f"c{number}"))[1] for number in range(3)]
    assert children._server is not None
    pids.append(children._server[0].pid)
    began_s = time.monotonic()
    children.close()
    children.close()
    assert time.monotonic() - began_s < LIMIT_S, "nobody waits for their 600 s"
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid))
    with pytest.raises(SourceError, match="being ended"):
        children.start(camera(tmp_path, HOLD))


def test_a_fork_server_that_cannot_be_started_is_a_reason(tmp_path: Path) -> None:
    children = Children(("/nonexistent/python",))
    with pytest.raises(SourceError, match="no process can be started"):
        children.start(camera(tmp_path, HOLD))
    children.close()


def test_a_fork_server_that_dies_at_once_is_a_reason(tmp_path: Path) -> None:
    children = Children((sys.executable, "-c", "raise SystemExit(1)"))
    try:
        told = children.start(camera(tmp_path, HOLD)).wait(LIMIT_S)
    except SourceError as error:  # it was gone before it could be asked
        told = "no process can be started for camera gate" in error.message
    assert told
    children.close()


def test_a_process_that_says_what_makes_no_sense_is_not_believed() -> None:
    ours, theirs = protocol.pair()
    child = Child(1, ours, lambda _: None)
    with theirs:
        picture = protocol.FilledSlot(0, 0, 1, 9, 9, 0, 0, False, 0, 0, PixelFormat.BGR, USUAL, None)
        for datagram in (b"nonsense", protocol.encode(picture)):
            theirs.send(datagram)
            with pytest.raises(protocol.BrokenProtocol):
                child.receive(LIMIT_S)
        protocol.send(theirs, protocol.Slots(0, 4096))
        with pytest.raises(protocol.BrokenProtocol):
            child.receive(LIMIT_S)
    assert child.wait(LIMIT_S)


def test_who_lets_go_of_an_image_never_waits_for_a_lock(children: Children, tmp_path: Path) -> None:
    child, _ = started(children, camera(tmp_path, *range(20), HOLD))
    held = []
    while len(held) < SLOTS:
        arrived = heard(child, Arrived)
        assert isinstance(arrived, Arrived)
        held.append(arrived)
    del arrived
    locked, free = threading.Event(), threading.Event()

    def hold() -> None:
        with child._closing:
            locked.set()
            free.wait(LIMIT_S)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(LIMIT_S)
    held.clear()
    assert len(child._returned) == SLOTS
    free.set()
    holder.join(LIMIT_S)
    child.receive(0.0)
    assert not child._returned


@pytest.mark.parametrize(
    ("exited", "text"),
    [
        (Exited(-11, ""), "the decoder crashed (SIGSEGV)"),
        (Exited(-9, ""), "the decoder was killed (SIGKILL)"),
        (Exited(-63, ""), "the decoder crashed (signal 63)"),
        (Exited(-999, ""), "the decoder crashed (signal 999)"),
        (Exited(0, ""), "the decoder ended with exit code 0"),
        (
            Exited(-6, "double free or corruption\n\nFatal Python error: Aborted\n\nCurrent thread\n"),
            "the decoder crashed (SIGABRT): double free or corruption",
        ),
        (
            Exited(-6, "Fatal Python error: Aborted\n\nCurrent thread\n"),
            "the decoder crashed (SIGABRT): Fatal Python error: Aborted",
        ),
        (Exited(1, "rtsp://a:hunter2@b"), "the decoder ended with exit code 1: rtsp://b"),
    ],
)
def test_an_end_in_the_users_words(exited: Exited, text: str) -> None:
    assert how_it_ended(exited, "rtsp://a:hunter2@b/main", has_secret=False) == text


def test_a_librarys_last_line_is_not_told_of_a_camera_whose_password_only_its_process_knew() -> None:
    exited = Exited(-6, "login admin hunter2 failed\nFatal Python error: Aborted\n")
    told = how_it_ended(exited, "rtsp://b/main", has_secret=True)
    assert told == "the decoder crashed (SIGABRT): Fatal Python error: Aborted"


def test_who_asks_for_stuck_processes_does_not_disturb_who_waits_for_one(children: Children, tmp_path: Path) -> None:
    child, _ = started(children, camera(tmp_path, HOLD))
    child.killed_s = time.monotonic() - 60.0
    waits = threading.Thread(target=child.wait, args=(LIMIT_S,))
    waits.start()
    for _ in range(200):
        assert set(children.stuck()) == {"gate"}
    child.kill()
    waits.join(LIMIT_S)
    assert not waits.is_alive()
    assert children.stuck() == {}


@pytest.mark.long("mounts a file system, as root")
def test_a_process_that_cannot_be_killed_is_left_behind_and_named(tmp_path: Path) -> None:
    if not is_possible():
        pytest.skip("absent here: root and /dev/fuse")
    disk, children = StuckDisk(tmp_path / "nfs"), Children(acted.COMMAND)
    disk.open()
    try:
        settings = CameraSettings(id="gate", source=str(tmp_path / "nfs" / "clip.mp4"))
        child, pid = started(children, settings)
        wait_for(lambda: disk.asked)
        assert not children.end(child, 0.1, lambda: None)
        wait_for(lambda: children.stuck() == {"gate": pid})
        assert status_of(pid)["State"].startswith("D")
        assert children.before("gate") is child
        began_s = time.monotonic()
        children.close()
        assert time.monotonic() - began_s < LIMIT_S, "nobody waits for it"
    finally:
        disk.close()
    wait_for(lambda: not is_alive(pid))
