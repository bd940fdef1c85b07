"""OpenCV, loaded when it is needed, and kept quiet."""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import Any

_loading = threading.Lock()


def load_cv2() -> Any:
    """OpenCV, with nothing on stderr; what the operator set in the environment stays.

    Its own lines, and those of the FFmpeg in it, which saved videos still go through, would be on stderr once for each
    damaged packet. The environment is written once, before the first capture reads it: C's ``setenv`` beside
    ``getenv`` in another thread can crash.
    """
    with _loading:
        return _load_once()


@cache
def _load_once() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    import cv2

    if "OPENCV_LOG_LEVEL" not in os.environ:
        set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel  # before OpenCV 5, since 5
        set_level(0)  # silent
    return cv2
