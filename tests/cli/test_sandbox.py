from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vajra_edge.cli import sandbox

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "vajra-edge.service"


def test_what_a_process_may_do_is_taken_and_how_the_service_lives_is_not():
    taken = list(sandbox.properties(UNIT.read_text().splitlines()))
    for line in ("User=vajra-edge", "ProtectHome=yes", "NoNewPrivileges=yes", "SystemCallFilter=@system-service"):
        assert line in taken
    names = {line.partition("=")[0] for line in taken}
    assert names.isdisjoint({"Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "WatchdogSec", "KillMode"})
    assert names >= {"NoExecPaths", "ExecPaths", "InaccessiblePaths", "DeviceAllow", "MemoryMax", "SocketBindDeny"}


def test_the_running_daemons_folder_is_let_through_and_not_made_its_own():
    """systemd removes a RuntimeDirectory with the unit that names it."""
    assert list(sandbox.properties(["[Service]", "RuntimeDirectory=a b/c", "RuntimeDirectoryMode=0750"])) == [
        "ReadWritePaths=-/run/a",
        "ReadWritePaths=-/run/b/c",
    ]


def test_drop_ins_come_after_the_unit_and_other_sections_are_passed_over():
    unit = """# /etc/systemd/system/vajra-edge.service
[Unit]
Description=x
[Service]
; a remark
DeviceAllow=char-drm rw

# /etc/systemd/system/vajra-edge.service.d/override.conf
[Service]
DeviceAllow=
Environment = "A=b c" \\
  D=e
[Install]
WantedBy=multi-user.target"""
    assert list(sandbox.properties(unit.splitlines())) == [
        "DeviceAllow=char-drm rw",
        "DeviceAllow=",
        'Environment="A=b c"  D=e',
    ]


def test_anybody_but_root_looks_from_outside(monkeypatch):
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 1000)
    with pytest.raises(sandbox.Outside, match="only root can enter it"):
        sandbox.run(["doctor"])


def test_without_systemd_it_is_outside(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandbox, "RUNTIME", tmp_path / "absent")
    with pytest.raises(sandbox.Outside, match="systemd does not run here"):
        sandbox.run(["doctor"])


def test_a_command_that_says_nothing_is_outside_with_what_systemd_said(monkeypatch, tmp_path):
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'No files found for vajra-edge.service.' >&2; exit 1\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandbox, "RUNTIME", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(sandbox.Outside, match=r"systemctl: No files found for vajra-edge\.service\."):
        sandbox.run(["doctor"])


def test_it_runs_as_the_unit_says(monkeypatch, tmp_path):
    (tmp_path / "systemctl").write_text("#!/bin/sh\nprintf '[Service]\\nUser=somebody\\nRestart=always\\n'\n")
    (tmp_path / "systemd-run").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    for program in tmp_path.iterdir():
        program.chmod(0o755)
    monkeypatch.setattr(sandbox.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sandbox, "RUNTIME", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = sandbox.run(["doctor", "--inside"]).decode().splitlines()
    assert "--property=User=somebody" in told
    assert not any("Restart" in word for word in told)
    assert told[-4:] == ["-m", "vajra_edge", "doctor", "--inside"]
    assert subprocess.run([told[-6], *told[-5:-2], "--version"], capture_output=True, check=True).stdout
