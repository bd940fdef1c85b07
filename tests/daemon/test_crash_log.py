from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vajra_edge.daemon.crash_log import CrashLog

CODE = """
import os, signal, sys
from pathlib import Path
from vajra_edge.daemon.crash_log import CrashLog
log = CrashLog(Path(sys.argv[1]))
print(log.open(), flush=True)
if sys.argv[2] != "-":
    log.serving(sys.argv[2])
if sys.argv[3] == "clean":
    log.close()
else:
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


def live(path: Path, fingerprint: str, end: str) -> tuple[str, int]:
    """One process: what it found at its start, and how it ended."""
    ended = subprocess.run(
        [sys.executable, "-c", CODE, str(path), fingerprint, end],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return ended.stdout.strip(), ended.returncode


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_a_crash_is_charged_to_the_plan_that_served(tmp_path, name):
    path = tmp_path / "state" / "serving"
    assert live(path, "f" * 64, name) == ("None", -getattr(signal, name))
    found, code = live(path, "f" * 64, "clean")
    assert f"Crash(fingerprint='{'f' * 64}', reason='Fatal Python error:" in found
    assert code == 0
    assert live(path, "-", "clean") == ("None", 0)


@pytest.mark.parametrize(("fingerprint", "end"), [("f" * 64, "SIGKILL"), ("f" * 64, "clean"), ("-", "SIGSEGV")])
def test_kills_clean_ends_and_crashes_without_a_plan_are_charged_to_nobody(tmp_path, fingerprint, end):
    path = tmp_path / "serving"
    live(path, fingerprint, end)
    assert live(path, "-", "clean")[0] == "None"


def test_a_folder_that_cannot_be_written_costs_only_the_count(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    log = CrashLog(tmp_path / "file" / "serving")
    assert log.open() is None
    log.serving("f" * 64)
    log.close()
    assert "crashes are not counted" in caplog.text
