"""Clips for the captures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from pictures import picture


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a motion JPEG clip of numbered pictures."""

    def write(frames: int = 10, fps: float = 50.0, name: str = "clip.avi") -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
        assert writer.isOpened()
        for number in range(frames):
            writer.write(picture(number))
        writer.release()
        return path

    return write
