"""Clips and HTTP cameras, through the real OpenCV."""

from __future__ import annotations

import base64
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest
from pictures import number_of, picture
from ports import free_port
from waiting import LIMIT_S

from vajra_edge.capture.sources import base, opencv, registry
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError


def make(path: object, **settings: object) -> base.Source:
    return registry.make(CameraSettings.model_validate({"id": "gate", "source": str(path), **settings}))


def read_all(clip: base.Source) -> list[base.RawFrame]:
    pictures = []
    while (item := clip.read()) is not None:
        pictures.append(item)
    return pictures


def test_a_clip_gives_each_frame_with_its_place(make_clip: Callable[..., Path]) -> None:
    clip = make(make_clip(10, fps=50.0))
    clip.open()
    pictures = read_all(clip)
    assert [number_of(item.image) for item in pictures] == list(range(10))
    steps = [(b.position_s or 0) - (a.position_s or 0) for a, b in itertools.pairwise(pictures)]
    assert steps == pytest.approx([0.02] * 9, abs=1e-6)
    assert clip.read() is None
    assert clip.decode_errors == 0
    clip.close()
    clip.close()


def test_no_two_frames_share_memory(make_clip: Callable[..., Path]) -> None:
    clip = make(make_clip(6))
    clip.open()
    images = [item.image for item in read_all(clip)]
    assert [number_of(image) for image in images] == list(range(6)), "an image handed on was written to"
    assert len({image.ctypes.data for image in images}) == 6
    clip.close()


def test_a_loop_goes_on_along_its_time_line(make_clip: Callable[..., Path]) -> None:
    clip = make(make_clip(4, fps=25.0), loop=True)
    clip.open()
    pictures = [clip.read() for _ in range(10)]
    assert [number_of(item.image) for item in pictures if item] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    places_s = [item.position_s or 0.0 for item in pictures if item]
    assert places_s == pytest.approx([0.04 * (n + 1) for n in range(10)], abs=1e-6)
    clip.close()


def test_a_truncated_clip_gives_what_it_has_and_says_so(
    make_clip: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = make_clip(40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = make(path)
    clip.open()
    with caplog.at_level(logging.WARNING):
        frames = len(read_all(clip))
    assert 0 < frames < 40
    assert clip.decode_errors == 1
    assert f"ended after {frames} of 40 frames" in caplog.text
    clip.close()


@pytest.mark.parametrize("content", [b"RIFF nonsense", os.urandom(4096), b"#EXTM3U\nhttp://127.0.0.1:1/x.ts\n"])
def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    clip = make(path)
    with pytest.raises(SourceError, match="not a video that OpenCV can decode; re-encode it"):
        clip.open()
    clip.close()


def test_a_header_without_frames_is_refused(make_clip: Callable[..., Path]) -> None:
    path = make_clip(3)
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(b"movi") + 4])
    clip = make(path)
    with pytest.raises(SourceError, match="not a video"):  # noqa: PT012  which of the two notices differs by version
        clip.open()
        clip.read()
    clip.close()


def test_an_empty_or_vanished_file_is_named(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match=r"empty\.mp4 is empty; copy it again"):
        make(tmp_path / "empty.mp4")
    path = make_clip(2)
    clip = make(path)
    path.unlink()
    with pytest.raises(SourceError, match="does not exist"):
        clip.open()


def test_the_real_clip_keeps_its_rate(shared_data: Path) -> None:
    clip = make(shared_data / "videos" / "vtest.avi")
    clip.open()
    places_s = [item.position_s or 0.0 for item in (clip.read() for _ in range(20)) if item]
    assert [b - a for a, b in itertools.pairwise(places_s)] == pytest.approx([0.1] * 19)
    clip.close()


