"""Addresses that cannot be meant are told in words, without a word of them."""

from __future__ import annotations

import pytest

from vajra_edge.config.address_form import problem_of


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("rtps://a:hunter2@cam/1", ["scheme rtps is not supported", "did you mean rtsp://?"]),
        ("rstp://cam/1", ["did you mean rtsp://?"]),
        ("htpp://cam/1", ["did you mean http://?"]),
        ("rtmp://cam/1", ["scheme rtmp is not supported", "use a file"]),
        ("file:///data/clip.mp4", ["scheme file is not supported", "of a file write the path alone"]),
        ("hunter2://cam/1", ["a scheme that is not supported"]),
        (" rtsp://cam/1", ["not a valid URL", "does not begin with a scheme"]),
        ('"rtsp://cam/1"', ["does not begin with a scheme"]),
        ("rtsp:/cam/hunter2", ["no :// behind its scheme rtsp", "write rtsp://host/path"]),
        ("rtsp:\\\\cam\\hunter2", ["no :// behind its scheme"]),
        ("http//cam/hunter2", ["no :// behind its scheme http"]),
        ("rtsp;//cam", ["no :// behind its scheme"]),
        ("rtsp://admin:my hunter2@cam/1", ["holds a space", "percent-encoded"]),
        ("rtsp://cam/1\n", ["invisible character U+000A"]),
        ("rtsp://cam/\u200b1", ["invisible character U+200B"]),
        ("rtsp://cam/\x00", ["invisible character U+0000"]),
        ("rtsp://cam:99999/1", ["its port must be a number from 1 to 65535"]),
        ("rtsp://cam:0/1", ["its port"]),
        ("rtsp://cam:/1", ["its port"]),
        ("rtsp://cam:5 54/1", ["holds a space"]),
        ("rtsp://admin:hunter2#x@cam/1", ["its port", "credentials_file"]),
        ("rtsp://[::1/x", ["IPv6 address stands in brackets"]),
        ("rtsp://fe80::1/x", ["IPv6 address stands in brackets"]),
        ("rtsp://[fe80::g]/x", ["not a valid URL"]),
        ("rtsp://", ["names no host"]),
        ("rtsp:///path", ["names no host"]),
        ("rtsp://admin:hunter2@/1", ["names no host"]),
        ("rtsp://10.0.0.500/1", ["no valid IPv4 address"]),
        ("rtsp://10.0.0/1", ["no valid IPv4 address"]),
        ("rtsp://cam..local/1", ["its host is no name"]),
        (f"rtsp://{'a' * 64}/1", ["its host is no name"]),
        (f"rtsp://{'ü' * 60}/1", ["its host is no name"]),
        ("rtsp://cam%40x/1", ["its host is no name"]),
        ("192.168.1.5/hunter2", ["looks like a host without a scheme", "rtsp://"]),
        ("cam:554/hunter2", ["looks like a host without a scheme"]),
        ("admin:hunter2@cam/1", ["looks like a host without a scheme"]),
        ("0", ["write /dev/video0"]),
        ("dev/video2", ["write /dev/video0"]),
        ("", ["is empty"]),
        ("  ", ["is empty"]),
        ("/data/clip.mp4 ", ["a space or a quotation mark at its end"]),
        ("'/data/clip.mp4'", ["quotation mark"]),
        ("/data/\x00clip.mp4", ["U+0000"]),
        ("GST: rtspsrc ! appsink", ["begin it with gst:"]),
        ("nvarguscamerasrc ! nvvidconv ! appsink", ["looks like a pipeline", "begin it with gst:"]),
        ("gst:", ["without appsink"]),
        ("mjpeg://a:hunter2@cam/1", ["scheme mjpeg is not supported"]),
        ("rtsp://admin:hunter2?@cam/1", ["or a / ? or # stands in its password"]),
        (f"rtsp://cam/{'a' * 4096}", ["4096 characters at the most"]),
        ("rtsp://cam/1?hunter2=1&amp;b=2", ["holds &amp;", "write & alone"]),
        ("rtsp://me:${CAM_PASSWORD}@cam/1", ["holds a placeholder", "credentials_file"]),
        ("rtsp://me:{FRIGATE_RTSP_PASSWORD}@cam/1", ["holds a placeholder"]),
        ("rtsp://me:{{password}}@cam/1", ["holds a placeholder"]),
        ("!secret cam_url", ["holds a placeholder"]),
        ("$CAM_URL", ["holds a placeholder"]),
        ("/data/$CAM/clip.mp4", ["holds a placeholder"]),
        ("C:\\clips\\hunter2.mp4", ["is a path of Windows"]),
        ("\\\\nas\\hunter2.mp4", ["is a path of Windows"]),
        ("//10.0.0.5/hunter2", ["looks like a host without a scheme"]),
        ("/dev/vidoe0", ["is no camera's device"]),
        ("/dev/zero", ["is no camera's device"]),
        ("/dev/video0:1280x720", ["is no camera's device"]),
        ("gst:rtspsrc user-pw=hunter2 ! fakesink", ["without appsink", "! appsink"]),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy_and_without_a_word_of_the_address(source: str, words: list[str]) -> None:
    problem = problem_of(source)
    assert problem is not None
    line = f"{problem.what}; {problem.remedy}"
    for part in words:
        assert part in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "source",
    [
        "clip.mp4", "./0", "/mnt/usb/not yet mounted.mp4", "/data/with:colon", "~/clips", "/data/a@b.jpg",
        "/dev/video0", "/dev/v4l/by-path/platform-xhci-usb-0:1.2:1.0-video-index0",
        "rtsp://cam/1", "rtsp://cam:554/cam/realmonitor?channel=1&subtype=0", "RTSPS://cam:322/1",
        "http://[::1]:8080/video", "rtsp://[fe80::1%25eth0]/1", "rtsp://küche.local/1", "rtsp://cam_2.lan./1",
        "rtsp://admin:p%40s%23@10.0.0.5:554/1", "rtsp://10.0.0.5/user=a_password=b_channel=1.sdp",
        "rtsp://10.0.0.5:554/cam@2", "http://cam/v?u=me@site.com", "rtsp://a:hun'ter\"2!$&*()@cam/{}|^",
        "gst:videotestsrc ! appsink", "gst:videotestsrc ! video/x-raw,format={NV12,I420} ! appsink",
        "/dev/shm/clip.mp4", "/data/$5/clip.mp4", "/data/it works!.mp4", "rtsp://me:pa$WORD@cam/1",
    ],
)  # fmt: skip
def test_what_cameras_really_have_is_taken(source: str) -> None:
    assert problem_of(source) is None
