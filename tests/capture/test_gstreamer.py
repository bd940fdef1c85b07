"""GStreamer pipelines, where the installed OpenCV has them; a clear reason where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vajra_edge.capture.sources import registry
from vajra_edge.capture.sources.gstreamer import csi_pipeline, rtsp_pipeline, why_absent
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError


@pytest.fixture
def with_gstreamer() -> None:
    absent = why_absent()
    if absent:
        pytest.skip(f"absent here: {absent}")


@pytest.fixture
def without_gstreamer() -> None:
    if why_absent() is None:
        pytest.skip("absent here: an OpenCV without GStreamer")


@pytest.mark.usefixtures("without_gstreamer")
def test_without_gstreamer_the_reason_and_the_remedy_are_said() -> None:
    pipeline = registry.make(CameraSettings(id="gate", source=csi_pipeline()))
    with pytest.raises(SourceError, match="was built without GStreamer; install JetPack's python3-opencv with apt"):
        pipeline.open()
    pipeline.close()


@pytest.mark.usefixtures("with_gstreamer")
def test_a_pipeline_streams_and_its_end_is_a_loss() -> None:
    size, colours = "video/x-raw,width=64,height=48", "video/x-raw,format=BGR"
    text = f"gst:videotestsrc num-buffers=5 ! {size} ! videoconvert ! {colours} ! appsink"
    pipeline = registry.make(CameraSettings(id="gate", source=text, stall_s=2.0))
    pipeline.open()
    first = pipeline.read()
    assert first is not None
    assert first.image.shape == (48, 64, 3)
    with pytest.raises(SourceError, match="camera gate gave no frame"):  # noqa: PT012
        for _ in range(10):
            pipeline.read()
    pipeline.close()


@pytest.mark.usefixtures("with_gstreamer")
def test_a_pipeline_with_an_unknown_element_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("admin:hunter2", encoding="utf-8")
    text = "gst:nosuchelement location=rtsp://cam/1 user-pw=swordfish ! appsink"
    pipeline = registry.make(CameraSettings(id="gate", source=text, credentials_file=tmp_path / "own"))
    with pytest.raises(SourceError, match="does not start") as caught:
        pipeline.open()
    assert "hunter2" not in str(caught.value)
    assert "swordfish" not in str(caught.value)


def test_a_pipeline_without_an_appsink_is_refused_without_its_password() -> None:
    with pytest.raises(SourceError, match="a pipeline without appsink") as caught:
        registry.make(CameraSettings(id="gate", source="gst:rtspsrc location=rtsp://cam user-pw=swordfish ! fakesink"))
    assert "swordfish" not in str(caught.value)


def test_jetsons_pipelines_decode_in_hardware_and_keep_the_newest() -> None:
    text = rtsp_pipeline("rtsp://cam:554/1", codec="h265", latency_ms=100)
    assert text.startswith(
        'gst:rtspsrc location="rtsp://cam:554/1" protocols=tcp latency=100 ! rtph265depay ! h265parse'
    )
    for pipeline in (text, csi_pipeline(1, 1280, 720, 60)):
        registry.make(CameraSettings(id="gate", source=pipeline))
        assert pipeline.endswith("format=BGR ! appsink drop=true max-buffers=1 sync=false")
    assert " ! nvv4l2decoder " in text
    assert "sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1 !" in csi_pipeline(
        1, 1280, 720, 60
    )


@pytest.mark.parametrize(
    ("url", "codec"), [('rtsp://cam/" ! filesink location="/etc/x', "h264"), ("rtsp://cam/1", "mjpeg")]
)
def test_a_url_that_would_break_out_of_the_pipeline_is_refused(url: str, codec: str) -> None:
    with pytest.raises(SourceError):
        rtsp_pipeline(url, codec)
