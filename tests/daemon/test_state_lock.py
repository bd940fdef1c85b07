"""One daemon a state directory; everybody else goes on beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from station import ROOT, Station
from waiting import LIMIT_S

from vajra_edge.daemon.state_lock import StateLock, is_dying, is_held
from vajra_edge.errors import SettingsError, StoreError


def second(station: Station, folder: Path) -> subprocess.CompletedProcess[str]:
    """A daemon with the same state directory and a control socket of its own."""
    other = folder / "other.toml"
    other.write_text(station.config.read_text().replace("control.sock", "other.sock"))
    command = [sys.executable, "-m", "vajra_edge", "run", "--config", str(other)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT_S)


def test_the_second_daemon_ends_with_one_line_that_names_the_first_and_the_verbs_go_on(station, tmp_path):
    station.spawn()
    station.serving()
    ended = second(station, tmp_path)
    assert ended.returncode == 78
    (line,) = ended.stderr.splitlines()
    assert f"another daemon (pid {station.process.pid}) uses the state directory {station.state_dir}" in line
    assert "[store] state_dir" in line
    for verb in (["rebuild", "--dry-run"], ["status"], ["calibration"]):
        command = [sys.executable, "-m", "vajra_edge", *verb, "--config", str(station.config), "--json"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT_S)
        assert said.returncode == 0, (verb, said.stderr)
    assert station.status()["phase"] == "serving"
    station.process.send_signal(signal.SIGKILL)
    station.process.wait(LIMIT_S)
    station.spawn()
    assert station.serving(), "a lock dies with its holder"


def test_a_lock_is_given_back_by_close_and_may_be_taken_again(tmp_path: Path):
    first, other = StateLock(tmp_path / "state"), StateLock(tmp_path / "state")
    first.open()
    with pytest.raises(SettingsError, match=rf"pid {os.getpid()}\) uses the state directory"):
        other.open()
    first.close()
    first.close()
    other.open()
    other.close()


def test_a_holder_that_is_being_killed_is_worth_another_try(tmp_path: Path, monkeypatch):
    first, other = StateLock(tmp_path), StateLock(tmp_path)
    first.open()
    monkeypatch.setattr("vajra_edge.daemon.state_lock.is_dying", lambda pid: True)
    with pytest.raises(StoreError, match="is being killed") as raised:
        other.open()
    assert raised.value.exit_code == 1, "systemd tries again, which it would not after 78"
    first.close()


@pytest.mark.parametrize(("pending", "dying"), [("0000000000000100", True), ("0000000000000400", False)])
def test_a_process_is_dying_while_sigkill_waits_for_it(tmp_path: Path, pending: str, dying: bool):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(f"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t{pending}\n")
    assert is_dying(7, tmp_path) is dying
    assert is_dying(8, tmp_path)


def test_a_disk_that_takes_no_lock_file_does_not_keep_the_daemon_from_serving(tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    lock = StateLock(tmp_path / "file" / "state")
    lock.open()
    lock.close()
    assert "whether another daemon uses" in caplog.text


def test_others_see_whether_a_directory_is_held_and_leave_the_lock_alone(tmp_path: Path, monkeypatch):
    assert not is_held(tmp_path)
    with StateLock(tmp_path):
        assert is_held(tmp_path)
        monkeypatch.setattr("vajra_edge.daemon.state_lock.is_dying", lambda pid: True)
        assert not is_held(tmp_path), "its holder is being killed"
    assert not is_held(tmp_path)
    with StateLock(tmp_path):
        pass
