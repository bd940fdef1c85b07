"""The formats of a V4L2 device, by a driver that is made up; a real one is asked on the emulated board."""

from __future__ import annotations

import struct

import pytest

from vajra_edge.capture.sources import v4l2_formats
from vajra_edge.errors import SourceError


def driver(*formats: str, of_type: int = 1):
    """An ioctl that lists these, as the kernel does: EINVAL after the last, and for the other type of buffers."""

    def ioctl(_: int, request: int, content: bytes) -> bytes:
        assert request == 0xC0405602
        index, kind = struct.unpack_from("=II", content)
        assert len(content) == 64
        if kind != of_type or index >= len(formats):
            raise OSError(22, "Invalid argument")
        return struct.pack("=III32s4sI12x", index, kind, 0, b"x", formats[index].encode(), 0)

    return ioctl


@pytest.mark.parametrize("of_type", [1, 9])
def test_a_device_of_one_plane_or_of_more_lists_its_formats_in_its_own_order(of_type: int):
    assert v4l2_formats.listed("/dev/null", driver("YUYV", "MJPG", of_type=of_type)) == ("YUYV", "MJPG")
    assert v4l2_formats.listed("/dev/null", driver(of_type=of_type)) == ()


def test_a_real_file_that_is_no_device_lists_nothing():
    assert v4l2_formats.listed("/dev/null") == ()


@pytest.mark.parametrize(
    ("formats", "asked"),
    [(("YUYV", "MJPG"), "MJPG"), (("NV12", "YUYV"), "YUYV"), (("NV12",), "NV12"), (("H264",), None), ((), None)],
)
def test_what_gives_full_rate_is_asked_for_and_nothing_that_is_not_listed(formats, asked):
    assert v4l2_formats.chosen(formats, "/dev/video0") == asked


def test_a_raw_sensor_is_named_with_the_way_to_read_it():
    with pytest.raises(SourceError, match=r'raw Bayer pictures of a sensor \(RG10\); read a CSI .* source = "csi:0"'):
        v4l2_formats.chosen(("RG10",), "/dev/video0")


def test_a_device_that_is_gone_is_told():
    with pytest.raises(SourceError, match="cannot be opened: No such file"):
        v4l2_formats.listed("/nonexistent/video0")
