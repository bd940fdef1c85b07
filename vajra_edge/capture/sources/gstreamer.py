"""GStreamer: pipelines as sources: one that the settings hold, a Jetson's CSI camera, and RTSP on its decoder.

PyGObject runs them where the system has it, else an OpenCV that was built for it runs those of the settings.
"""

from __future__ import annotations

import logging
import re
import time
from functools import cache

from vajra_edge.capture.rate import patience_s
from vajra_edge.capture.sources import jetson
from vajra_edge.capture.sources.appsink import Appsink, Failing, PipelineFailed, missing, why_no_gobject
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.capture.sources.connection import look_up
from vajra_edge.capture.sources.opencv import Capture, timeouts
from vajra_edge.capture.sources.rtsp import unknown_digest, why_refused
from vajra_edge.capture.sources.transports import open_over
from vajra_edge.capture.url import conceal, endpoint_of, read_credentials, shown, with_credentials, with_zone
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.opencv import load_cv2
from vajra_edge.media.refusals import SourceRefusal, SourceRefused

log = logging.getLogger(__name__)

_URL = re.compile(r"\b(?P<scheme>rtsps?|https?)(?P<over>[tuh]?)(?P<rest>://[^\s\"']+)")
"""``rtspt``, ``rtspu`` and ``rtsph`` are GStreamer's own words for RTSP over TCP, UDP and HTTP."""
_NAMES_ALONE = re.compile(r'no (?:element|property) "[\w-]+"(?: in element "[\w-]+")?')
"""What GStreamer says of a pipeline's text that quotes no property's value, in which a password may stand."""

_QUESTIONS_S = 2.0  # for asking a camera by hand why it refused
_NO_GSTREAMER = (
    "install python3-gi and gir1.2-gst-plugins-base-1.0 with apt, and make the environment with --system-site-packages"
)


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


def needs(hardware: jetson.Hardware) -> str:
    """What this machine lacks of a hardware; empty where it has all."""
    if absent := why_no_gobject():
        return f"{absent}; {_NO_GSTREAMER}"
    lacking = missing(hardware.elements)
    return f"GStreamer has no {', '.join(lacking)}; {hardware.remedy}" if lacking else ""


class _Pipeline:
    """What all pipelines share: PyGObject's appsink, and the words for its end."""

    live = True

    def __init__(self, camera: CameraSettings, name: str) -> None:
        self.decode_errors = 0
        self._camera, self._name = camera, name
        self._patience_s = patience_s(camera)
        self._appsink: Appsink | None = None

    def read(self) -> RawFrame:
        """The next image.

        Raises:
            SourceError: the pipeline ended, fell silent, or hands out pictures of no known format.
        """
        if self._appsink is None:
            raise SourceError(f"{self._name} is not open")
        began_s = time.monotonic()
        try:
            return self._appsink.read(Deadline(self._patience_s))
        except PipelineFailed as failed:
            if failed.what is Failing.SILENCE:
                told = f"no new frame for {time.monotonic() - began_s:.1f} s"
            else:
                told = "the stream ended" if failed.what is Failing.END else self._words(failed)
            raise SourceError(f"{self._name}: {told}") from None

    def close(self) -> None:
        """Stop the pipeline; idempotent."""
        if self._appsink is not None:
            self._appsink.close()
            self._appsink = None

    def _start(self, text: str, deadline: Deadline) -> None:
        self.close()
        self._appsink = Appsink(self._name)
        self._appsink.open(text, deadline)

    def _words(self, failed: PipelineFailed) -> str:
        told = failed.told
        return told if _NAMES_ALONE.fullmatch(told) else conceal(self._camera, told)


