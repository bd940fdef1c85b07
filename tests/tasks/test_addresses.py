"""Addresses: one picture, one clip or a camera, from a server of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from desk import CLIP_FRAMES, clip

from vajra_edge.errors import SourceError
from vajra_edge.tasks import addresses
from vajra_edge.tasks.addresses import Content
from vajra_edge.tasks.sources import feeds

JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()


class Server(ThreadingHTTPServer):
    """Answers each path with (status, headers, body), and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, str | None]] = []

    def at(self, path: str, body: bytes, kind: str, status: int = 200, **headers: str) -> str:
        self.answers[path] = status, {"Content-Type": kind, "Content-Length": str(len(body)), **headers}, body
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status, headers, body = self.server.answers[self.path.partition("?")[0]]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def images(source: object) -> list[object]:
    return [shot for feed in feeds(source) for shot in feed.read()]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/bus.jpg", "image/jpeg"),
        ("/snapshot", "image/jpeg"),
        ("/a", "application/octet-stream"),
        ("/B.JPG", "text/plain"),
    ],
)
def test_a_picture_is_told_by_its_content_and_comes_once(server, path, kind):
    url = server.at(path, JPEG, kind) + "?x=1&token=secret"
    (feed,) = feeds(url)
    assert (feed.total, feed.endless) == (1, False)
    (shot,) = feed.read()
    assert shot.frame.image.shape == (48, 64, 3)
    assert "secret" not in shot.path
    assert shot.path.endswith("bus.jpg") or path != "/bus.jpg"


def test_a_clip_gives_each_frame_once_and_ends(server, tmp_path):
    clip(tmp_path / "clip.mp4")
    url = server.at("/clip.mp4", (tmp_path / "clip.mp4").read_bytes(), "video/mp4")
    (feed,) = feeds(url)
    assert not feed.endless
    assert [shot.number for shot in feed.read()] == list(range(CLIP_FRAMES))


@pytest.mark.parametrize(
    "kind", ["multipart/x-mixed-replace; boundary=x", "application/vnd.apple.mpegurl", "application/octet-stream"]
)
def test_what_streams_and_what_nobody_knows_is_a_camera(server, kind):
    assert addresses.asked(server.at("/video.cgi", b"", kind)) is Content.CAMERA
    assert feeds(server.at("/video.cgi", b"", kind))[0].endless


def test_a_multipart_stream_is_a_camera_whatever_its_name_is(server):
    assert addresses.asked(server.at("/live.jpg", b"--x", "multipart/x-mixed-replace; boundary=x")) is Content.CAMERA


def test_a_page_and_an_error_in_the_place_of_a_picture_are_one_line(server):
    for url, words in (
        (server.at("/login.jpg", b"<html>", "text/html"), "is a page"),
        (server.at("/gone.jpg", b"", "text/plain", 404), "HTTP 404"),
        ("http://127.0.0.1:9/closed.jpg", "cannot be had: "),
    ):
        with pytest.raises(SourceError, match=words) as raised:
            images(url)
        assert "\n" not in str(raised.value)


def test_user_and_password_go_to_the_host_alone_and_reach_no_message(server):
    url = server.at("/x.jpg", b"", "text/plain", 403).replace("http://", "http://me:s3cret@")
    with pytest.raises(SourceError, match="HTTP 403") as raised:
        images(url)
    assert "s3cret" not in str(raised.value)
    assert server.asked[0] == ("/x.jpg", "Basic bWU6czNjcmV0")


def test_a_picture_larger_than_the_bound_is_not_fetched(server, monkeypatch):
    monkeypatch.setitem(addresses.MOST_BYTES, Content.PICTURE, 100)
    with pytest.raises(SourceError, match="has more than"):
        images(server.at("/large.jpg", JPEG, "image/jpeg"))


def test_redirects_are_followed_a_few_times_and_to_http_alone(server):
    server.at("/end.jpg", JPEG, "image/jpeg")
    url = server.at("/start.jpg", b"", "text/plain", 302, Location="/end.jpg")
    assert len(images(url)) == 1
    for place in ("/loop.jpg", "file:///etc/hostname", "ftp://127.0.0.1/x.jpg"):
        with pytest.raises(SourceError, match=r"HTTP 302|cannot be had"):
            images(server.at("/loop.jpg", b"", "text/plain", 302, Location=place))


def test_among_others_an_address_that_cannot_be_had_is_left_out(server, caplog):
    good = server.at("/good.jpg", JPEG, "image/jpeg")
    bad = server.at("/bad.jpg", b"", "text/plain", 404)
    assert len(images([good, bad, good])) == 2
    assert "HTTP 404" in caplog.text
    assert "left out" in caplog.text


def test_in_a_folder_a_damaged_clip_is_left_out_like_a_damaged_picture(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "b.webm").write_bytes(b"not a video")
    assert len(images(tmp_path)) == 1
    assert "b.webm" in caplog.text
    with pytest.raises(SourceError, match=r"b\.webm"):
        images(tmp_path / "b.webm")
