"""A network stream that is decoded more slowly than it comes: it stays near the newest, and tells its age truly."""

from __future__ import annotations

import io
import itertools
import logging
import socket
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import write_clip
from little_servers import head_of, listening

from vajra_edge.capture.sources import registry
from vajra_edge.capture.sources.base import RawFrame
from vajra_edge.config.settings import CameraSettings
from vajra_edge.media.ffmpeg import DecodedVideo

FPS = 50
SLOW_S = 0.1  # a frame takes that long, five times what there is for it
RUN_S = 9.0
LATE_S = 5.0
"""What nobody may be behind: two to three seconds are cut; uncut they would be seven."""

BLOCK_PX = 16


def painted(number: int) -> np.ndarray:
    """Twelve blocks that are the bits of its number."""
    bits = np.array([number >> bit & 1 for bit in range(12)], np.uint8).reshape(3, 4)
    return np.repeat((200 * bits + 20).repeat(BLOCK_PX, 0).repeat(BLOCK_PX, 1)[..., None], 3, 2)


def number_in(image: np.ndarray) -> int:
    middles = image[BLOCK_PX // 2 :: BLOCK_PX, BLOCK_PX // 2 :: BLOCK_PX, 1] > 100
    return sum(1 << bit for bit, is_set in enumerate(middles.ravel()) if is_set)


def transport_stream(frames: int, *, key_every: int, refresh: str = "") -> list[bytes]:
    """MPEG-TS with H.264, in the pieces of its frames."""
    sink, pieces = io.BytesIO(), []
    with av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 4 * BLOCK_PX, 3 * BLOCK_PX, "yuv420p"
        stream.options = {"tune": "zerolatency", "g": str(key_every), "x264-params": f"scenecut=0{refresh}"}
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(painted(number), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            for packet in stream.encode(frame):
                output.mux(packet)
                pieces.append(sink.getvalue()[sum(map(len, pieces)) :])
    return pieces


class Camera:
    """Sends each frame when it is due, and remembers when."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.sent_s: list[float] = []
        self._pieces = pieces

    def serve(self, connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
        began_s, sent_s = time.monotonic(), list[float]()
        self.sent_s = sent_s  # WebCamera asks twice: of the last answer
        for number, piece in enumerate(self._pieces):
            time.sleep(max(0.0, began_s + number / FPS - time.monotonic()))
            sent_s.append(time.monotonic())
            connection.sendall(piece)


def read_slowly(pieces: list[bytes], slow_s: float) -> list[tuple[RawFrame, int, float]]:
    """What was read in ``RUN_S``: each frame, its number, and how old it was when it came out of ``read``."""
    camera, found = Camera(pieces), []
    with listening(camera.serve) as port:
        source = registry.make(CameraSettings(id="gate", source=f"http://127.0.0.1:{port}/live.ts"))
        source.open()
        until_s = time.monotonic() + RUN_S
        while (began_s := time.monotonic()) < until_s:
            frame = source.read()
            assert frame is not None
            number = number_in(frame.image)
            found.append((frame, number, time.monotonic() - camera.sent_s[number]))
            time.sleep(max(0.0, began_s + slow_s - time.monotonic()))
        source.close()
    assert source.decode_errors == 0
    return found


def test_a_decoder_that_is_too_slow_stays_near_the_newest_and_tells_how_old_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = read_slowly(transport_stream(int(4 * RUN_S * FPS), key_every=FPS // 2), SLOW_S)
    assert max(age_s for _, _, age_s in found) < LATE_S
    assert max(abs(frame.age_s - age_s) for frame, _, age_s in found) < 0.4 * LATE_S
    gaps = sum(after - before - 1 for (_, before, _), (_, after, _) in itertools.pairwise(found))
    assert sum(frame.left_out for frame, _, _ in found) == gaps > 0, "each is counted"
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["camera gate"]
    assert "fps" in caplog.text


def test_no_frame_is_left_out_of_a_stream_that_is_decoded_in_time() -> None:
    found = read_slowly(transport_stream(int(4 * RUN_S * FPS), key_every=FPS // 2), 0.0)
    assert all(after == before + 1 for (_, before, _), (_, after, _) in itertools.pairwise(found))
    assert sum(frame.left_out for frame, _, _ in found) == 0
    assert found[-1][0].age_s < 0.4 * LATE_S


def test_without_a_key_frame_in_the_line_none_is_left_out_and_the_age_is_still_true() -> None:
    found = read_slowly(transport_stream(int(4 * RUN_S * FPS), key_every=10_000), SLOW_S)
    assert all(after == before + 1 for (_, before, _), (_, after, _) in itertools.pairwise(found))
    assert found[-1][2] > LATE_S
    assert abs(found[-1][0].age_s - found[-1][2]) < 0.4 * LATE_S


def test_where_pictures_are_refreshed_bit_by_bit_there_is_no_frame_to_begin_anew_at() -> None:
    pieces = transport_stream(int(4 * RUN_S * FPS), key_every=FPS // 2, refresh=":intra-refresh=1")
    found = read_slowly(pieces, SLOW_S)
    assert all(after == before + 1 for (_, before, _), (_, after, _) in itertools.pairwise(found))
    assert abs(found[-1][0].age_s - found[-1][2]) < 0.4 * LATE_S


@pytest.mark.parametrize(("name", "in_bursts"), [("live.m3u8", True), ("live.ts", False)])
def test_segments_come_in_bursts_which_are_no_backlog(tmp_path: Path, name: str, *, in_bursts: bool) -> None:
    write_clip(tmp_path / name)
    video = DecodedVideo(name)
    video.open(str(tmp_path / name), {}, live=True)
    assert video.comes_in_bursts == in_bursts
    video.close()
