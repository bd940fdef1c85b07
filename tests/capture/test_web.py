"""Cameras at http addresses: streams of JPEG parts, single pictures, containers, and what is none of them."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
from clips import write_clip
from little_servers import answering, head_of, http, listening
from pictures import number_of, picture
from waiting import LIMIT_S

from vajra_edge.capture.sources import base, registry
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError


def jpeg(number: int) -> bytes:
    return bytes(cv2.imencode(".jpg", picture(number))[1].tobytes())


def make(port: int, **settings: object) -> base.Source:
    usual = {"id": "gate", "source": f"http://127.0.0.1:{port}/x?p=hunter2", "open_timeout_s": 20.0, "stall_s": 20.0}
    return registry.make(CameraSettings.model_validate({**usual, **settings}))


def opened(port: int, **settings: object) -> base.Source:
    source = make(port, **settings)
    source.open()
    return source


def numbers(source: base.Source, count: int) -> list[int]:
    frames = [source.read() for _ in range(count)]
    return [number_of(frame.image) for frame in frames if frame is not None]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"
PART = b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def motion_jpeg(bodies: list[bytes], *, chunked: bool = False) -> Iterator[tuple[int, threading.Event]]:
    """A camera that sends these parts, then is silent until the event is set, then hangs up."""
    silent = threading.Event()

    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") if chunked else HEAD)
        for body in bodies:
            part = PART % len(body) + body + b"\r\n"
            pieces = [part[:50], part[50:]] if chunked else [part]
            for piece in pieces:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        silent.wait(LIMIT_S)

    with listening(serve) as port:
        try:
            yield port, silent
        finally:
            silent.set()


@pytest.mark.parametrize("chunked", [False, True])
def test_motion_jpeg_streams_until_the_camera_hangs_up(*, chunked: bool) -> None:
    with motion_jpeg([jpeg(number) for number in range(15)], chunked=chunked) as (port, silent):
        silent.set()
        source = opened(port)
        assert numbers(source, 15) == list(range(15))
        with pytest.raises(SourceError, match=r"^http://127\.0\.0\.1: the stream ended$"):
            source.read()
        source.close()
        source.close()


@pytest.mark.parametrize(
    "bad",
    [b"", os.urandom(3000), b"<html>busy</html>", jpeg(3)[:500], bytes(cv2.imencode(".bmp", picture(1))[1])],
    ids=["empty", "noise", "page", "half", "bmp"],
)
def test_a_bad_part_costs_only_itself(bad: bytes) -> None:
    bodies = [bad if number % 4 == 3 else jpeg(number) for number in range(16)]
    with motion_jpeg(bodies) as (port, _):
        source = opened(port)
        assert numbers(source, 12) == [number for number in range(16) if number % 4 != 3]
        assert source.decode_errors == 3, "the last bad part is behind the last good one"
        source.close()


def test_a_part_that_claims_gigabytes_is_refused_at_its_head() -> None:
    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(HEAD + PART % (2 << 30) + jpeg(5) + b"\r\n" + PART % len(jpeg(6)) + jpeg(6) + b"\r\n")
        head_of(connection)

    with listening(serve) as port:
        source = opened(port)
        assert numbers(source, 1) == [6]
        assert source.decode_errors == 1
        source.close()


def test_a_password_that_is_changed_between_two_pictures_is_given_no_third_time(tmp_path: Path) -> None:
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        asked.append(head_of(connection))
        known = "Authorization" in asked[-1] and len(asked) < 3
        refusal = http(b"", "text/html", "401 Unauthorized", 'WWW-Authenticate: Basic realm="c"')
        connection.sendall(http(jpeg(1), "image/jpeg") if known else refusal)

    login = tmp_path / "login"
    login.write_text("admin:hunter2")
    with listening(serve) as port:
        source = opened(port, credentials_file=str(login), fps=50.0)
        assert numbers(source, 1) == [1]
        with pytest.raises(SourceError, match=r"refuses user and password \(401\)") as caught:
            source.read()
        assert caught.value.login_refused
        source.close()
    assert len(asked) == 2 + 2, "the login that went along, and once more with what the camera asked for anew"


def test_a_silent_camera_ends_the_read_after_stall_s() -> None:
    with motion_jpeg([jpeg(1)]) as (port, _):
        source = opened(port, stall_s=1.5)
        assert numbers(source, 1) == [1]
        began_s = time.monotonic()
        with pytest.raises(SourceError, match=r"no new frame for 1\.5 s"):
            source.read()
        assert time.monotonic() - began_s >= 1.5
        source.close()


def test_a_trickle_is_silence_too() -> None:
    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(HEAD + PART % 100_000)
        for _ in range(int(LIMIT_S * 10)):
            connection.sendall(b"x")
            time.sleep(0.1)

    with listening(serve) as port:
        source = opened(port, stall_s=0.5)
        with pytest.raises(SourceError, match="no new frame"):
            source.read()
        source.close()


def test_a_camera_of_which_nothing_can_be_decoded_is_lost() -> None:
    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(HEAD)
        while True:
            connection.sendall(PART % 4 + b"oops\r\n")
            time.sleep(0.01)

    with listening(serve) as port:
        source = opened(port, stall_s=1.0)
        with pytest.raises(SourceError, match=r"nothing that can be decoded for 1\.0 s|no new frame for"):
            source.read()
        assert source.decode_errors > 3
        source.close()


def test_sound_between_the_pictures_is_no_damage() -> None:
    def serve(connection: socket.socket) -> None:
        head_of(connection)
        sound = b"--b\r\nContent-Type: audio/basic\r\nContent-Length: 5\r\n\r\n12345\r\n"
        connection.sendall(HEAD + b"".join(sound + PART % len(jpeg(n)) + jpeg(n) + b"\r\n" for n in range(3)))
        head_of(connection)

    with listening(serve) as port:
        source = opened(port)
        assert numbers(source, 3) == [0, 1, 2]
        assert source.decode_errors == 0
        source.close()


class StillCamera:
    """Gives one picture for each request, each with the number of the request; ``answers`` are put in its place."""

    def __init__(self, answers: dict[int, bytes] | None = None, content_type: str = "image/jpeg", suffix: str = ".jpg"):
        self.answers, self.content_type, self.suffix = answers or {}, content_type, suffix
        self.count = itertools.count()
        self.requests: list[str] = []

    def serve(self, connection: socket.socket) -> None:
        self.requests.append(head_of(connection))
        number = next(self.count)
        body = bytes(cv2.imencode(self.suffix, picture(number))[1].tobytes())
        connection.sendall(self.answers.get(number, http(body, self.content_type)))


@pytest.mark.parametrize(
    ("content_type", "suffix"),
    [("image/jpeg", ".jpg"), ("image/png", ".png"), ("application/octet-stream", ".jpg"), ("text/plain", ".jpg")],
)
def test_a_picture_is_fetched_again_and_again(content_type: str, suffix: str) -> None:
    with listening(StillCamera(None, content_type, suffix).serve) as port:
        source = opened(port, fps=50.0)
        assert numbers(source, 6) == [0, 1, 2, 3, 4, 5]
        assert source.live
        source.close()


def chunked(*parts: bytes, content_type: str) -> bytes:
    head = http(b"", content_type, "200 OK", "Transfer-Encoding: chunked", length=False)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def with_exif(picture_: bytes, size: int) -> bytes:
    """With so many bytes before its size, as of a thumbnail."""
    return picture_[:2] + b"\xff\xe1" + (size + 2).to_bytes(2, "big") + bytes(size) + picture_[2:]


WHOLE_PICTURES = {
    "of no kind": http(jpeg(7), "application/octet-stream", length=False),
    "without a type": b"HTTP/1.0 200 OK\r\n\r\n" + jpeg(7),
    "in chunks of text": chunked(jpeg(7)[:100], jpeg(7)[100:], content_type="text/plain"),
    "with a line end behind it": http(jpeg(7) + b"\r\n\0\0", "application/octet-stream", length=False),
    "with a large thumbnail": http(with_exif(jpeg(7), 60_000), "application/octet-stream", length=False),
    "with a large thumbnail and its length": http(with_exif(jpeg(7), 60_000), "application/octet-stream"),
    "png": http(bytes(cv2.imencode(".png", picture(7))[1].tobytes()), "application/octet-stream", length=False),
}


@pytest.mark.parametrize("answer", WHOLE_PICTURES.values(), ids=WHOLE_PICTURES)
def test_a_picture_of_which_neither_kind_nor_length_is_told_is_fetched_again_and_again(answer: bytes) -> None:
    with listening(answering(answer)) as port:
        source = opened(port, fps=50.0)
        assert numbers(source, 4) == [7, 7, 7, 7]
        source.close()


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream"])
def test_a_picture_without_a_length_ends_where_it_ends(content_type: str) -> None:
    """Some cameras name no length and never hang up, and some no kind either."""
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(http(jpeg(7), content_type, length=False))
        done.wait(LIMIT_S)

    with listening(serve) as port:
        source = opened(port, fps=50.0)
        assert numbers(source, 3) == [7, 7, 7]
        source.close()
        done.set()


@pytest.mark.parametrize("content_type", ["application/octet-stream", "video/x-motion-jpeg"])
def test_jpegs_that_follow_one_another_without_parts_are_a_stream(content_type: str) -> None:
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        asked.append(head_of(connection))
        connection.sendall(http(b"", content_type, length=False))
        for number in itertools.count():
            connection.sendall(jpeg(number % 20))
            time.sleep(0.02)

    with listening(serve) as port:
        source = opened(port)
        assert numbers(source, 8) == list(range(8))
        source.close()
    assert len(asked) == 2, "one look at it, and one stream"


def test_pictures_are_fetched_at_the_rate_that_is_set() -> None:
    with listening(StillCamera().serve) as port:
        began_s = time.monotonic()  # of each picture a busy machine may be late, of all together never early
        source = opened(port, fps=4.0)
        assert numbers(source, 5) == [0, 1, 2, 3, 4]
        assert time.monotonic() - began_s > 4 * 0.25 - 0.01
        source.close()


def test_without_a_rate_one_picture_a_second_is_fetched() -> None:
    with listening(StillCamera().serve) as port:
        began_s = time.monotonic()
        source = opened(port)
        assert numbers(source, 2) == [0, 1]
        assert time.monotonic() - began_s > 1.0 - 0.01
        source.close()


def test_a_fetch_that_fails_is_tried_again() -> None:
    page, busy = http(b"<html>", "text/html"), http(b"", "text/plain", "503 Busy")
    camera = StillCamera({1: page, 2: busy, 3: b"", 5: http(jpeg(9)[:400], "image/jpeg")})
    with listening(camera.serve) as port:
        source = opened(port, fps=20.0)
        assert numbers(source, 3) == [0, 4, 6]
        assert source.decode_errors == 1, "only what came and could not be decoded is one"
        source.close()


def test_fetches_that_fail_for_too_long_are_a_loss_with_its_reason() -> None:
    camera = StillCamera(dict.fromkeys(range(1, 10_000), http(b"", "text/plain", "503 Busy")))
    with listening(camera.serve) as port:
        source = opened(port, fps=20.0, stall_s=0.4)
        numbers(source, 1)
        with pytest.raises(SourceError, match=r"is busy \(503\)"):
            source.read()
        source.close()


def test_a_slow_camera_is_not_taken_for_a_stalled_one() -> None:
    with listening(StillCamera().serve) as port:
        source = opened(port, fps=0.8, stall_s=0.2)
        assert numbers(source, 3) == [0, 1, 2]
        source.close()


def test_a_picture_that_claims_gigabytes_is_refused_by_its_length() -> None:
    claim = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {2 << 30}\r\n\r\n".encode() + jpeg(1)
    with listening(answering(claim)) as port:
        source = opened(port, fps=20.0, stall_s=0.3)
        with pytest.raises(SourceError, match="nothing that can be decoded"):
            source.read()
        assert source.decode_errors >= 1
        source.close()


def test_a_container_is_read_through_ffmpeg(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ts", 30, options={"g": "10"}).read_bytes()
    with listening(answering(http(clip, "video/mp2t"))) as port:
        source = opened(port)
        assert numbers(source, 20) == list(range(20))
        with pytest.raises(SourceError, match="the stream ended"):  # noqa: PT012  a few frames are still to come
            for _ in range(20):
                source.read()
        source.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (http(b"<!DOCTYPE html><p>log in</p>", "text/html"), "sends a web page and no video; correct the path"),
        (http(b"<html>log in", "image/jpeg"), "sends a web page and no video"),
        (http(b"", "image/jpeg"), "sends an empty answer"),
        (http(b"", "text/plain", "204 No Content"), "sends an empty answer"),
        (http(b"not found, but with 200", "text/plain"), "sends text/plain, which is no video"),
        (http(b'{"error": 1}', "application/json"), "sends application/json, which is no video"),
        (http(os.urandom(5000), "video/mp4"), "answers but gives no video"),
    ],
)
def test_what_is_no_video_is_named(answer: bytes, says: str) -> None:
    with listening(answering(answer)) as port:
        source = make(port)
        with pytest.raises(SourceError) as caught:
            source.open()
        source.close()
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_is_not_open_cannot_be_read() -> None:
    with pytest.raises(SourceError, match="is not open"):
        make(1).read()
