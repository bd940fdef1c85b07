"""Registry: which source the text in a camera's settings asks for."""

from __future__ import annotations

from vajra_edge.capture.sources import clip, folder, gstreamer, stream, v4l2, web
from vajra_edge.capture.sources.base import Source
from vajra_edge.capture.url import Kind, endpoint_of, kind_of
from vajra_edge.config.settings import CameraSettings


def make(camera: CameraSettings) -> Source:
    """The source that the camera's ``source`` text asks for, not yet open.

    Raises:
        SourceError: the text names nothing that can be a source: unknown scheme, malformed URL, missing file or device.
    """
    kind = kind_of(camera.source)
    if kind is Kind.GSTREAMER:
        return gstreamer.GStreamerSource(camera)
    if kind is Kind.STREAM:
        is_web = endpoint_of(camera.source).scheme in {"http", "https"}
        return web.WebCamera(camera) if is_web else stream.NetworkStream(camera)
    if kind is Kind.V4L2:
        return v4l2.Device(camera)
    images = folder.images_at(camera.source)
    return folder.ImageFolder(camera, images) if images is not None else clip.Clip(camera)
