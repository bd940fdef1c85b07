from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import cv2

from vajra_edge.config.settings import load
from vajra_edge.demo.settings import CLIP, as_toml, broker_settings, overrides


def test_the_written_file_is_the_same_settings(tmp_path):
    given = overrides(tmp_path, {"host": "127.0.0.1", "port": 1999}, source='odd "name" \\ here.mp4')
    path = tmp_path / "config.toml"
    path.write_text(as_toml(given), encoding="utf-8")
    assert load(path) == load(None, given)
    assert load(path).cameras[0].source == 'odd "name" \\ here.mp4'


def test_source_and_weights_replace_the_packaged_ones(tmp_path):
    given = overrides(tmp_path, {"host": "broker"}, source="/dev/video0", weights=Path("/w.onnx"))
    assert given["cameras"][0]["source"] == "/dev/video0"
    assert given["weights"]["path"] == "/w.onnx"


def test_a_named_broker_is_used_and_none_is_started():
    with ExitStack() as stack:
        assert broker_settings("broker.lan:1884", stack) == {"host": "broker.lan", "port": 1884}
        assert broker_settings("broker.lan", stack) == {"host": "broker.lan"}
        assert broker_settings("[::1]:1884", stack) == {"host": "::1", "port": 1884}
        for whole in ("::1", "mqtt://u:hunter2@broker.lan:1884", "broker.lan:mqtt"):
            assert broker_settings(whole, stack) == {"host": whole}


def test_the_clip_is_ten_seconds_of_people_that_opencv_can_read():
    clip = cv2.VideoCapture(str(CLIP))
    frames = 0
    while clip.read()[0]:
        frames += 1
    assert 80 <= frames <= 150
    assert CLIP.stat().st_size < 2 * 1024 * 1024
