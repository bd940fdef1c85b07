"""Frames of clips by their numbers, and how many there are."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clip
from pictures import number_of, picture

from vajra_edge.capture.sources import registry
from vajra_edge.config.settings import CameraSettings
from vajra_edge.media import clip
from vajra_edge.media.clip import ClipFrames, UnusableClip


class Pipe:
    """Writes that cannot be gone back in: what is written live never gets to know its length."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, content: bytes) -> int:
        return self._file.write(content)

    def close(self) -> None:
        self._file.close()


def write_live(path: Path, container: str, codec: str, frames: int = 20) -> Path:
    """As a browser's MediaRecorder does."""
    pipe = Pipe(path)
    with av.open(pipe, "w", format=container, options={"live": "1"}) as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="bgr24")))
        output.mux(stream.encode(None))
    pipe.close()
    return path


def noisy(number: int) -> np.ndarray:
    """Many bytes a frame."""
    return np.random.default_rng(number).integers(0, 255, (96, 128, 3), np.uint8)


def numbers(path: Path) -> list[int]:
    """Of all frames, as they show them."""
    return [number_of(image) for _, image in ClipFrames(path, range(clip.count(path)))]


FORMATS = [
    ("a.mp4", "libx264"),
    ("b.mkv", "libx265"),
    ("c.avi", "mpeg4"),
    ("d.webm", "libvpx"),
    ("e.webm", "libvpx-vp9"),
    ("f.ts", "libx264"),
    ("g.mpg", "mpeg2video"),
    ("h.mp4", "libsvtav1"),
]


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_every_frame_is_counted_once_and_comes_in_order(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, 20, codec=codec)
    assert clip.count(path) == 20
    assert numbers(path) == list(range(20))


@pytest.mark.parametrize(("name", "codec"), FORMATS[:3])
def test_a_frame_by_its_number_is_the_one_that_comes_so_far(tmp_path: Path, name: str, codec: str) -> None:
    path = write_clip(tmp_path / name, 20, codec=codec)
    assert [(number, number_of(image)) for number, image in ClipFrames(path, (0, 3, 4, 19))] == [
        (0, 0),
        (3, 3),
        (4, 4),
        (19, 19),
    ]


@pytest.mark.parametrize(("name", "form", "codec"), [("a.webm", "webm", "libvpx"), ("b.mkv", "matroska", "libx264")])
def test_a_clip_that_states_no_length_is_read_to_its_end(tmp_path: Path, name: str, form: str, codec: str) -> None:
    path = write_live(tmp_path / name, form, codec)
    assert clip.count(path) == 20
    assert numbers(path) == list(range(20))


def test_pictures_that_are_never_shown_are_not_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.webm", 20, codec="libvpx")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    raw = path.read_bytes()
    for content in packets[5:20:5]:
        at = raw.index(content)
        raw = raw[:at] + bytes([content[0] & ~0x10]) + raw[at + 1 :]  # others may be built upon it, as on an alt-ref
    path.write_bytes(raw)
    assert clip.count(path) == 17
    assert len(list(ClipFrames(path, range(20)))) == 17


def test_pixels_are_those_that_opencv_gives(shared_data: Path) -> None:
    path = shared_data / "videos" / "vtest.avi"
    capture, wanted = cv2.VideoCapture(str(path)), (0, 1, 7, 30)
    assert clip.count(path) == int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    expected = {number: capture.read()[1] for number in range(31)}
    capture.release()
    for number, image in ClipFrames(path, wanted):
        np.testing.assert_array_equal(image, expected[number])


def test_a_camera_and_a_dataset_see_the_same(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", 12, paint=noisy, options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    camera = registry.make(CameraSettings(id="gate", source=str(path)))
    camera.open()
    for _, image in ClipFrames(path, range(12)):
        frame = camera.read()
        assert frame is not None
        np.testing.assert_array_equal(image, frame.image)
    assert camera.read() is None
    camera.close()


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.avi"])
def test_a_damaged_clip_is_read_to_where_it_can_be(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write_clip(tmp_path / name, 80, options={"g": "8"}, paint=noisy)
    raw = path.read_bytes()
    middle = len(raw) // 2
    path.write_bytes(raw[:middle] + np.random.default_rng(1).bytes(2000) + raw[middle + 2000 :])
    frames = ClipFrames(path, range(81))
    with caplog.at_level(logging.WARNING):
        found = list(frames)
    assert 30 < len(found) <= 80
    assert [number for number, _ in found] == list(range(len(found)))
    assert frames.damaged
    assert [record.message for record in caplog.records] == [
        f"{path} is damaged: {len(found)} frames of it can be read"
    ]


def test_a_clip_ends_where_its_frames_become_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.ts"
    small = write_clip(tmp_path / "small.ts", 5, codec="mpeg2video").read_bytes()
    large = write_clip(tmp_path / "large.ts", 5, codec="mpeg2video", paint=noisy).read_bytes()
    path.write_bytes(small + large)
    monkeypatch.setattr("vajra_edge.media.pixels.MAX_IMAGE_PX", 64 * 48)
    frames = ClipFrames(path, range(10))
    found = [number for number, _ in frames]
    assert found in ([0, 1, 2, 3], [0, 1, 2, 3, 4]), "where two streams meet, a frame may be lost"
    assert frames.damaged
    assert f"is damaged: {len(found)} frames" in caplog.text


def test_a_clip_that_is_whole_ends_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = ClipFrames(write_clip(tmp_path / "a.mp4", 5), range(9))
    assert len(list(frames)) == 5
    assert not frames.damaged
    assert not caplog.records


def test_a_clip_is_counted_again_when_it_changed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 5)
    assert clip.count(path) == 5
    write_clip(tmp_path / "b.mp4", 9).replace(path)
    assert clip.count(path) == 9


@pytest.mark.parametrize("content", [b"", b"RIFF nonsense", os.urandom(4096), b"#EXTM3U\nhttp://127.0.0.1:1/x.ts\n"])
def test_what_is_no_video_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for read in (clip.count, lambda path: list(ClipFrames(path, (0,)))):
        with pytest.raises(UnusableClip, match=r"clip\.mp4: (is not a video that can be decoded|holds no video); copy"):
            read(path)


def test_frames_that_claim_an_absurd_size_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", 3, codec="huffyuv", pix_fmt="yuv422p")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"strf") + 8
    raw[at + 4 : at + 12] = (12_000).to_bytes(4, "little") * 2
    path.write_bytes(raw)
    with pytest.raises(UnusableClip, match=r"a\.avi: has images of 12000 x 12000 pixels"):
        clip.count(path)
