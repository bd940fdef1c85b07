"""The login file: what of it is another one, and what a file system that hangs costs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from waiting import LIMIT_S, wait_for

from vajra_edge.capture.login_file import LoginFile
from vajra_edge.config.settings import CameraSettings


def of(file: Path | None) -> LoginFile:
    made = LoginFile(CameraSettings(id="gate", source="rtsp://192.0.2.1/", credentials_file=file))
    made.note()
    return made


def test_what_nobody_touched_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("u:p")
    assert not of(tmp_path / "login").is_other()
    assert not of(tmp_path / "missing").is_other()
    assert not of(None).is_other()


def test_a_file_that_is_written_replaced_made_or_removed_is_another(tmp_path: Path) -> None:
    file, other = tmp_path / "login", tmp_path / "other"
    watched = of(file)
    file.write_text("u:p")
    wait_for(watched.is_other)
    watched.note()
    wait_for(lambda: not watched.is_other())
    other.write_text("u:q")
    other.replace(file)
    wait_for(watched.is_other)
    watched.note()
    file.unlink()
    wait_for(watched.is_other)


def test_a_systemd_credential_is_looked_at_where_no_file_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    watched = of(None)
    (tmp_path / "camera-gate").write_text("u:p")
    wait_for(watched.is_other)


def test_a_disk_that_hangs_holds_up_one_thread_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, stat = threading.Event(), Path.stat
    watched = of(tmp_path / "login")
    monkeypatch.setattr(Path, "stat", lambda path, **how: hangs.wait(LIMIT_S) and stat(path, **how))
    try:
        assert not any(watched.is_other() for _ in range(3))
        assert len([one for one in threading.enumerate() if one.name == "login-file"]) == 1
    finally:
        hangs.set()
    (tmp_path / "login").mkdir()
    wait_for(watched.is_other)
