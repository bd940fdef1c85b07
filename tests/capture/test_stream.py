"""RTSP cameras with the habits of real ones, through FFmpeg."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from clips import h264_units
from pictures import number_of, picture
from rtsp_camera import RtspCamera

from vajra_edge.capture.sources import registry
from vajra_edge.capture.sources.base import Source
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError

UNITS = h264_units(40)


def make(address: str, **settings: object) -> Source:
    usual = {"id": "gate", "source": address, "open_timeout_s": 20.0, "stall_s": 20.0}
    return registry.make(CameraSettings.model_validate({**usual, **settings}))


def numbers(source: Source, count: int) -> list[int]:
    frames = [source.read() for _ in range(count)]
    return [number_of(frame.image) for frame in frames if frame is not None]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_is_read_by_the_transport_that_is_set(transport: str) -> None:
    camera = RtspCamera(UNITS)
    with camera.running() as address:
        source = make(address, rtsp_transport=transport)
        source.open()
        seen = numbers(source, 10)
        assert [(after - before) % 20 for before, after in itertools.pairwise(seen)] == [1] * 9
        assert source.decode_errors == 0
        source.close()
        source.close()
    setups = [request for request in camera.asked if request.startswith("SETUP")]
    assert ["TCP" in request for request in setups] == [transport == "tcp"]


def test_without_a_word_tcp_is_spoken() -> None:
    camera = RtspCamera(UNITS)
    with camera.running() as address:
        source = make(address)
        source.open()
        assert source.read() is not None
        source.close()
    assert ["TCP" in request for request in camera.asked if request.startswith("SETUP")] == [True]


@pytest.mark.parametrize("refusal", ["461 Unsupported Transport", "400 Bad Request", "500 Internal Server Error"])
def test_a_camera_that_only_speaks_udp_is_read_whatever_it_says_to_tcp(refusal: str) -> None:
    with RtspCamera(UNITS, transports=frozenset({"udp"}), refusal=refusal).running() as address:
        source = make(address)
        source.open()
        assert len(numbers(source, 5)) == 5
        source.close()


def test_a_camera_that_only_speaks_udp_says_so_to_tcp() -> None:
    says = pytest.raises(SourceError, match=r"does not send over TCP \(461\); set rtsp_transport = .auto")
    with RtspCamera(UNITS, transports=frozenset({"udp"})).running() as address, says:
        make(address, rtsp_transport="tcp").open()


def test_a_camera_that_plays_and_sends_nothing_is_told_from_one_that_is_silent() -> None:
    says = pytest.raises(SourceError, match="describes its video and then sends none of it; try the other rtsp_trans")
    with RtspCamera(UNITS, silent_tcp=True).running() as address, says:
        make(address, open_timeout_s=3.0).open()


def test_the_first_image_is_a_whole_one() -> None:
    """Who comes in within a group of pictures gets none of it: there would be grey with smears in it."""
    with RtspCamera(UNITS, begin_at=3).running() as address:
        source = make(address)
        source.open()
        assert numbers(source, 1) == [10], "the next key frame"
        assert source.decode_errors == 0, "what cannot be decoded before is no damage"
        source.close()


def test_a_camera_without_key_frames_is_told_what_to_set() -> None:
    rare = h264_units(200, key_every=200)
    with RtspCamera(rare[3:], begin_at=0).running() as address:
        source = make(address, stall_s=1.5, open_timeout_s=3.0)
        source.open()
        with pytest.raises(SourceError, match=r"sent no key frame for [\d.]+ s; shorten the key frame interval"):
            source.read()
        source.close()


def test_a_change_of_resolution_gives_images_of_the_new_size() -> None:
    frames = [*UNITS[:20], *h264_units(20, paint=lambda number: picture(number, 96, 64))]
    with RtspCamera(frames).running() as address:
        source = make(address)
        source.open()
        sizes = [frame.image.shape[:2] for frame in (source.read() for _ in range(60)) if frame is not None]
        source.close()
    changes = [after for before, after in itertools.pairwise(sizes) if before != after]
    assert (64, 96) in changes
    assert (48, 64) in changes


def noisy(number: int) -> np.ndarray:
    """Many packets a frame."""
    return np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8)


def test_lost_packets_are_counted_and_the_stream_goes_on() -> None:
    frames = h264_units(40, paint=noisy)
    with RtspCamera(frames, drop=frozenset(range(60, 4000, 37)), every_s=0.02).running() as address:
        source = make(address, rtsp_transport="udp")
        source.open()
        assert len([source.read() for _ in range(25)]) == 25
        assert source.decode_errors > 0
        source.close()


def test_a_login_by_digest_opens_it_and_is_in_no_error(tmp_path: Path) -> None:
    secret = tmp_path / "own"
    with RtspCamera(UNITS, login=("ad@min", "p/w: #1")).running() as address:
        secret.write_text("ad@min:p/w: #1", encoding="utf-8")
        source = make(address, credentials_file=secret)
        source.open()
        assert source.read() is not None
        source.close()
        secret.write_text("admin:hunter2", encoding="utf-8")
        with pytest.raises(SourceError, match=r"refuses user and password \(401\)") as caught:
            make(address, credentials_file=secret).open()
        assert "hunter2" not in str(caught.value)
        with pytest.raises(SourceError, match=r"asks for user and password \(401\); write user:password"):
            make(address).open()


STRANGE = "asks for a login of a kind that is not known: digest with SHA-256; set basic login or digest with MD5"


@pytest.mark.parametrize("algorithms", [("SHA-256",), ("MD5", "SHA-256")])
def test_a_login_that_ffmpeg_cannot_hash_is_no_wrong_password(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    secret = tmp_path / "own"
    secret.write_text("admin:hunter2", encoding="utf-8")
    camera = RtspCamera(UNITS, login=("admin", "hunter2"), algorithms=algorithms)
    with camera.running() as address, pytest.raises(SourceError, match=STRANGE):
        make(address, credentials_file=secret).open()
    assert camera.asked[-1].startswith("DESCRIBE")
    assert "Authorization" not in camera.asked[-1], "one more wrong login may lock the account"


def test_a_camera_that_offers_md5_last_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "own"
    secret.write_text("admin:hunter2", encoding="utf-8")
    with RtspCamera(UNITS, login=("admin", "hunter2"), algorithms=("SHA-256", "MD5")).running() as address:
        source = make(address, credentials_file=secret)
        source.open()
        assert source.read() is not None
        source.close()


def test_a_camera_that_falls_silent_ends_the_read() -> None:
    with RtspCamera(UNITS[:1] + [[]] * 100_000, every_s=0.002).running() as address:
        source = make(address, stall_s=0.5, open_timeout_s=5.0)
        source.open()
        began_s = time.monotonic()
        with pytest.raises(SourceError, match=r"no new frame for [\d.]+ s|sent no"):  # noqa: PT012
            for _ in range(100):
                began_s = time.monotonic()
                source.read()
        assert time.monotonic() - began_s > 0.4
        source.close()


def test_a_camera_that_is_slow_by_its_settings_is_waited_for() -> None:
    with RtspCamera(UNITS[:1], every_s=1.5).running() as address:
        source = make(address, stall_s=0.3, fps=0.5, open_timeout_s=20.0)
        source.open()
        assert len(numbers(source, 3)) == 3
        source.close()
