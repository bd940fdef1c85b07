"""Video files of many codecs and containers, whole and damaged, through FFmpeg."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from clips import h264_units, write_clip
from pictures import number_of, picture

from vajra_edge.capture.sources import base, clip, registry
from vajra_edge.config.settings import CameraSettings
from vajra_edge.errors import SourceError

FORMATS = [
    ("a.mp4", "libx264", "yuv420p"),
    ("b.mkv", "libx265", "yuv420p"),
    ("c.avi", "mpeg4", "yuv420p"),
    ("d.avi", "mjpeg", "yuvj420p"),
    ("e.webm", "libvpx-vp9", "yuv420p"),
    ("f.ts", "libx264", "yuv420p"),
    ("g.mov", "prores", "yuv422p10le"),
    ("h.mpg", "mpeg2video", "yuv420p"),
    ("i.h264", "libx264", "yuv420p"),
    ("j.flv", "libx264", "yuv420p"),
    ("k.mp4", "libsvtav1", "yuv420p"),
    ("l.gif", "gif", "rgb8"),
]


def make(path: object, **settings: object) -> base.Source:
    return registry.make(CameraSettings.model_validate({"id": "gate", "source": str(path), **settings}))


def opened(path: object, **settings: object) -> base.Source:
    source = make(path, **settings)
    source.open()
    return source


def read_all(source: base.Source) -> list[base.RawFrame]:
    pictures = []
    while (item := source.read()) is not None:
        pictures.append(item)
    return pictures


def places_s(items: list[base.RawFrame]) -> list[float]:
    return [item.position_s or 0.0 for item in items]


def steps_s(items: list[base.RawFrame]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(places_s(items))]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_each_frame_comes_once_and_in_order(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    source = opened(write_clip(tmp_path / name, 18, codec=codec, pix_fmt=pix_fmt))
    items = read_all(source)
    assert [number_of(item.image) for item in items] == list(range(18))
    assert source.decode_errors == 0
    assert source.read() is None
    source.close()


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FORMATS)
def test_a_loop_goes_on_along_its_time_line(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    source = opened(write_clip(tmp_path / name, 12, codec=codec, pix_fmt=pix_fmt), loop=True)
    items = [item for _ in range(40) if (item := source.read()) is not None]
    assert [number_of(item.image) for item in items] == [number % 12 for number in range(40)]
    assert min(steps_s(items)) > 0.0
    assert places_s(items)[-1] == pytest.approx(40 / 25, abs=0.15)
    source.close()


def test_a_loop_does_not_open_its_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(write_clip(tmp_path / "clip.mp4", 5), loop=True)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened again"))
    assert [number_of(source.read().image) for _ in range(12)] == [number % 5 for number in range(12)]  # type: ignore[union-attr]
    source.close()


def test_a_loop_over_what_cannot_seek_opens_it_again(tmp_path: Path) -> None:
    path = tmp_path / "clip.h264"
    path.write_bytes(b"".join(b"\0\0\0\1" + unit for frame in h264_units(7) for unit in frame))
    source = opened(path, loop=True)
    assert [number_of(source.read().image) for _ in range(15)] == [number % 7 for number in range(15)]  # type: ignore[union-attr]
    source.close()


def test_no_two_frames_share_memory(tmp_path: Path) -> None:
    source = opened(write_clip(tmp_path / "clip.mp4", 6))
    images = [item.image for item in read_all(source)]
    assert [number_of(image) for image in images] == list(range(6)), "an image handed on was written to"
    assert all(image.flags["C_CONTIGUOUS"] and image.flags["WRITEABLE"] for image in images)
    assert len({image.ctypes.data for image in images}) == 6
    source.close()


@pytest.mark.parametrize("rotated", [False, True])
def test_frames_are_let_go_without_a_garbage_collection(tmp_path: Path, *, rotated: bool) -> None:
    """A circle of references kept forty frames of a 1080p clip alive, 250 MB."""
    path = write_clip(tmp_path / "clip.mp4", 60)
    if rotated:
        turn(path, (0, 1, -1, 0))
    gc.collect()
    gc.disable()
    try:
        source = opened(path)
        read_all(source)
        assert sum(isinstance(item, av.VideoFrame) for item in gc.get_objects()) < 8
        source.close()
    finally:
        gc.enable()


def test_b_frames_come_as_they_are_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 20, options={"bf": "3", "x264-params": "b-adapt=0"})
    with av.open(str(path)) as container:
        assert any(frame.pict_type == 3 for frame in container.decode(video=0)), "there are none"
    assert [number_of(item.image) for item in read_all(opened(path))] == list(range(20))


def test_a_variable_rate_is_kept(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 480, 500, 900]
    items = read_all(opened(write_clip(tmp_path / "clip.mkv", 6, stamps=stamps)))
    assert steps_s(items) == pytest.approx([0.04, 0.04, 0.4, 0.02, 0.4])


def test_a_gap_of_many_seconds_is_a_damaged_stamp(tmp_path: Path) -> None:
    items = read_all(opened(write_clip(tmp_path / "clip.mkv", 4, stamps=[0, 40, 500_000, 500_040])))
    assert max(steps_s(items)) < 1.0


def test_the_real_clip_keeps_its_rate(shared_data: Path) -> None:
    source = opened(shared_data / "videos" / "vtest.avi")
    items = [item for _ in range(20) if (item := source.read()) is not None]
    assert steps_s(items) == pytest.approx([0.1] * 19)
    source.close()


BARS = np.array([[16, 16, 16], [235, 235, 235], [200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
MATRICES = {"bt709": 1, "bt601": 6}
RANGES = {"tv": 1, "pc": 2}


def bars(_: int, width: int = 160, height: int = 64) -> np.ndarray:
    return np.ascontiguousarray(np.broadcast_to(np.repeat(BARS, width // 5, axis=0), (height, width, 3)))


def colour_error(image: np.ndarray) -> float:
    """The largest difference of a bar's colour from what was painted."""
    width = image.shape[1] // 5
    middles = [image[8:-8, at * width + 8 : (at + 1) * width - 8].reshape(-1, 3).mean(0) for at in range(5)]
    return float(np.abs(np.array(middles) - BARS).max())


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("color_range", RANGES)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p"])
def test_colours_are_those_that_were_painted(tmp_path: Path, matrix: str, color_range: str, pix_fmt: str) -> None:
    from av.video.reformatter import Colorspace, VideoReformatter

    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 64, pix_fmt
        stream.codec_context.colorspace = MATRICES[matrix]
        stream.codec_context.color_range = RANGES[color_range]
        spaces = {"bt709": Colorspace.ITU709, "bt601": Colorspace.ITU601}
        frame = VideoReformatter().reformat(
            av.VideoFrame.from_ndarray(bars(0), format="bgr24"),
            format=pix_fmt,
            dst_colorspace=spaces[matrix],
            dst_color_range=RANGES[color_range],
        )
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert colour_error(read_all(opened(path))[0].image) < 6.0


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mov", "png", "rgba"), ("b.mov", "qtrle", "argb"), ("c.mkv", "ffv1", "bgra"), ("d.mkv", "libx264rgb", "bgr24")],
)
def test_alpha_and_rgb_become_bgr(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = write_clip(tmp_path / name, 1, codec=codec, pix_fmt=pix_fmt, paint=bars, options={"crf": "10"})
    assert colour_error(read_all(opened(path))[0].image) < 6.0


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_grey_becomes_bgr(tmp_path: Path, pix_fmt: str) -> None:
    items = read_all(opened(write_clip(tmp_path / "clip.mkv", 5, codec="ffv1", pix_fmt=pix_fmt)))
    assert [number_of(item.image) for item in items] == list(range(5))
    assert all((item.image[..., 0] == item.image[..., 2]).all() for item in items)


@pytest.mark.parametrize("size", [(33, 17), (1366, 76), (321, 241)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "clip.avi", 3, codec="mpeg4", paint=lambda number: picture(number, *size))
    items = read_all(opened(path))
    assert [item.image.shape for item in items] == [(size[1], size[0], 3)] * 3
    assert [number_of(item.image) for item in items] == [0, 1, 2]


def test_an_interlaced_clip_has_its_colours(tmp_path: Path) -> None:
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    path = write_clip(tmp_path / "clip.mkv", 3, paint=bars, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert [colour_error(item.image) < 6.0 for item in read_all(opened(path))] == [True] * 3


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix into a clip."""
    a, b, c, d = (part << 16 for part in matrix)
    raw = bytearray(path.read_bytes())
    place = raw.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: of version 0
    raw[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(raw)


def corner(_: int) -> np.ndarray:
    """Dark, with a bright corner at the top left."""
    image = np.full((48, 64, 3), 20, np.uint8)
    image[:24, :32] = 220
    return image


@pytest.mark.parametrize(
    ("matrix", "shape", "bright"),
    [
        ((1, 0, 0, 1), (48, 64), "top left"),
        ((0, 1, -1, 0), (64, 48), "top right"),
        ((-1, 0, 0, -1), (48, 64), "bottom right"),
        ((0, -1, 1, 0), (64, 48), "bottom left"),
        ((-1, 0, 0, 1), (48, 64), "top right"),
    ],
)
def test_a_phones_clip_is_turned_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], shape: tuple[int, int], bright: str
) -> None:
    path = write_clip(tmp_path / "clip.mp4", 2, paint=corner)
    turn(path, matrix)
    image = read_all(opened(path))[0].image
    assert image.shape[:2] == shape
    half_h, half_w = shape[0] // 2, shape[1] // 2
    quarters = {
        "top left": image[:half_h, :half_w],
        "top right": image[:half_h, half_w:],
        "bottom left": image[half_h:, :half_w],
        "bottom right": image[half_h:, half_w:],
    }
    assert max(quarters, key=lambda name: float(quarters[name].mean())) == bright
    assert image.flags["C_CONTIGUOUS"]


def test_a_change_of_resolution_gives_images_of_the_new_size(tmp_path: Path) -> None:
    parts = [write_clip(tmp_path / f"{side}.ts", 5, paint=lambda n, w=side: picture(n, w)) for side in (64, 96)]
    (tmp_path / "clip.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    sizes = [item.image.shape[1] for item in read_all(opened(tmp_path / "clip.ts"))]
    assert sizes == [64] * 5 + [96] * 5


def test_a_truncated_clip_gives_what_it_has_and_says_so_once(
    make_clip: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = make_clip(40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = opened(path)
    with caplog.at_level(logging.WARNING):
        frames = len(read_all(source))
    assert 0 < frames < 40
    assert source.decode_errors >= 1
    assert f"ended after {frames} of 40 frames" in caplog.text
    source.close()


def noisy(number: int) -> np.ndarray:
    """Many bytes a frame."""
    return np.random.default_rng(number).integers(0, 255, (96, 128, 3), np.uint8)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.avi", "clip.webm"])
def test_a_clip_that_is_cut_off_is_read_to_its_end(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = write_clip(tmp_path / name, 60, codec=codec, options={"g": "5"}, paint=noisy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    items = read_all(opened(path))
    assert 10 < len(items) < 60


@pytest.mark.parametrize("name", ["clip.ts", "clip.mkv", "clip.avi"])
def test_garbage_within_a_clip_is_counted_and_passed_by(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, 80, options={"g": "8"}, paint=noisy)
    raw = path.read_bytes()
    middle = len(raw) // 2
    path.write_bytes(raw[:middle] + np.random.default_rng(1).bytes(2000) + raw[middle + 2000 :])
    source = opened(path)
    items = read_all(source)
    assert 30 < len(items) <= 80
    assert source.decode_errors > 0
    source.close()


def test_a_damaged_slice_is_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 30, paint=noisy)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets[5:25:4]]
    raw = bytearray(path.read_bytes())
    for place, size in places:
        for at in range(place + size // 2, place + size // 2 + 20):
            raw[at] ^= 0xFF
    path.write_bytes(raw)
    source = opened(path)
    assert len(read_all(source)) >= 25
    assert source.decode_errors >= 2
    source.close()


@pytest.mark.parametrize("content", [b"RIFF nonsense", os.urandom(4096), b"#EXTM3U\nhttp://127.0.0.1:1/x.ts\n"])
def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    source = make(path)
    with pytest.raises(SourceError, match=r"clip\.mp4 (is not a video that can be decoded|holds no video); copy it"):
        source.open()
    source.close()


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(SourceError, match="holds no video"):
        opened(path)


def test_a_header_without_frames_is_refused(make_clip: Callable[..., Path]) -> None:
    path = make_clip(3)
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(b"movi") + 4])
    with pytest.raises(SourceError, match=r"is not a video|holds no video"):  # which one differs by version
        opened(path).read()


def test_a_header_that_claims_an_absurd_size_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", 2, codec="huffyuv", pix_fmt="yuv422p")
    raw = bytearray(path.read_bytes())
    place = raw.index(b"strf") + 8
    raw[place + 4 : place + 12] = struct.pack("<ii", 12_000, 12_000)
    path.write_bytes(raw)
    source = make(path)
    with pytest.raises(SourceError, match="12000 x 12000"):
        source.open()
    source.close()


def test_an_empty_or_vanished_file_is_named(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match=r"empty\.mp4 is empty; copy it again"):
        make(tmp_path / "empty.mp4")
    path = make_clip(2)
    source = make(path)
    path.unlink()
    with pytest.raises(SourceError, match="does not exist"):
        source.open()


def test_stamps_that_make_no_sense_are_replaced_by_the_rate(make_clip: Callable[..., Path]) -> None:
    source = clip.Clip(CameraSettings(id="gate", source=str(make_clip(5, fps=10.0))))
    source.open()
    stamps_s = iter([0.0, 0.0, -9.2e15, 9.2e15, None])
    advance = source._advance
    source._advance = lambda _: advance(next(stamps_s))  # type: ignore[method-assign]
    assert places_s(read_all(source)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    source.close()


def test_a_clip_says_how_many_frames_it_has(tmp_path: Path) -> None:
    assert clip.frames_of(write_clip(tmp_path / "a.mp4", 7)) == 7
    assert clip.frames_of(write_clip(tmp_path / "b.mkv", 10)) in {9, 10}, "worked out from its length"
