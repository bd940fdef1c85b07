"""make: the source text chooses, and libraries load when they are chosen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from pictures import picture

from vajra_edge.capture.sources import clip, folder, gstreamer, registry, stream, web
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError


def camera(text: object) -> CameraSettings:
    return CameraSettings(id="gate", source=str(text))


def test_the_text_chooses_the_source(make_clip: Callable[..., Path], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.PNG"), picture(0))
    assert isinstance(registry.make(camera(make_clip())), clip.Clip)
    assert isinstance(registry.make(camera(tmp_path)), folder.ImageFolder)
    assert isinstance(registry.make(camera(tmp_path / "photo.PNG")), folder.ImageFolder)
    assert isinstance(registry.make(camera("rtsp://cam/1")), stream.NetworkStream)
    assert isinstance(registry.make(camera("http://cam/1")), web.WebCamera)
    assert isinstance(registry.make(camera("gst:videotestsrc ! appsink")), gstreamer.GStreamerSource)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("missing.avi", "missing.avi does not exist; correct the camera's source"),
        ("missing.jpg", "missing.jpg does not exist"),
        ("/proc/self/root/dev/null", "null is not a file"),
        ("/dev/null", "/dev/null is no camera's device"),
        ("ftp://cam/1", "scheme ftp is not supported"),
        ("/dev/video987", "/dev/video987 is not there; plug the camera in"),
        ("gst:videotestsrc", "is a pipeline without appsink; end it with ! appsink"),
    ],
)
def test_what_cannot_be_a_source_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        registry.make(camera(text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(SourceError, match="holds no image"):
        registry.make(camera(tmp_path))


def test_the_library_loads_only_when_a_source_is_opened() -> None:
    code = (
        "import sys; from vajra_edge.capture import camera\n"
        "from vajra_edge.capture.sources import clip, folder, gstreamer, registry, stream, web, v4l2\n"
        "from vajra_edge.config.settings import CameraSettings;"
        "registry.make(CameraSettings(id='a', source='rtsp://cam/1')); sys.exit(bool({'cv2', 'av'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
