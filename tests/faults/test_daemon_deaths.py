"""The daemon as a process of its own, ended in every way: politely, by SIGKILL at any moment, and by crashes."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from station import ROOT, Station, build_children
from waiting import LIMIT_S, is_alive, wait_for

from vajra_edge.demo.broker import Broker
from vajra_edge.plans.history import History


@pytest.fixture(scope="module")
def broker() -> Iterator[int]:
    broker = Broker()
    try:
        yield broker.open()[1]
    finally:
        broker.close()


@pytest.fixture
def station(tmp_path: Path, broker: int) -> Iterator[Station]:
    station = Station(tmp_path, broker)
    try:
        yield station
    finally:
        station.stop()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, broker: int) -> Path:
    station = Station(tmp_path_factory.mktemp("built"), broker).spawn()
    station.serving()
    assert station.stop() == 0
    return station.state_dir


@pytest.fixture
def rebooted(station: Station, built: Path) -> Station:
    shutil.copytree(built, station.state_dir, symlinks=True)
    return station


def kill(station: Station, number: signal.Signals) -> None:
    assert station.process
    station.process.send_signal(number)
    assert station.process.wait(LIMIT_S) == -number
    station.process = None


def test_sigterm_stops_with_exit_code_0_and_sighup_reloads(rebooted):
    rebooted.spawn()
    rebooted.serving()
    assert rebooted.process
    rebooted.settings["service"]["poll_s"] = 60.0
    rebooted.write()
    rebooted.until(lambda _: "settings changed: service.poll_s" in rebooted.log)
    rebooted.write(detect={"confidence": 0.5})
    rebooted.process.send_signal(signal.SIGHUP)
    rebooted.until(lambda _: "settings changed: detect.confidence" in rebooted.log)
    started_s = time.monotonic()
    assert rebooted.stop() == 0
    assert time.monotonic() - started_s < 60, "it does not wait for the next look at the files"
    assert "Traceback" not in rebooted.log


def test_sigint_at_any_moment_of_the_start_ends_it_cleanly(station):
    station.spawn()
    station.process.send_signal(signal.SIGINT)
    assert station.process.wait(LIMIT_S) == 0
    station.process = None
    assert "Traceback" not in station.log


def test_what_ended_it_before_its_first_plan_is_told_by_the_next_start(station):
    station.spawn()
    station.until(lambda status: status["engine"]["building"])
    station.process.send_signal(signal.SIGABRT)
    assert station.process.wait(LIMIT_S) < 0
    station.spawn()
    station.serving()
    assert "its last traceback:\nFatal Python error: Aborted" in station.log
    assert station.status()["engine"]["failures"] == []


def test_invalid_settings_at_the_start_are_one_line_and_exit_code_78(station):
    station.write(detect={"confidence": 7})
    command = [sys.executable, "-m", "vajra_edge", "run", "--config", str(station.config)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 78
    (line,) = ended.stderr.splitlines()
    assert "detect.confidence = 7" in line


def test_a_child_dies_with_the_daemon_and_the_next_start_builds_to_the_end(station):
    station.spawn()
    pid = station.process.pid
    (child,) = wait_for(lambda: build_children(pid))
    kill(station, signal.SIGKILL)
    wait_for(lambda: not is_alive(child))
    station.spawn()
    assert station.serving()


def test_kill_at_any_moment_and_the_next_start_serves_the_stored_plan_without_a_build(rebooted):
    dice = random.Random(7)
    for round_ in range(4):
        rebooted.spawn()
        fingerprint = rebooted.serving()
        if round_ % 2:  # in the middle of a build beside
            rebooted.write_weights(tiny.network(gain=30.0 + round_))
            wait_for(lambda: build_children(rebooted.process.pid))
        time.sleep(dice.uniform(0.0, 0.5))
        kill(rebooted, signal.SIGKILL)
        rebooted.write_weights(tiny.network())
        rebooted.spawn()
        assert rebooted.serving() == fingerprint
        assert rebooted.status()["engine"]["building"] is None
        kill(rebooted, signal.SIGKILL)
    assert History(rebooted.state_dir).failures() == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"absent here: the right to mount ({mounted.stderr.decode().strip()})")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_disk_that_takes_no_plan_leaves_the_old_engine_serving(station, built, small_disk, kind):
    station.settings["store"]["state_dir"] = str(small_disk / "state")
    shutil.copytree(built, small_disk / "state", symlinks=True)
    if kind == "full":
        with (small_disk / "ballast").open("wb") as ballast:
            free_bytes = shutil.disk_usage(small_disk).free
            ballast.write(b"x" * (free_bytes - 8192))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    station.spawn()
    old = station.serving()
    station.write_weights(tiny.network(gain=30.0))
    status = station.until(lambda status: status["reason"])
    assert status["engine"]["serving"]["fingerprint"] == old
    assert status["phase"] == "serving"
    assert ("MB free" if kind == "full" else "Read-only file system") in status["reason"]
    assert "\n" not in status["reason"]
    assert station.stop() == 0
    assert "Traceback" not in station.log


def test_a_disk_that_becomes_read_only_while_it_serves_does_not_spoil_the_stop(station, built, small_disk):
    station.settings["store"]["state_dir"] = str(small_disk / "state")
    shutil.copytree(built, small_disk / "state", symlinks=True)
    station.spawn()
    station.serving()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=False)  # busy: files are open for writing
    subprocess.run(["mount", "-o", "remount,ro,bind", str(small_disk)], check=False)
    assert station.stop() == 0
    assert "Traceback" not in station.log
