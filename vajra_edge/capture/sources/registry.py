"""Registry: which source the text in a camera's settings asks for."""

from __future__ import annotations

import logging

from vajra_edge.capture.sources import clip, folder, gstreamer, jetson, stream, v4l2, web
from vajra_edge.capture.sources.base import Source
from vajra_edge.capture.url import Kind, endpoint_of, kind_of, shown
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError

log = logging.getLogger(__name__)


def make(camera: CameraSettings) -> Source:
    """The source that the camera's ``source`` text asks for, not yet open.

    Raises:
        SourceError: the text names nothing that can be a source: unknown scheme, malformed URL, missing file or device.
    """
    kind = kind_of(camera.source)
    if kind is Kind.GSTREAMER:
        return gstreamer.GStreamerSource(camera)
    if kind is Kind.CSI:
        return gstreamer.CsiCamera(camera)
    if kind is Kind.STREAM:
        is_web = endpoint_of(camera.source).scheme in {"http", "https"}
        return web.WebCamera(camera) if is_web else _rtsp(camera)
    if kind is Kind.V4L2:
        return v4l2.Device(camera)
    images = folder.images_at(camera.source)
    return folder.ImageFolder(camera, images) if images is not None else clip.Clip(camera)


def _rtsp(camera: CameraSettings) -> Source:
    """On the hardware decoder where there is one; a machine without one is not asked for GStreamer at all."""
    if camera.decode == "cpu" or (camera.decode == "auto" and not jetson.has_decoder()):
        return stream.NetworkStream(camera)
    lacking = gstreamer.needs(jetson.NVDEC)
    if not lacking:
        return gstreamer.DecodedInHardware(camera)
    if camera.decode == "nvdec":
        raise SourceError(f"{shown(camera.source)} cannot be decoded in hardware: {lacking}")
    log.warning("camera %s is decoded by the CPU: %s", camera.id, lacking)
    return stream.NetworkStream(camera)
