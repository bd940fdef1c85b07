"""Of an address people see scheme and host, and nothing else."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vajra_edge.config.address import UNSHOWN, conceal, shown
from vajra_edge.config.address_form import problem_of
from vajra_edge.config.settings import load
from vajra_edge.errors import SettingsError

SECRETS = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="/\0"), min_size=4, max_size=24
) | st.text("0123456789:@/?#[]%&=;'\"\\ {}|", min_size=4, max_size=16)

PLACES = (
    "rtsp://admin:{}@10.0.0.5/s",
    "rtsp://{}@10.0.0.5/s",
    "rtsp://{}:x@10.0.0.5/s",
    "rtsp://10.0.0.5:554/user=admin_password={}_channel=1_stream=0.sdp",
    "rtsp://10.0.0.5/{}",
    "rtsp://10.0.0.5/a;p={};q=1/live",
    "http://10.0.0.5/v.cgi?loginuse=admin&loginpas={}",
    "https://10.0.0.5/live?{}",
    "https://10.0.0.5/live#{}",
    "rtps://admin:{}@10.0.0.5/s",
    "ftp://admin:{}@10.0.0.5/s",
    "admin:{}@10.0.0.5/s",
    "rtsp:/admin:{}@10.0.0.5/s",
    "rtsp:// admin:{}@10.0.0.5/s",
    "rtsp://10.0.0.5:{}/s",
    "rtsp://[fe80::1]:x/{}",
    "gst:rtspsrc location=rtsp://10.0.0.5 user-id=a user-pw={} ! appsink",
    'gst:rtspsrc location="rtsp://a:{}@10.0.0.5/" ! appsink',
    "gst:srtsrc uri=srt://10.0.0.5?passphrase={} ! x",
)
OURS = "rtsp:// https:// rtps:// ftp:// 10.0.0.5 GStreamer pipeline the address fe80::1"


def pieces(text: str, spared: str) -> set[str]:
    found = {text[at : at + 4].lower() for at in range(len(text) - 3)}
    return {piece for piece in found if piece not in spared.lower()}


@given(SECRETS, st.sampled_from(PLACES), st.booleans())
def test_no_piece_of_a_secret_anywhere_in_an_address_is_shown(secret: str, place: str, encoded: bool) -> None:
    source = place.format(quote(secret, safe="") if encoded else secret)
    seen = shown(source).lower()
    assert not [piece for piece in pieces(secret, OURS) | pieces(quote(secret), OURS) if piece in seen]


@given(SECRETS, st.sampled_from(PLACES), st.booleans())
def test_no_piece_of_a_secret_stands_in_why_settings_are_refused(secret: str, place: str, encoded: bool) -> None:
    source = place.format(quote(secret, safe="") if encoded else secret)
    camera = {"id": "gate", "source": source, "fps": source, source: 1}
    with pytest.raises(SettingsError) as caught:
        load(None, {"weights": {"path": "/w"}, "mqtt": {"host": source}, "cameras": [camera]}, {})
    words = {word for word in str(caught.value).split() if word in KNOWN_WORDS or word.rstrip(":;,.") in KNOWN_WORDS}
    seen = " ".join(word for word in str(caught.value).split() if word not in words).lower()
    assert not [piece for piece in pieces(secret, f"{OURS} {KNOWN}") if piece in seen]


def said(source: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(
            None,
            {
                "weights": {"path": "/w"},
                "mqtt": {"host": source},
                "cameras": [{"id": "gate", "source": source, "fps": source, source: 1}],
            },
            {},
        )
    return str(caught.value)


KNOWN = " ".join(said(place.format("")) + said(place.format("\x01")) + said(place.format("[:9")) for place in PLACES)
"""What is said of the same addresses without the secret: our own words."""
KNOWN_WORDS = set(KNOWN.split())


@given(SECRETS, st.sampled_from(PLACES), st.booleans())
def test_no_piece_of_a_secret_is_left_in_what_a_library_says(secret: str, place: str, encoded: bool) -> None:
    source = place.format(quote(secret, safe="") if encoded else secret)
    basic = base64.b64encode(f"admin:{secret}".encode()).decode()
    told = conceal(
        f"[42] {source}: {secret!r} {quote(secret)} {secret.upper()} Basic {basic} 10.0.0.5", source, f"admin:{secret}"
    )
    left = told.replace("***", "\0").lower()
    assert not [piece for piece in pieces(secret, OURS) if piece in left]
    assert basic[:8] not in told


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("rtsp://admin:hunter2@Cam.local:554/1?x=2#y", "rtsp://cam.local"),
        ("RTSPS://[fe80::1]:322/1", "rtsps://[fe80::1]"),
        ("http://a:b:c@d@10.0.0.5/", "http://10.0.0.5"),
        ("/dev/video0", "/dev/video0"),
        ("/dev/v4l/by-id/usb-046d_C920-video-index0", "/dev/v4l/by-id/usb-046d_C920-video-index0"),
        ("/data/Clip 1 (old).mp4", "/data/Clip 1 (old).mp4"),
        ("gst:rtspsrc location=rtsp://a:b@h ! appsink", "GStreamer pipeline"),
        ("rtsp://hunter2/x@cam/1", UNSHOWN),
        ("rtsp://hunter2#x@cam/1", UNSHOWN),
        ("rtsp://cam:hunter2/1", UNSHOWN),
        ("hunter2://cam/1", UNSHOWN),
        ("rtsp://a:hunter2@[cam/1", UNSHOWN),
        ("admin:hunter2@10.0.0.5/1", UNSHOWN),
        ("/user=admin_password=hunter2", UNSHOWN),
        ("hunter2", UNSHOWN),
        ("rtsp://cam\nhunter2/", UNSHOWN),
    ],
)
def test_what_is_shown(source: str, seen: str) -> None:
    assert shown(source) == seen


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("redirected to https://u:hunter2@other/x?y", "redirected to https://other"),
        ("redirected to https://u:hun ter2@other/x failed", "redirected to *** failed"),
        ("http://one/hunter2 and (http://u:hunter2@two/) end", "http://one and (http://two) end"),
        ("'http://one/hunter2', 'http://two/hunter2'", "'http://one', 'http://two'"),
    ],
)
def test_other_addresses_in_what_a_library_says_are_cut_too(said: str, left: str) -> None:
    assert conceal(said, "rtsp://cam/1") == left


def test_what_a_library_says_keeps_its_own_words_and_the_host() -> None:
    said = "HTTPConnectionPool(host='cam', port=80): Max retries exceeded with url: /v?user=a&pwd=hunter2"
    assert conceal(said, "http://cam/v?user=a&pwd=hunter2") == (
        "HTTPConnectionPool(host='cam', port=80): Max retries exceeded with url: /v?***"
    )
    assert conceal("the stream ended", "rtsp://cam/live/stream1") == "the stream ended"
    assert conceal("the stream ended", "rtsp://u:stream1@cam/") == "the *** ended"
    assert conceal("the stream ended", "rtsp://cam/hunter2/stream?stream") == "the *** ended"
    assert conceal("no such element rtspsrc2", "gst:x user-pw=hunter2 ! appsink") == "no such element rtspsrc2"


@pytest.mark.parametrize("source", ["rtsp://cam:554/1", "rtsp://a:b@cam/user=a&b/@x", "http://[::1]/", "clip.mp4"])
def test_a_good_address_has_no_problem(source: str) -> None:
    assert problem_of(source) is None
