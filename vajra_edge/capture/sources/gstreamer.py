"""GStreamer: a pipeline as a source, where the installed OpenCV has GStreamer; and Jetson's own pipelines."""

from __future__ import annotations

import re
from functools import cache

from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.opencv import Capture, timeouts
from vajra_edge.capture.url import kind_of, read_credentials, shown, with_credentials
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.opencv import load_cv2

_URL = re.compile(r"\b(?:rtsps?|https?)://[^\s\"']+")
_TO_BGR = "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"  # nvvidconv cannot pack BGR
_NEWEST = "appsink drop=true max-buffers=1 sync=false"


def rtsp_pipeline(url: str, codec: str = "h264", latency_ms: int = 200) -> str:
    """A ``source`` text that decodes an RTSP camera on a Jetson's NVDEC instead of its CPU.

    Args:
        url: the camera, without credentials: those belong into ``credentials_file``.
        codec: ``h264`` or ``h265``.
        latency_ms: the jitter buffer of ``rtspsrc``.

    Raises:
        SourceError: the URL would break out of its place in the pipeline, or the codec is another.
    """
    kind_of(url)
    if codec not in {"h264", "h265"} or re.search(r"[\"'\\\s]", url):
        raise SourceError(
            f"no pipeline for {shown(url)} with codec {codec}", remedy="use h264 or h265 and a URL without quotes"
        )
    receive = f'rtspsrc location="{url}" protocols=tcp latency={latency_ms} ! rtp{codec}depay ! {codec}parse'
    return f"gst:{receive} ! nvv4l2decoder enable-max-performance=1 ! {_TO_BGR} ! {_NEWEST}"


def csi_pipeline(sensor_id: int = 0, width_px: int = 1920, height_px: int = 1080, fps: int = 30) -> str:
    """A ``source`` text for a camera on a Jetson's CSI connector, through its image signal processor."""
    caps = f"video/x-raw(memory:NVMM),width={width_px},height={height_px},framerate={fps}/1"
    return f"gst:nvarguscamerasrc sensor-id={sensor_id} ! {caps} ! {_TO_BGR} ! {_NEWEST}"


def why_absent() -> str | None:
    """Why this OpenCV cannot run pipelines, or None where it can."""
    cv2 = load_cv2()
    if re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        return None
    return f"OpenCV {cv2.__version__} in {cv2.__path__[0]} was built without GStreamer"


@cache
def takes_timeouts() -> bool:
    """Whether this OpenCV's GStreamer captures know timeouts: 4.6 refuses to open with one, so it is tried out.

    Where they do not, a silent camera is still told as lost by ``Grabber.tick``, but its read goes on hanging.
    """
    cv2 = load_cv2()
    probe = Capture("GStreamer probe")
    takes = probe.open("videotestsrc num-buffers=1 ! videoconvert ! appsink", cv2.CAP_GSTREAMER, timeouts(5.0, 5.0))
    probe.close()
    return takes


class GStreamerSource:
    """A pipeline whose ``appsink`` hands out BGR; it is always taken for live, so its end is a loss."""

    live = True

    def __init__(self, camera: CameraSettings) -> None:
        self.decode_errors = 0
        self._camera = camera
        self._text = camera.source.removeprefix("gst:").strip()
        self._name = f"GStreamer pipeline of camera {camera.id}"
        self._capture = Capture(self._name)
        if "appsink" not in self._text:
            raise SourceError(f"{self._name} has no appsink", remedy=f"end it with ! {_NEWEST}")

    def open(self) -> None:
        """Start the pipeline, with the camera's credentials in its first URL.

        Raises:
            SourceError: this OpenCV has no GStreamer, or the pipeline does not start.
            SettingsError: the credentials file cannot be read.
        """
        absent = why_absent()
        if absent is not None:
            raise SourceError(
                f"{self._name} cannot run: {absent}",
                remedy="install JetPack's python3-opencv with apt, make the venv with --system-site-packages, "
                "and remove PyPI's opencv-python from it",
            )
        credentials = read_credentials(self._camera.id, self._camera.credentials_file)
        text = _URL.sub(lambda url: with_credentials(url[0], credentials), self._text, count=1)
        parameters = timeouts(self._camera.open_timeout_s, self._camera.stall_s) if takes_timeouts() else {}
        if not self._capture.open(text, load_cv2().CAP_GSTREAMER, parameters):
            raise SourceError(
                f"{self._name} does not start",
                remedy="try it with gst-launch-1.0 and fakesink in place of appsink",
            )

    def read(self) -> RawFrame:
        """The next image.

        Raises:
            SourceError: the pipeline ended, fell silent, or hands out another format than BGR.
        """
        image = self._capture.read()
        if image is None:
            raise SourceError(f"{self._name} gave no frame: it ended or was silent for {self._camera.stall_s} s")
        return RawFrame(image)

    def close(self) -> None:
        """Stop the pipeline."""
        self._capture.close()
