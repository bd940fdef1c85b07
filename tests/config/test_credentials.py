"""Credentials stay out of what people see, and are read from where the operator put them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.config.credentials import read_secret, redact
from vajra_edge.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@cam/1", "rtsp://admin:***@cam/1"),
        ("rtsp://:hunter2@cam/1", "rtsp://:***@cam/1"),
        ("rtsp://admin:hun/ter@2@cam:554/1", "rtsp://admin:***@cam:554/1"),
        ("from rtsp://a:hunter2@x/1 to http://b:hunter2@y", "from rtsp://a:***@x/1 to http://b:***@y"),
        ("http://cam/video?user=a&pwd=hunter2&fps=5", "http://cam/video?user=a&pwd=***&fps=5"),
        ("http://cam/video?Password=hunter2", "http://cam/video?Password=***"),
        ('rtspsrc location="rtsp://a:hunter2@h/1" ! x', 'rtspsrc location="rtsp://a:***@h/1" ! x'),
        ("rtspsrc user-id=admin user-pw=hunter2 ! x", "rtspsrc user-id=admin user-pw=*** ! x"),
        ('rtspsrc user-pw = "hun ter2" ! x', 'rtspsrc user-pw = "***" ! x'),
        ("rtspsrc user-pw='hun ter2' ! x", "rtspsrc user-pw='***' ! x"),
        ("srtsrc passphrase=hunter2 ! x", "srtsrc passphrase=*** ! x"),
    ],
)
def test_a_password_is_replaced_and_the_rest_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text", ["rtsp://cam:554/1", "rtsp://cam/1", "/dev/video0", "http://cam:8080/video?fps=5", "a: b@c"]
)
def test_text_without_a_password_is_unchanged(text: str) -> None:
    assert redact(text) == text


def test_the_file_wins_over_the_credentials_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "camera-gate").write_text("from:directory\n", encoding="utf-8")
    (tmp_path / "own").write_text("from:file\nsecond line\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret("camera-gate", tmp_path / "own") == "from:file"
    assert read_secret("camera-gate", None) == "from:directory"
    assert read_secret("camera-yard", None) is None


def test_no_secret_anywhere_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert read_secret("camera-gate", None) is None


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe"])
def test_a_secret_file_that_holds_none_names_the_file(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "own"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=str(file)):
        read_secret("camera-gate", file)
