from __future__ import annotations

import cv2
import numpy as np
import pytest
from desk import frames_of

from vajra_edge.tasks.saving import TIMED, Video


def image(height: int = 49, width: int = 65) -> np.ndarray:
    return np.full((height, width, 3), 120, np.uint8)


@pytest.mark.parametrize("count", [1, 3, TIMED, TIMED + 5])
def test_a_video_of_any_length_has_all_its_frames_at_their_rate(tmp_path, count):
    video = Video(tmp_path / "out.mp4")
    for number in range(count):
        video.add(image(), number / 8)
    assert not (tmp_path / "out.mp4").exists()
    video.close()
    video.close()
    assert len(frames_of(tmp_path / "out.mp4")) == count
    read = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert read.get(cv2.CAP_PROP_FPS) == pytest.approx(25.0 if count == 1 else 8.0)
    read.release()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_frame_of_another_size_is_scaled(tmp_path):
    video = Video(tmp_path / "out.mp4")
    video.add(image(), 0.0)
    video.add(image(100, 200), 0.1)
    video.close()
    assert [frame.shape for frame in frames_of(tmp_path / "out.mp4")] == [(48, 64, 3)] * 2


def test_nothing_added_is_no_file(tmp_path):
    Video(tmp_path / "out.mp4").close()
    assert list(tmp_path.iterdir()) == []