class GStreamerSource(_Pipeline):
    """A pipeline of the settings whose ``appsink`` hands out pictures; always live, so its end is a loss."""

    def __init__(self, camera: CameraSettings) -> None:
        super().__init__(camera, f"GStreamer pipeline of camera {camera.id}")
        self._text = camera.source.removeprefix("gst:").strip()
        if "appsink" not in self._text:
            raise SourceError(f"{self._name} has no appsink", remedy=f"end it with ! {jetson.SINK}")
        self._capture = Capture(self._name)

    def open(self) -> None:
        """Start the pipeline, with the camera's credentials in its first URL.

        Raises:
            SourceError: nothing here runs pipelines, or this one does not start.
            SettingsError: the credentials file cannot be read.
        """
        credentials = read_credentials(self._camera.id, self._camera.credentials_file)
        text = self._with(credentials)
        if absent := why_no_gobject():
            self._open_with_opencv(text, absent)
            return
        try:
            self._start(text, Deadline(self._camera.open_timeout_s))
        except PipelineFailed as failed:
            raise SourceError(
                f"{self._name} does not start: {self._words(failed)}",
                remedy="try it with gst-launch-1.0 and fakesink in place of appsink",
            ) from None

    def read(self) -> RawFrame:
        """The next image.

        Raises:
            SourceError: the pipeline ended, fell silent, or hands out pictures of no known format.
        """
        if self._appsink is not None:
            return super().read()
        image = self._capture.read()
        if image is None:
            raise SourceError(f"{self._name} gave no frame: it ended or was silent for {self._camera.stall_s} s")
        return RawFrame(image)

    def close(self) -> None:
        """Stop the pipeline; idempotent."""
        super().close()
        self._capture.close()

    def _with(self, credentials: tuple[str, str] | None) -> str:
        """The text, with credentials in its first address."""
        if credentials is None:
            return self._text
        if (found := _URL.search(self._text)) is None:
            raise SourceError(
                f"{self._name} has credentials and no rtsp or http address to put them into",
                remedy="take credentials_file out, or write location=rtsp://...",
            )
        url = with_credentials(found["scheme"] + found["rest"], credentials).removeprefix(found["scheme"])
        return f"{self._text[: found.start()]}{found['scheme']}{found['over']}{url}{self._text[found.end() :]}"

    def _open_with_opencv(self, text: str, absent: str) -> None:
        if (without := why_absent()) is not None:
            raise SourceError(f"{self._name} cannot run: {absent}, and {without}", remedy=_NO_GSTREAMER)
        parameters = timeouts(self._camera.open_timeout_s, self._camera.stall_s) if takes_timeouts() else {}
        if not self._capture.open(text, load_cv2().CAP_GSTREAMER, parameters):
            raise SourceError(
                f"{self._name} does not start", remedy="try it with gst-launch-1.0 and fakesink in place of appsink"
            )


class CsiCamera(_Pipeline):
    """A camera on a Jetson's CSI connector."""

    def __init__(self, camera: CameraSettings) -> None:
        super().__init__(camera, shown(camera.source))

    def open(self) -> None:
        """Start it.

        Raises:
            SourceError: this machine has no such camera, or what reads it is not there.
        """
        if lacking := needs(jetson.CSI):
            raise SourceError(f"{self._name} cannot be read here: {lacking}")
        try:
            self._start(jetson.csi_pipeline(self._camera), Deadline(self._camera.open_timeout_s))
        except PipelineFailed as failed:
            raise SourceError(
                f"{self._name} gives no pictures: {self._words(failed)}",
                remedy="check its ribbon cable, that jetson-io has configured its sensor, and that the unit has its "
                "drop-in for CSI; where it gave pictures before, sudo systemctl restart nvargus-daemon frees it",
            ) from None


class DecodedInHardware(_Pipeline):
    """An RTSP camera on a Jetson's decoder; what it refuses is told like FFmpeg's refusals."""

    def __init__(self, camera: CameraSettings) -> None:
        super().__init__(camera, shown(camera.source))
        self._endpoint = endpoint_of(camera.source)

    def open(self) -> None:
        """Connect, with the camera's credentials percent-encoded in the address that GStreamer gets.

        Raises:
            SourceError: the camera cannot be reached, or gives no video that the decoder takes; says which.
            SettingsError: the credentials file cannot be read.
        """
        camera = self._camera
        credentials = read_credentials(camera.id, camera.credentials_file)
        deadline = Deadline(camera.open_timeout_s)
        try:
            look_up(self._endpoint.host, self._endpoint.port, deadline)
            open_over(
                camera.rtsp_transport, lambda transport: self._open_over(transport, credentials, deadline), deadline
            )
        except SourceRefused as refused:
            raise refused.told_of(self._name) from None

    def _open_over(self, transport: str, credentials: tuple[str, str] | None, deadline: Deadline) -> None:
        url = with_zone(with_credentials(self._camera.source, credentials or self._endpoint.credentials), "%25")
        try:
            self._start(jetson.rtsp_pipeline(self._camera, url, transport), deadline)
        except PipelineFailed as failed:
            self._ask_by_hand(failed, transport, credentials)
            raise self._told(failed) from None

    def _ask_by_hand(self, failed: PipelineFailed, transport: str, credentials: tuple[str, str] | None) -> None:
        """What GStreamer says of a camera that refused it is one sentence for much, and at times a wrong one.

        Raises:
            SourceRefused: the camera says no.
        """
        camera, deadline = self._camera, Deadline(min(_QUESTIONS_S, self._camera.open_timeout_s))
        found = why_refused(camera.source, credentials, transport, deadline, verify=camera.tls_verify)
        if found.why is not SourceRefusal.NO_PICTURE:
            raise found from None
        if failed.what is Failing.NETWORK and (credentials or self._endpoint.credentials):
            strange = unknown_digest(camera.source, deadline, verify=camera.tls_verify)
            if strange is not None:
                raise strange from None

    def _told(self, failed: PipelineFailed) -> SourceError:
        """Of a camera that answers every question."""
        if failed.what is Failing.STREAM:
            return SourceError(
                f"{self._name} is not decoded by the hardware: {self._words(failed)}",
                remedy='choose decode = "cpu", or H.264 or H.265 with 4:2:0 at the camera',
            )
        return SourceError(
            f"{self._name} sent no picture: {self._words(failed)}",
            remedy='try decode = "cpu", or the other rtsp_transport',
        )
