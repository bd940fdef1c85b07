"""Clips of numbered pictures in any codec and container, made with PyAV."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from pictures import picture

Painter = Callable[[int], np.ndarray]


def write_clip(
    path: Path,
    frames: int = 10,
    *,
    codec: str = "libx264",
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    paint: Painter = picture,
    options: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    container: str | None = None,
    context: Callable[[av.VideoCodecContext], None] = lambda context: None,
) -> Path:
    """A clip; ``stamps`` are its frames' times in milliseconds, ``context`` sets up its encoder."""
    with scheduled_as_before(), av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        height, width = paint(0).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = options or {}
        stream.bit_rate = 0 if codec == "libsvtav1" else 4_000_000  # it has an opinion of its own
        context(stream.codec_context)
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(paint(number)), format="bgr24")
            frame.time_base = Fraction(1, 1000) if stamps is not None else Fraction(1, fps)
            frame.pts = stamps[number] if stamps is not None else number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """SVT-AV1 turns the thread that opens it into a real-time one, where it may, which is as root, and leaves it so.

    With it all threads that it starts later, and their processes: the whole machine would wait for the tests.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def h264_units(
    frames: int, *, key_every: int = 10, paint: Painter = picture, options: dict[str, str] | None = None
) -> list[list[bytes]]:
    """The NAL units of each frame of an H.264 stream, parameter sets before each key frame, as cameras send them."""
    encoder = av.CodecContext.create("libx264", "w")
    height, width = paint(0).shape[:2]
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options = {"tune": "zerolatency", "g": str(key_every), "x264-params": "scenecut=0", **(options or {})}
    packets = []
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(paint(number)), format="bgr24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [_units(bytes(packet)) for packet in packets]


def _units(annex_b: bytes) -> list[bytes]:
    """Between start codes of three or four bytes."""
    return [unit.rstrip(b"\0") for unit in annex_b.split(b"\0\0\1") if unit.rstrip(b"\0")]
