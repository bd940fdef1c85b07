"""What an operator writes while the daemon runs: a slip of the hand costs nothing, and no password is shown."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from ports import free_port
from station import Station

SECRETS = ("hun'ter2", "hunter2", "h%75nter2", "swordfish")


def not_taken(station: Station, words: str) -> str:
    """Why the settings file was not taken; the daemon has what it had, and says so."""
    status = station.until(lambda status: words in status["settings"]["error"])
    assert words in status["reason"]
    assert [camera["id"] for camera in status["cameras"]] == ["gate"]
    assert status["engine"]["serving"]
    return str(status["settings"]["error"])


def test_a_slip_of_the_hand_costs_a_running_daemon_nothing(rebooted: Station) -> None:
    ears = rebooted.listen()
    rebooted.start()
    rebooted.serving()
    for source, words in (
        ("rtps://u:hunter2@10.0.0.5/stream1", "cameras[1].source (camera yard) = rtps://10.0.0.5/***"),
        ("rtsp://admin:my hunter2@10.0.0.5/s", "(camera yard) is not a valid URL: it holds a space"),
        ("rtsp://[::1/x", "(camera yard) is not a valid URL: its host cannot be read"),
        ("rtsp://10.0.0.5:99999/x", "its port must be a number"),
        ("", "cameras[1].source (camera yard)"),
    ):
        rebooted.camera("yard", source=source)
        rebooted.write()
        assert "hunter2" not in not_taken(rebooted, words)
        ears.until(lambda path, content, words=words: path == "status" and words in content["reason"])
    del rebooted.settings["cameras"]["yard"]
    rebooted.write()
    status = rebooted.until(lambda status: not status["settings"]["error"])
    assert (status["phase"], status["reason"]) == ("serving", "")
    assert rebooted.stop() == 0
    assert not [content for path, content, _ in ears.heard if "hunter2" in json.dumps(content)]
    ears.close()


def test_a_damaged_settings_file_is_named_and_the_running_daemon_keeps_what_it_has(rebooted: Station) -> None:
    rebooted.start()
    rebooted.serving()
    good = rebooted.config.read_bytes()
    for content, words in (
        (b"", "is empty"),
        (good[:-20], "half-written"),
        (b"\0" * len(good), "NUL bytes"),
        (good.decode().encode("utf-16"), "UTF-16"),
        (good + b'[[cameras]]\nid = "gate"\nsource = "/x"\n', "share the id gate"),
    ):
        rebooted.config.write_bytes(content)
        not_taken(rebooted, words)
    rebooted.config.unlink()
    not_taken(rebooted, "No such file")
    rebooted.config.mkdir()
    not_taken(rebooted, "is a folder")
    rebooted.config.rmdir()
    os.mkfifo(rebooted.config)
    not_taken(rebooted, "pipe or device")
    rebooted.config.unlink()
    rebooted.config.write_bytes(b"\xef\xbb\xbf" + good)
    rebooted.until(lambda status: not status["settings"]["error"])
    assert rebooted.stop() == 0


def test_a_file_that_is_not_there_costs_only_its_camera_until_it_is(rebooted: Station, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    rebooted.camera("usb", source=str(stick / "clip.mp4"), backoff_max_s=0.2)
    rebooted.start()
    rebooted.serving()
    status = rebooted.until(lambda status: status["cameras"][0]["frames"] and status["cameras"][1]["losses"])
    assert not status["settings"]["error"]
    assert "clip.mp4 does not exist" in status["cameras"][1]["reason"]
    stick.mkdir()
    (stick / "clip.mp4").write_bytes((Path(__file__).parents[2] / "vajra_edge/demo/clip.mp4").read_bytes())
    rebooted.until(lambda status: status["cameras"][1]["frames"])
    assert rebooted.stop() == 0


def test_no_password_of_a_camera_reaches_status_journal_or_topics(
    rebooted: Station, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    sources = {
        "quote": f"rtsp://admin:hun'ter2@127.0.0.1:{port}/s",
        "double": f'rtsp://admin:hun"ter2hunter2@127.0.0.1:{port}/s',
        "xm": f"rtsp://127.0.0.1:{port}/user=admin_password=hunter2_channel=1_stream=0.sdp",
        "foscam": f"http://127.0.0.1:{port}/videostream.cgi?loginuse=admin&loginpas=hunter2",
        "token": f"http://hunter2@127.0.0.1:{port}/s?access_token=hunter2&apikey=hunter2",
        "encoded": f"rtsp://admin:h%75nter2@127.0.0.1:{port}/s",
        "pipe": "gst:rtspsrc location=rtsp://127.0.0.1 user-id=a user-pw=(string)hunter2 ! appsink",
        "file": "admin_hunter2/clip.mp4",
        "own": f"rtsp://127.0.0.1:{port}/s",
    }
    secret = rebooted.folder / "own-credentials"
    secret.write_text("admin:swordfish\n")
    for name, source in sources.items():
        rebooted.camera(name, source=source, open_timeout_s=1.0, backoff_max_s=1.0)
    rebooted.settings["cameras"]["own"]["credentials_file"] = str(secret)
    ears = rebooted.listen()
    rebooted.start()
    rebooted.serving()
    status = rebooted.until(lambda status: all(one["losses"] for one in status["cameras"][1:]))
    for name in sources:
        ears.ever(lambda path, content, name=name: path == f"camera/{name}/status" and content["state"] == "lost")
    assert rebooted.stop() == 0
    shown = json.dumps([status, [content for _, content, _ in ears.heard]]) + caplog.text
    assert not [word for word in SECRETS if word in shown]
    assert "rtsp://127.0.0.1" in status["cameras"][1]["reason"]
    ears.close()
