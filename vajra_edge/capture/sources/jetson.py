"""Jetson: the pipelines that use a Jetson's camera connector and its hardware decoder, as texts for GStreamer.

None names videoconvert, which takes as long for a picture as a small network (4 to 5 ms at 1080p): nvvidconv packs BGRx
in hardware, and that travels as it is. None names a property that a supported Jetson Linux lacks: nvv4l2decoder of 39.2
knows no enable-max-performance, and a property that is not there keeps a pipeline from starting.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass

from vajra_edge.config.address import csi_sensor
from vajra_edge.config.settings import CameraSettings

SINK = "appsink name=pictures drop=true max-buffers=1 sync=false"
"""The newest picture alone: whoever is late gets no old ones."""

_BGRX = "nvvidconv ! video/x-raw,format=BGRx"
_JITTER_MS = 200
_PLUGIN = "libgstnvvideo4linux2.so"
_PLUGIN_FOLDERS = ("/usr/lib/aarch64-linux-gnu/gstreamer-1.0", "/usr/lib/*/gstreamer-1.0")


SOURCE, DECODER = "source", "decoder"
"""Names of the two elements between which the codec decides."""

PARSERS = {
    "H264": ("rtph264depay", "h264parse"),
    "H265": ("rtph265depay", "h265parse"),
    "JPEG": ("rtpjpegdepay", "jpegparse"),
    "MP4V-ES": ("rtpmp4vdepay", "mpeg4videoparse"),
}
"""What unpacks a codec, by its name in RTP: those that cameras send and the decoder takes."""


@dataclass(frozen=True)
class Hardware:
    """Elements that a pipeline needs, and where they come from."""

    elements: tuple[str, ...]
    remedy: str


CSI = Hardware(
    ("nvarguscamerasrc", "nvvidconv"), "a camera on the CSI connector needs JetPack's package nvidia-l4t-gstreamer"
)
NVDEC = Hardware(
    ("rtspsrc", "nvv4l2decoder", "nvvidconv"),
    'install nvidia-l4t-gstreamer and gstreamer1.0-plugins-good, or choose decode = "cpu"',
)


def csi_pipeline(camera: CameraSettings) -> str:
    """For a camera on the CSI connector, through the image signal processor, at the size and rate of its settings.

    What is not set is NVIDIA's: 1920 x 1080 at 30 frames/s (``gst_nv_argus_camera_fixate``), whatever the sensor has.
    """
    caps = ["video/x-raw(memory:NVMM)"]
    for name, value in (("width", camera.width_px), ("height", camera.height_px)):
        caps += [f"{name}={value}"] if value is not None else []
    if camera.fps is not None:
        caps.append(f"framerate={round(camera.fps * 1000)}/1000")
    source = f"nvarguscamerasrc sensor-id={csi_sensor(camera.source)}"
    return f"{source} ! {','.join(caps)} ! {_BGRX} ! {SINK}"


def rtsp_pipeline(camera: CameraSettings, url: str, transport: str) -> str:
    """For a network camera, in two pieces: what comes from ``source`` is led to ``decoder`` once its codec is known.

    parsebin would do that in one piece, and packs H.264 as avc, which the decoder does not take.

    Args:
        camera: its settings.
        url: its address, with credentials, percent-encoded.
        transport: tcp or udp.
    """
    patience_us = round(camera.open_timeout_s * 1e6)
    quoted = url.replace("\\", "%5C").replace('"', "%22")  # in GStreamer's text the one escapes, the other ends it
    source = f'rtspsrc location="{quoted}" protocols={transport} latency={_JITTER_MS} drop-on-latency=true'
    source += f" timeout={patience_us} tcp-timeout={patience_us}"
    if not camera.tls_verify:
        source += " tls-validation-flags=0"
    return f"{source} name={SOURCE} nvv4l2decoder name={DECODER} ! {_BGRX} ! {SINK}"


def has_decoder() -> bool:
    """Whether the plugin of the hardware decoder lies where GStreamer looks; said without loading GStreamer."""
    folders = [*os.environ.get("GST_PLUGIN_PATH", "").split(os.pathsep), *_PLUGIN_FOLDERS]
    return any(glob.glob(os.path.join(folder, _PLUGIN)) for folder in folders if folder)  # noqa: PTH118, PTH207
