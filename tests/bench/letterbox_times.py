"""What the letterbox kernel takes on this GPU, by size, format and number of frames, and whether it is right there.

python tests/bench/letterbox_times.py

Beside each time stand the bytes that the frames and the input have, and what moving them takes at the bandwidth of a
copy on the device in the same run. Each input is compared with the host's letterbox of the same picture.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from vajra_edge.backends import cuda
from vajra_edge.backends.cuda.kernels import Kernels
from vajra_edge.backends.cuda.letterbox import BLOCK_XY, DeviceFrame, FrameBlock, frame_block
from vajra_edge.geometry.letterbox import Letterbox, placement
from vajra_edge.pixel_format import Colorimetry, Matrix, PixelFormat

INPUT_HW = (640, 640)
SIZES_WH = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160), (1917, 1081), (200, 1280), (1900, 120), (3, 2))
TIMES = 200


@dataclass(frozen=True)
class Picture:
    """One frame in a format.

    Attributes:
        bytes_: as it lies in memory.
        bgr: what the host makes of it.
    """

    bytes_: NDArray[np.uint8]
    bgr: NDArray[np.uint8]
    resolution_wh: tuple[int, int]
    format: PixelFormat

    def at(self, address: int) -> DeviceFrame:
        """The frame where it was copied to."""
        width, height = self.resolution_wh
        match self.format:
            case PixelFormat.BGR:
                return DeviceFrame(address, self.resolution_wh, self.format, 3 * width)
            case PixelFormat.BGRX:
                return DeviceFrame(address, self.resolution_wh, self.format, 4 * width)
        chroma = address + width * height, width
        return DeviceFrame(address, self.resolution_wh, self.format, width, *chroma, Colorimetry(Matrix.BT601))


def picture(width: int, height: int, format_: PixelFormat) -> Picture:
    """Noise that was smoothed; the same for the same size."""
    rng = np.random.default_rng((width, height))
    small = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), np.uint8)
    bgr = np.asarray(cv2.resize(small, (width, height)), np.uint8)
    match format_:
        case PixelFormat.BGR:
            return Picture(bgr, bgr, (width, height), format_)
        case PixelFormat.BGRX:
            return Picture(np.dstack([bgr, bgr[..., :1]]), bgr, (width, height), format_)
    luma = rng.integers(16, 236, (height, width), np.uint8)
    chroma = rng.integers(64, 192, (height // 2, width), np.uint8)
    both = np.concatenate([luma, chroma])
    return Picture(both, np.asarray(cv2.cvtColor(both, cv2.COLOR_YUV2BGR_NV12), np.uint8), (width, height), format_)


def copy_bytes_per_us(stream: cuda.Stream) -> float:
    """Bytes read and written in a microsecond by a copy on the device."""
    with cuda.DeviceBuffer(256 << 20) as a, cuda.DeviceBuffer(256 << 20) as b:
        us = timed_us(stream, partial(stream.copy, a.address, b.address, a.nbytes))
    return 2 * (256 << 20) / us


def timed_us(stream: cuda.Stream, work: partial[None]) -> float:
    """As a graph of ``TIMES`` runs, so that queuing is not what is timed."""

    def many() -> None:
        for _ in range(TIMES):
            work()

    with (
        cuda.Event(timed=True) as began,
        cuda.Event(timed=True) as ended,
        cuda.Graph(stream, many) as graph,
    ):
        graph.launch(stream)
        began.record(stream)
        graph.launch(stream)
        ended.record(stream)
        ended.synchronize()
        return ended.ms_since(began) * 1e3 / TIMES


def measured(kernels: Kernels, stream: cuda.Stream, pictures: Sequence[Picture], bytes_per_us: float) -> str:
    """One launch for all of them: its time, and how far its input is from the host's, in steps of 1/255."""
    height, width = INPUT_HW
    with ExitStack() as held:
        out = held.enter_context(cuda.DeviceBuffer(len(pictures) * 3 * height * width * 4))
        made = held.enter_context(cuda.PinnedBuffer((len(pictures), 3, height, width), np.float32))
        blocks = []
        for one in pictures:
            there = held.enter_context(cuda.DeviceBuffer(one.bytes_.nbytes))
            there.fill(one.bytes_)
            blocks.append(frame_block(one.at(there.address), placement(one.resolution_wh, INPUT_HW)))
        told = held.enter_context(cuda.DeviceBuffer(len(blocks) * ctypes.sizeof(FrameBlock)))
        told.fill(np.frombuffer(b"".join(map(bytes, blocks)), np.uint8).copy())
        grid = -(-width // BLOCK_XY[0]), -(-height // BLOCK_XY[1]), len(pictures)
        given = [ctypes.c_void_p(told.address), ctypes.c_void_p(out.address), ctypes.c_int(width), ctypes.c_int(height)]
        launch = kernels.letterbox.prepared("letterbox_f32", grid, (*BLOCK_XY, 1), given)
        took_us = timed_us(stream, partial(launch.queue, stream))
        stream.copy(made.address, out.address, out.nbytes)
        stream.synchronize()
        wanted, steps = np.empty((3, height, width), np.float32), 0.0
        for one, found in zip(pictures, made.array, strict=True):
            Letterbox(INPUT_HW).apply(one.bgr, wanted)
            steps = max(steps, float(np.abs(found - wanted).max()) * 255)
    moved = sum(one.bytes_.nbytes for one in pictures) + len(pictures) * 3 * height * width * 4
    return f"{took_us:7.1f} us, {moved / 1e6:6.1f} MB: {moved / bytes_per_us:6.1f} us; {steps:.2f} steps off"


def main() -> None:
    with ExitStack() as held:
        stream, kernels = held.enter_context(cuda.Stream()), held.enter_context(Kernels(0, None))
        bytes_per_us = copy_bytes_per_us(stream)
        print(f"{cuda.describe(0).name}: {bytes_per_us / 1e6:.2f} TB/s")
        for width, height in SIZES_WH:
            for format_ in PixelFormat:
                if format_ is PixelFormat.NV12 and (width % 2 or height % 2):
                    continue  # OpenCV takes none; tests/backends/test_cuda_letterbox.py does
                one = picture(width, height, format_)
                print(f"{width}x{height} {format_.name:4}: {measured(kernels, stream, [one], bytes_per_us)}")
        for many in (4, 16, 64):
            frames = [picture(1920, 1080, PixelFormat.BGR)] * many
            print(f"{many} of 1920x1080 BGR: {measured(kernels, stream, frames, bytes_per_us)}")
        mixed = [picture(*size, PixelFormat.BGR) for size in SIZES_WH]
        print(f"all sizes in one launch: {measured(kernels, stream, mixed, bytes_per_us)}")


if __name__ == "__main__":
    main()
