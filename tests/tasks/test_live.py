from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import pytest
import tiny
from desk import SIDE_PX, desk

from vajra_edge import Vajra


class _Camera(BaseHTTPRequestHandler):
    """A motion JPEG camera as many are: one part a frame, thirty a second, until the reader leaves."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in itertools.count():
            content = cv2.imencode(".jpg", tiny.scene(SIDE_PX, objects=4, seed=number % 8).image)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + content + b"\r\n")
            except OSError:
                return
            time.sleep(1 / 30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_camera_is_predicted_frame_by_frame_until_the_reader_has_enough(camera, tmp_path, monkeypatch):
    weights = desk(tmp_path / "files")
    monkeypatch.chdir(tmp_path)
    with Vajra(weights) as network:
        stream = network.predict(camera, stream=True, save=True)
        found = list(itertools.islice(stream, 12))
        stream.close()
    assert [one.frame for one in found] == list(range(12))
    assert {len(one) for one in found} == {4}
    assert {one.path for one in found} == {camera}
    assert found[0].saved.is_file()
    assert found[0].saved.name == "camera.mp4"
