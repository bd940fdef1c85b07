"""Cameras of a whole daemon: one that hangs or dies costs itself alone, and nothing of any is left after the daemon."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from stuck_disk import StuckDisk, is_possible
from waiting import LIMIT_S, is_alive, wait_for

from vajra_edge.cli.status import _rows


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a camera that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/1"


def camera_of(status, name):
    return next(camera for camera in status["cameras"] if camera["id"] == name)


def streams(status, name="gate"):
    return camera_of(status, name)["state"] == "streaming"


def test_a_camera_whose_decoder_is_killed_is_back_and_the_others_never_left(rebooted):
    rebooted.camera("yard")
    rebooted.start()
    rebooted.serving()
    status = rebooted.until(lambda status: streams(status) and streams(status, "yard"))
    gate, yard = camera_of(status, "gate"), camera_of(status, "yard")
    assert gate["pid"] != yard["pid"]
    assert gate["resolution_wh"] == [256, 256]
    os.kill(gate["pid"], signal.SIGSEGV)
    status = rebooted.until(lambda status: camera_of(status, "gate")["starts"] == 2 and streams(status))
    assert camera_of(status, "gate")["losses"] == 1
    assert (camera_of(status, "yard")["losses"], camera_of(status, "yard")["pid"]) == (0, yard["pid"])
    assert status["late"] == status["stuck"] == []


def test_a_camera_that_says_nothing_takes_no_frame_from_the_others(rebooted, silent):
    for number in range(4):
        rebooted.settings["cameras"][f"dead{number}"] = {"source": silent, "open_timeout_s": 1.0, "backoff_max_s": 1.0}
    rebooted.start()
    rebooted.serving()
    rebooted.until(lambda status: all(camera_of(status, f"dead{number}")["losses"] for number in range(4)))
    status = rebooted.status()
    assert streams(status)
    assert camera_of(status, "gate")["losses"] == 0
    assert status["late"] == []


def test_a_daemon_that_is_killed_takes_its_cameras_along(rebooted, silent):
    rebooted.settings["cameras"]["dead"] = {"source": silent}
    rebooted.spawn()
    status = rebooted.until(lambda status: streams(status) and camera_of(status, "dead")["pid"])
    pids = [camera["pid"] for camera in status["cameras"]]
    rebooted.process.kill()
    rebooted.process.wait(LIMIT_S)
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid))


def test_a_stop_waits_for_no_camera_that_hangs(rebooted, silent):
    rebooted.settings["cameras"]["dead"] = {"source": silent, "open_timeout_s": 600.0}
    rebooted.spawn()
    status = rebooted.until(lambda status: streams(status) and camera_of(status, "dead")["pid"])
    pids = [camera["pid"] for camera in status["cameras"]]
    os.kill(camera_of(status, "gate")["pid"], signal.SIGSTOP)
    began_s = time.monotonic()
    assert rebooted.stop() == 0
    assert time.monotonic() - began_s < LIMIT_S
    for pid in pids:
        wait_for(lambda pid=pid: not is_alive(pid))


@pytest.mark.long("mounts a file system, as root")
def test_a_clip_on_a_disk_that_hangs_is_named_and_costs_itself(rebooted):
    if not is_possible():
        pytest.skip("absent here: root and /dev/fuse")
    disk = StuckDisk(rebooted.folder / "nfs")
    source = str(rebooted.folder / "nfs" / "clip.mp4")
    rebooted.settings["cameras"]["nfs"] = {"source": source, "open_timeout_s": 0.5, "backoff_max_s": 1.0}
    with ExitStack() as stack:
        disk.open()
        stack.callback(disk.close)
        rebooted.start()
        rebooted.serving()
        status = rebooted.until(lambda status: status["stuck"])
        (stuck,) = status["stuck"]
        assert stuck["camera"] == "nfs"
        assert (
            "stuck",
            f"[red]process {stuck['pid']} of camera nfs cannot be ended[/]: a hung disk or driver holds it",
        ) in (list(_rows(status)))
        named = rebooted.until(lambda status: f"process {stuck['pid']} cannot" in camera_of(status, "nfs")["reason"])
        assert camera_of(named, "nfs")["starts"] == 1
        assert streams(named)
        assert named["late"] == []
        assert rebooted.stop() == 0
    wait_for(lambda: not is_alive(stuck["pid"]))