class Camera(BaseHTTPRequestHandler):
    """Motion JPEG as network cameras send it: parts of one endless answer."""

    def do_GET(self) -> None:
        wanted = self.server.authorization  # type: ignore[attr-defined]
        if wanted and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        number = 0
        try:
            while number < self.server.frames:  # type: ignore[attr-defined]
                jpeg = cv2.imencode(".jpg", picture(number))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                number += 1
                time.sleep(0.01)
            self.server.silent.wait(LIMIT_S)  # type: ignore[attr-defined]
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Nothing on stderr."""


@contextmanager
def http_camera(frames: int, authorization: str = "") -> Iterator[tuple[str, threading.Event]]:
    """The URL of a camera that sends ``frames`` pictures, then is silent until the event is set, then hangs up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.frames, server.authorization = frames, authorization  # type: ignore[attr-defined]
    server.silent = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/video", server.silent  # type: ignore[attr-defined]
    finally:
        server.silent.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_http_camera_streams_until_it_hangs_up() -> None:
    with http_camera(30) as (url, silent):
        silent.set()
        stream = make(url, open_timeout_s=30.0, stall_s=30.0)
        stream.open()
        numbers = [number_of(stream.read().image) for _ in range(25)]  # type: ignore[union-attr]
        assert numbers == [number % 20 for number in range(25)]
        with pytest.raises(SourceError, match="the stream ended"):  # noqa: PT012  a few frames are still to come
            for _ in range(10):
                stream.read()
        stream.close()
        stream.close()


def test_a_silent_http_camera_ends_the_read_after_stall_s() -> None:
    with http_camera(60) as (url, _):
        stream = make(url, open_timeout_s=30.0, stall_s=0.5)
        stream.open()
        began_s = time.monotonic()
        with pytest.raises(SourceError, match=r"no new frame for [\d.]+ s"):  # noqa: PT012
            for _ in range(100):
                began_s = time.monotonic()
                stream.read()
        assert time.monotonic() - began_s > 0.4
        stream.close()


def test_credentials_reach_the_camera_and_no_error(tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("ad@min:p/w: #1", encoding="utf-8")
    right = "Basic " + base64.b64encode(b"ad@min:p/w: #1").decode()
    with http_camera(30, right) as (url, _):
        stream = make(url, credentials_file=secret, open_timeout_s=30.0, stall_s=30.0)
        stream.open()
        assert stream.read() is not None
        stream.close()
        with pytest.raises(SourceError, match="answers but gives no video; check the path, user and password"):
            make(url, open_timeout_s=5.0).open()
        secret.write_text("admin:hunter2", encoding="utf-8")
        with pytest.raises(SourceError) as caught:
            make(url, credentials_file=secret, open_timeout_s=5.0).open()
        assert "hunter2" not in str(caught.value)


def test_a_camera_that_is_off_is_told_from_one_with_a_wrong_path() -> None:
    url = f"rtsp://admin:hunter2@127.0.0.1:{free_port()}/x"
    with pytest.raises(SourceError) as caught:
        make(url, open_timeout_s=2.0).open()
    assert str(caught.value).startswith("rtsp://127.0.0.1 cannot be opened")
    assert "hunter2" not in str(caught.value)
    assert "Connection refused; check that the camera is on" in str(caught.value)


def test_a_camera_that_accepts_and_says_nothing_ends_the_opening() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        stream = make(f"rtsp://127.0.0.1:{listening.getsockname()[1]}/x", open_timeout_s=0.5)
        began_s = time.monotonic()
        with pytest.raises(SourceError, match="gives no video"):
            stream.open()
        assert time.monotonic() - began_s < 25.0, "the library's own limit is 30 s"


def test_stamps_that_make_no_sense_are_replaced_by_the_rate(make_clip: Callable[..., Path]) -> None:
    clip = opencv.Clip(CameraSettings(id="gate", source=str(make_clip(5, fps=10.0))))
    clip.open()
    stamps_ms = iter([0.0, 0.0, -9.2e18, 9.2e18, 100.0])
    real = clip._capture.get
    clip._capture.get = lambda number: next(stamps_ms) if number == cv2.CAP_PROP_POS_MSEC else real(number)  # type: ignore[method-assign]
    places_s = [item.position_s or 0.0 for item in read_all(clip)]
    assert places_s == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    clip.close()
