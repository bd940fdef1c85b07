"""Credentials are read from where the operator put them, as they stand, and never quoted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vajra_edge.config.address import conceal, shortened, shown
from vajra_edge.config.credentials import read_secret
from vajra_edge.errors import SettingsError


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


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"u:hunter2", "u:hunter2"),
        (b"u:hunter2\n", "u:hunter2"),
        (b"u:hunter2\r\n", "u:hunter2"),
        (b"\xef\xbb\xbfu:hunter2\r\n", "u:hunter2"),
        (b"\n  u:hunter2 \t\n\n", "u:hunter2"),
        (b"u:p%40ss%23\n", "u:p%40ss%23"),
        (b"u:{a}=b$1$//\n", "u:{a}=b$1$//"),
        (b"$1$PASS=x\n", "$1$PASS=x"),
        ("u:ä€漢:@/#?%&'\"\\ x\n".encode(), "u:ä€漢:@/#?%&'\"\\ x"),
    ],
)
def test_what_editors_add_is_left_out_and_the_rest_stays_as_it_stands(
    tmp_path: Path, content: bytes, secret: str
) -> None:
    (tmp_path / "own").write_bytes(content)
    assert read_secret("camera-gate", tmp_path / "own") == secret


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b"  \r\n\t\n", "is empty"),
        ("u:hunter2\n".encode("utf-16"), "UTF-16"),
        ("u:hünter2\n".encode("latin-1"), "line 1 holds a letter in another encoding"),
        (b"u:hunter2\0\n", "NUL byte in line 1"),
        (b"\0" * 12, "12 NUL bytes"),
        (b"u:hun\x1bter2\n", "invisible character"),
        (b"me:$7$101$hunter2==$hunter2==", "hash of a password; write the secret itself"),
        (b"me:$apr1$hunter2$hunter2", "hash of a password"),
        (b"me:$2y$05$hunter2$", "hash of a password"),
        (b"-----BEGIN PRIVATE KEY-----\nhunter2\n", "a key or a certificate; .* belongs into key_file"),
        (b"MQTT_PASSWORD=hunter2\n", "holds a variable"),
        (b"PASSWORD=hunter2\n", "holds a variable"),
        (b"export CAM_USER=hunter2\n", "holds a variable"),
        (b"rtsp://me:hunter2@10.0.0.5/1\n", "holds an address"),
        (b'{"user": "me", "password": "hunter2"}', "holds JSON"),
        (b"hunter2" * 20_000, "larger than 64 KiB"),
    ],
)
def test_a_secret_file_that_holds_none_names_the_file_and_why_and_quotes_nothing(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "own"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        read_secret("camera-gate", file)
    assert str(file) in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_a_folder_a_pipe_and_an_endless_device_are_told_and_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "pipe or device"),
        (Path("/dev/zero"), "pipe or device"),
    ):
        with pytest.raises(SettingsError, match=said):
            read_secret("mqtt-password", path)


def test_a_credential_that_may_not_be_read_is_said_and_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mqtt-password").symlink_to(tmp_path / "gone")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(SettingsError, match="mqtt-password cannot be read"):
        read_secret("mqtt-password", None)


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://admin:hunter2@10.0.0.5/s",
        "rtsp://admin:hun ter2@10.0.0.5/s",
        "rtsp://admin:hun'ter2@10.0.0.5/s",
        'rtsp://admin:hun"ter2@10.0.0.5/s',
        "rtsp://ad'min:hunter2@h/s",
        "rtsp://h:554/user=admin_password=hunter2_channel=1_stream=0.sdp",
        "rtsp://h:554/user=admin&password=hunter2&channel=1",
        "http://h/videostream.cgi?loginuse=admin&loginpas=hunter2",
        "http://h/video?user=a&psw=hunter2",
        "https://h/live?access_token=hunter2",
        "https://h/live?authToken=hunter2",
        "https://h/live?apikey=hunter2",
        "rtsp://hunter2@h/s",
        "gst:rtspsrc location=rtsp://h user-id=a user-pw=hunter2 ! x",
        "gst:rtspsrc location=rtsp://h user-pw=(string)hunter2 ! x",
        'gst:souphttpsrc location=http://h user-pw = "hun\\"ter2" ! x',
        "gst:srtsrc uri=srt://h?passphrase=hunter2 ! x",
        'gst:rtspsrc location="rtsp://a:hun\'ter2@h" ! x',
        "gst:rtspsrc user-pw=hunter2 ! x",
        "rtsp:// admin:hunter2@h",
    ],
)
def test_nothing_is_let_through_of_addresses_that_patterns_did_not_know(source: str) -> None:
    assert "ter2" not in shown(source)
    assert "ter2" not in conceal(f"cannot open {source}: connection refused", source)


def test_words_around_an_address_stay() -> None:
    said = "rtsp://cam/x: 404 Not Found; check http://u:hunter2@cam:80/x, then the path"
    assert shortened(said) == "rtsp://cam: 404 Not Found; check http://cam, then the path"
    assert shortened("rtsp://cam: the stream ended") == "rtsp://cam: the stream ended"
    assert shortened("/dev/video0 gave no frame") == "/dev/video0 gave no frame"
