"""Pictures that come one by one, as JPEG, PNG or WebP: decoded by FFmpeg, once their header has shown their size.

FFmpeg and not OpenCV: it tells of damage inside a JPEG, where libjpeg gives grey, and needs no tables or end mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import SourceError
from vajra_edge.media.ffmpeg import ToBgr
from vajra_edge.media.image_header import ImageKind, header_of
from vajra_edge.media.jpeg_markers import segments
from vajra_edge.media.limits import MAX_IMAGE_PX, MAX_SCANS
from vajra_edge.media.pixels import check_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_CODECS: Mapping[ImageKind, str] = {ImageKind.JPEG: "mjpeg", ImageKind.PNG: "png", ImageKind.WEBP: "webp"}


class DamagedPicture(Exception):
    """What came is no picture, damaged, or too large; the next may be good."""


class PictureDecoder:
    """Decodes the pictures of one camera.

    Args:
        name: how errors call it, without user, path and password.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._to_bgr: ToBgr | None = None

    def decoded(self, content: bytes) -> NDArray[np.uint8]:
        """One picture, upright.

        Raises:
            DamagedPicture: it is none, it is damaged, or it is larger than anything that a camera sends.
        """
        content = content.lstrip(b"\r\n")
        header = header_of(content)
        if header is None or header.kind not in _CODECS:
            raise DamagedPicture(f"{len(content)} bytes that are no JPEG, PNG or WebP picture")
        if header.kind is ImageKind.JPEG and sum(segment.is_scan for segment in segments(content)) > MAX_SCANS:
            raise DamagedPicture(f"a JPEG of more than {MAX_SCANS} scans")
        self._to_bgr = self._to_bgr or ToBgr()
        try:
            check_size(header.width_px, header.height_px, self._name)
            return self._to_bgr.bgr(_frame(_CODECS[header.kind], content), self._name)
        except SourceError as error:
            raise DamagedPicture(error.message) from None


def _frame(codec: str, content: bytes) -> VideoFrame:
    import av

    context = av.CodecContext.create(codec, "r")
    context.options = {"err_detect": "explode", "max_pixels": str(MAX_IMAGE_PX)}
    context.thread_count = 1
    try:
        frames = [*context.decode(av.Packet(content)), *context.decode(None)]  # type: ignore[attr-defined]
    except av.error.FFmpegError as error:
        raise DamagedPicture(f"a damaged picture: {error.strerror}") from None
    if not frames or frames[0].is_corrupt:
        raise DamagedPicture("a damaged picture")
    frame: VideoFrame = frames[0]
    return frame
