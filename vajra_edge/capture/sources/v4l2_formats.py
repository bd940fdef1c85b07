"""V4L2 formats: what a device of this machine gives, asked of its driver as ``v4l2-ctl --list-formats`` does."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable

from vajra_edge.errors import SourceError

# linux/videodev2.h: struct v4l2_fmtdesc is index, type, flags, description[32], pixelformat, mbus_code, reserved[3].
_FMTDESC = struct.Struct("=III32sI16x")
_VIDIOC_ENUM_FMT = 0xC0405602  # _IOWR('V', 2, struct v4l2_fmtdesc)
_BUFFER_TYPES = (1, 9)  # enum v4l2_buf_type: VIDEO_CAPTURE, and VIDEO_CAPTURE_MPLANE, which OpenCV reads from 4.7 on
_MOST = 64

PREFERRED = ("MJPG", "YUYV", "UYVY", "NV12", "YU12")
"""Of those that OpenCV turns into BGR: MJPEG first, since USB cameras reach their sizes and rates by it alone."""

_BAYER = frozenset(
    {"BA81", "GBRG", "GRBG", "RGGB", "BYR2"}
    | {f"{order}{bits}" for order in ("RG", "BA", "GB", "BG", "GR") for bits in (10, 12, 14, 16)}
    | {f"p{order}{bits}" for order in ("RA", "gA", "GA", "BA", "bA") for bits in "ACE"}
)
"""Raw sensors, as a CSI camera's node gives them without its image signal processor."""

Ioctl = Callable[[int, int, bytes], bytes]


def listed(path: str, ioctl: Ioctl = fcntl.ioctl) -> tuple[str, ...]:
    """The four-letter codes that a device captures in, as its driver orders them; empty where it lists none.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}", remedy="end what else uses it") from error
    try:
        of_each = (_of_type(descriptor, buffer_type, ioctl) for buffer_type in _BUFFER_TYPES)
        return next((found for found in of_each if found), ())
    finally:
        os.close(descriptor)


def _of_type(descriptor: int, buffer_type: int, ioctl: Ioctl) -> tuple[str, ...]:
    """A device has formats of one type; asked of the other it says EINVAL at once."""
    found = []
    for index in range(_MOST):
        try:
            answer = ioctl(descriptor, _VIDIOC_ENUM_FMT, _FMTDESC.pack(index, buffer_type, 0, b"", 0))
        except OSError:  # the end of the list, or no device of that type
            break
        found.append(_FMTDESC.unpack(answer)[4].to_bytes(4, "little").decode("latin-1"))
    return tuple(found)


def chosen(formats: tuple[str, ...], name: str) -> str | None:
    """What to ask for; None: nothing, the driver's own choice is as good.

    Args:
        formats: as the driver lists them.
        name: of the device, for errors.

    Raises:
        SourceError: it gives raw pictures of a sensor alone.
    """
    if formats and _BAYER.issuperset(formats):
        raise SourceError(
            f"{name} gives raw Bayer pictures of a sensor ({', '.join(formats[:3])})",
            remedy='read a CSI camera of a Jetson with source = "csi:0"',
        )
    return next((wanted for wanted in PREFERRED if wanted in formats), None)
