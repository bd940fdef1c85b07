from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import acted
import cv2
import numpy as np
import pytest
import tiny
from desk import SIDE_PX, desk
from pictures import picture

from vajra_edge import Vajra
from vajra_edge.capture.children import Children
from vajra_edge.tasks import sources


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


@pytest.mark.parametrize("pixels", ["BGR", "BGRX", "NV12"])
def test_pictures_of_a_camera_are_the_readers_own_and_in_bgr(tmp_path, monkeypatch, pixels):
    monkeypatch.setattr(sources, "Children", lambda: Children(acted.COMMAND))
    camera = acted.script(tmp_path / "camera.json", [["give", 3, pixels, "BT709", False], ["nap", 600]])
    (feed,) = sources.feeds(camera)
    shots = feed.read()
    image = next(shots).frame.image
    shots.close()
    assert np.abs(image.astype(int) - picture(3)).max() <= 2
    image.fill(0)
