from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from odd_files import ODD_FILES, put

from vajra_edge.clock import Moment
from vajra_edge.daemon.crash_log import MARKER_BYTES, CrashLog, Marker

F = "f" * 64

CODE = """
import os, signal, sys
from pathlib import Path
from vajra_edge.daemon.crash_log import CrashLog
log = CrashLog(Path(sys.argv[1]))
log.open()
log.loading("f" * 64)
log.late(("camera gate", "mqtt"))
if sys.argv[2] == "clean":
    log.close()
else:
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


def live(path: Path, end: str) -> int:
    command = [sys.executable, "-c", CODE, str(path), end]
    return subprocess.run(command, check=False, cwd=Path(__file__).parents[2], capture_output=True).returncode


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_the_next_process_knows_what_the_last_one_was_at_and_its_traceback(tmp_path: Path, name: str):
    path = tmp_path / "state" / "running"
    assert live(path, name) == -getattr(signal, name)
    log = CrashLog(path)
    left = log.open()
    log.close()
    assert left is not None
    assert (left.marker.loading, left.marker.serving, left.marker.late) == (F, None, ("camera gate", "mqtt"))
    assert left.marker.at.boot == left.now.boot
    assert not left.marker.ended
    assert left.dump.startswith("Fatal Python error: ")
    again = CrashLog(path)
    second = again.open()
    again.close()
    assert second is not None
    assert (second.marker.ended, second.dump) == (True, ""), "a crash is told once"


def test_a_kill_leaves_the_marker_and_no_traceback_and_a_clean_end_says_so(tmp_path: Path):
    live(tmp_path / "running", "SIGKILL")
    log = CrashLog(tmp_path / "running")
    left = log.open()
    log.close()
    assert left is not None
    assert (left.marker.loading, left.marker.ended, left.dump) == (F, False, "")
    live(tmp_path / "running", "clean")
    after = CrashLog(tmp_path / "running")
    last = after.open()
    after.close()
    assert last is not None
    assert last.marker.ended


def test_a_phase_is_one_small_write_and_the_same_phase_again_none(tmp_path: Path, monkeypatch):
    log = CrashLog(tmp_path / "running")
    log.open()
    written = []
    write = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda file, content, at: written.append(len(content)) or write(file, content, at)
    )
    for _ in range(3):
        log.serving(F)
        log.late(())
        log.loaded()
    assert written == [MARKER_BYTES]
    log.close()


INFINITE = b'{"at":{"boot":"x","boot_s":1,"unix_s":1,"synchronised":true},"pid":1e999,"serving":null,"loading":null,'
INFINITE += b'"late":[],"killed":null,"ended":false}'
FOREIGN = [b"", b"{}", b"\xff" * 3000, b"f" * 64 + b"\n", json.dumps([1]).encode(), b"[" * 3000, INFINITE]
FOREIGN += [INFINITE.replace(b"1e999", b"1").replace(b"null", b'"\\ud800"', 1)]


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_something_else_tells_nothing(tmp_path: Path, content: bytes):
    (tmp_path / "running").write_bytes(content)
    log = CrashLog(tmp_path / "running")
    assert log.open() is None
    log.close()


@pytest.mark.parametrize("form", sorted(set(ODD_FILES) - {"a TiB of nothing"}))
@pytest.mark.parametrize("name", ["running", "running.held"])
def test_what_is_no_file_is_put_aside_and_the_next_death_is_known(tmp_path: Path, name: str, form: str):
    put(form, tmp_path / name)
    live(tmp_path / "running", "SIGSEGV")
    log = CrashLog(tmp_path / "running")
    left = log.open()
    log.close()
    assert left is not None
    assert left.dump.startswith("Fatal Python error: ")
    assert os.path.lexists(tmp_path / f"{name}.damaged")


def test_any_number_of_late_loops_fits(tmp_path: Path):
    marker = Marker(Moment("b", 1.0, 2.0, synchronised=True), 3, F, F, tuple(f"camera {n}" for n in range(500)), 7)
    content = marker.to_bytes()
    assert len(content) == MARKER_BYTES
    again = Marker.from_bytes(content)
    assert again is not None
    assert again.late[:2] == ("camera 0", "camera 1")


def test_a_folder_that_cannot_be_written_costs_only_what_would_have_been_known(tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    log = CrashLog(tmp_path / "file" / "running")
    assert log.open() is None
    log.serving(F)
    log.close()
    assert "how this process ends will not be known" in caplog.text


def test_a_disk_that_became_read_only_does_not_stop_the_stop(tmp_path: Path, monkeypatch):
    log = CrashLog(tmp_path / "running")
    log.open()

    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "pwrite", refuse)
    log.serving(F)
    log.close()
    log.close()
