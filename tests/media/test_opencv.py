"""OpenCV loaded quietly."""

from __future__ import annotations

import os

from vajra_edge.media.opencv import load_cv2


def test_loading_keeps_what_the_operator_set() -> None:
    load_cv2()
    assert "OPENCV_FFMPEG_LOGLEVEL" in os.environ
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ
