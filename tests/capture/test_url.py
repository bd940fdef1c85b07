"""Addresses: kinds, parts, credentials, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.capture.sources.connection import look_up
from vajra_edge.capture.url import (
    Kind,
    endpoint_of,
    is_live,
    kind_of,
    read_credentials,
    shown,
    with_credentials,
    with_zone,
)
from vajra_edge.errors import SettingsError, SourceError
from vajra_edge.media.deadline import Deadline
from vajra_edge.media.refusals import SourceRefused


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("clip.mp4", Kind.PATH),
        ("/data/with:colon", Kind.PATH),
        ("rtsp://cam/1", Kind.STREAM),
        ("RTSPS://cam:322/1", Kind.STREAM),
        ("http://[::1]:8080/video", Kind.STREAM),
        ("https://cam/video", Kind.STREAM),
        ("/dev/video0", Kind.V4L2),
        ("/dev/v4l/by-id/usb-cam", Kind.V4L2),
        ("gst:videotestsrc ! appsink", Kind.GSTREAMER),
    ],
)
def test_the_text_tells_the_kind(source: str, kind: Kind) -> None:
    assert kind_of(source) is kind
    assert is_live(source) is (kind is not Kind.PATH)


@pytest.mark.parametrize("source", ["ftp://a:hunter2@cam/1", "concat:///etc/passwd", "file:///clip.avi"])
def test_an_unknown_scheme_is_named_with_what_is_allowed(source: str) -> None:
    with pytest.raises(SourceError, match=r"scheme \w+ is not supported; use a file") as caught:
        kind_of(source)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://",
        "rtsp:///path",
        "rtsp://cam:99999/1",
        "rtsp://cam:0/",
        "http://[::1",
        "rtsp://a:hunter2/x@cam",
        "rtsp://a b/",
    ],
)
def test_a_malformed_url_is_refused_without_quoting_a_password(source: str) -> None:
    with pytest.raises(SourceError, match="not a valid URL") as caught:
        kind_of(source)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtsp://cam:554/1?x=2", "rtsp://us%40er:p%3A%2F%23%20w@cam:554/1?x=2"),
        ("rtsp://old:one@cam/1", "rtsp://us%40er:p%3A%2F%23%20w@cam/1"),
        ("http://[::1]:80/v", "http://us%40er:p%3A%2F%23%20w@[::1]:80/v"),
    ],
)
def test_credentials_are_percent_encoded_in_place_of_the_urls_own(url: str, expected: str) -> None:
    assert with_credentials(url, ("us@er", "p:/# w")) == expected
    assert with_credentials(url, None) == url


def test_credentials_come_from_the_file_or_the_credentials_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "camera-gate").write_text("directory:secret:with:colons\n", encoding="utf-8")
    (tmp_path / "own").write_text("file:\n", encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_credentials("gate", None) == ("directory", "secret:with:colons")
    assert read_credentials("gate", tmp_path / "own") == ("file", "")
    assert read_credentials("yard", None) is None
    with pytest.raises(SettingsError):
        read_credentials("gate", tmp_path / "missing")


@pytest.mark.parametrize("content", ["hunter2", ":hunter2", '"me:hunter2"', "'me:hunter2'"])
def test_credentials_without_a_user_are_refused_without_quoting_them(tmp_path: Path, content: str) -> None:
    (tmp_path / "own").write_text(content, encoding="utf-8")
    with pytest.raises(SourceError, match="camera gate") as caught:
        read_credentials("gate", tmp_path / "own")
    assert "hunter2" not in str(caught.value)


@given(st.text() | st.from_regex(r"(rtsp|http)s?://[!-~\xa0-\u0450]{0,40}", fullmatch=True), st.text(min_size=1))
def test_any_text_is_a_source_or_is_refused_and_takes_any_credentials(source: str, secret: str) -> None:
    try:
        kind = kind_of(source)
    except SourceError:
        return
    if kind is Kind.STREAM:
        url = with_credentials(source, (secret.encode(errors="replace").decode(), "p@:/?#[] ü"))
        assert kind_of(url) is Kind.STREAM
        assert shown(url) == shown(with_credentials(source, ("u", "p")))


def test_an_address_is_taken_apart() -> None:
    endpoint = endpoint_of("RTSPS://us%40er:p%2Fw@Cam.local/live/1?ch=2&key=\u00fc")
    assert (endpoint.scheme, endpoint.host, endpoint.port, endpoint.secure) == ("rtsps", "cam.local", 322, True)
    assert endpoint.credentials == ("us@er", "p/w")
    assert endpoint.target == "/live/1?ch=2&key=%C3%BC"
    assert endpoint.url == "rtsps://cam.local/live/1?ch=2&key=%C3%BC"
    assert endpoint_of("http://[::1]:8080").url == "http://[::1]:8080/"
    assert endpoint_of("http://cam").credentials is None


@pytest.mark.parametrize("written", ["%25", "%"])
def test_the_interface_of_a_link_local_address_is_written_as_each_library_reads_it(written: str) -> None:
    url = f"rtsp://me:p%25w@[fe80::1{written}enP8p1s0]:554/a%25b?c=%25]"
    assert with_zone(url, "%") == "rtsp://me:p%25w@[fe80::1%enP8p1s0]:554/a%25b?c=%25]"
    assert with_zone(url, "%25") == "rtsp://me:p%25w@[fe80::1%25enP8p1s0]:554/a%25b?c=%25]"
    endpoint = endpoint_of(url)
    assert endpoint.host == "fe80::1%enP8p1s0"
    assert endpoint.url == "rtsp://[fe80::1]/a%25b?c=%25]", "the camera knows no interface of ours"
    for other in ("rtsp://[::1]/%25]", "rtsp://cam/%25]", "rtsp://a%25b:c@cam/1@[x%25y]"):
        assert with_zone(other, "%") == other


def test_an_interface_is_asked_for_by_its_own_name() -> None:
    assert look_up("fe80::1%lo", 554, Deadline(1.0)) == [("fe80::1%lo", 554)]
    with pytest.raises(SourceRefused) as caught:
        look_up("fe80::1%wlan77", 554, Deadline(1.0))
    assert caught.value.reason == "cannot be reached: there is no network interface wlan77"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://admin:hunter2@cam:554/hunter2?p=hunter2", "rtsp://cam"),
        ("http://[::1]:80/v", "http://[::1]"),
        ("rtsp://a:hunter2/x@cam", "the address"),
    ],
)
def test_scheme_and_host_are_all_that_is_shown(source: str, expected: str) -> None:
    assert shown(source) == expected
