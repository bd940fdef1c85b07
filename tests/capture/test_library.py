"""OpenCV loaded quietly, with options beside the operator's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vajra_edge.capture.sources.opencv import Capture, capture_options, load_cv2, timeouts
from vajra_edge.errors import SourceError

OURS = "rtsp_transport;tcp|analyzeduration;500000"


@pytest.mark.parametrize(
    ("own", "all_options"),
    [
        ("", OURS),
        ("rtsp_transport;udp", "rtsp_transport;udp|analyzeduration;500000"),
        ("max_delay;1|analyzeduration;9", "max_delay;1|analyzeduration;9|rtsp_transport;tcp"),
        (OURS, OURS),
    ],
)
def test_the_operators_own_options_stay(own: str, all_options: str) -> None:
    assert capture_options(own) == all_options


def test_loading_twice_adds_the_options_once() -> None:
    load_cv2()
    load_cv2()
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"].count("rtsp_transport") == 1


def test_timeouts_are_in_milliseconds_and_never_zero() -> None:
    cv2 = load_cv2()
    assert timeouts(1.5, 1e-9) == {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: 1500, cv2.CAP_PROP_READ_TIMEOUT_MSEC: 1}


def test_a_damaged_file_is_refused_without_a_word_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(os.urandom(5000))
    code = (
        "import sys; from vajra_edge.capture.sources.opencv import Capture, load_cv2;"
        "sys.exit(Capture('clip').open(sys.argv[1], load_cv2().CAP_FFMPEG, {}))"
    )
    root = Path(__file__).resolve().parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "clip.mp4")], cwd=root, capture_output=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, b"")


def test_a_closed_capture_is_not_readable() -> None:
    capture = Capture("gate")
    capture.close()
    with pytest.raises(SourceError, match="gate is not open"):
        capture.read()
