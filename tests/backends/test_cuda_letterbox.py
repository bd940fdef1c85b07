"""The letterbox kernel, compiled for the processor, against the host's letterbox: every shape, format and batch."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from backends.cuda_on_cpu import library
from colours import MEANINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vajra_edge.backends.cuda.letterbox import BLOCK_XY, DeviceFrame, FrameBlock, frame_block
from vajra_edge.geometry.letterbox import Letterbox, placement
from vajra_edge.media.bgr import to_bgr
from vajra_edge.pixel_format import SHARES, Colorimetry, Matrix, PixelFormat

STEP = 1 / 255
SHAPES_HW = {
    "tall": (1280, 200),
    "wide": (120, 1900),
    "a line": (1, 900),
    "one pixel": (1, 1),
    "tiny": (3, 2),
    "4K": (2160, 3840),
    "odd": (1081, 1917),
    "the input's": (640, 640),
    "half the input's": (320, 320),
    "twice the input's": (1280, 1280),
    "1080p": (1080, 1920),
}
TIE = 1e-3
"""Of a level: how near to a half a conversion may be rounded either way. Full-range BT.601 has exact halves."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return library("letterbox", tmp_path_factory.mktemp("letterbox"))


def launched(
    kernel: ctypes.CDLL, frames: Sequence[DeviceFrame], input_hw: tuple[int, int], half: bool = False
) -> NDArray[np.float32]:
    """All frames in one launch."""
    height, width = input_hw
    blocks = (FrameBlock * len(frames))(*(frame_block(one, placement(one.resolution_wh, input_hw)) for one in frames))
    made = np.full((len(frames), 3, height, width), np.nan, np.float16 if half else np.float32)
    run = kernel.run_letterbox_f16 if half else kernel.run_letterbox_f32
    grid = (-(-width // BLOCK_XY[0]), -(-height // BLOCK_XY[1]), len(frames))
    run(*grid, *BLOCK_XY, ctypes.byref(blocks), made.ctypes.data_as(ctypes.c_void_p), width, height)
    return made.astype(np.float32)


def on_host(image: NDArray[np.uint8], input_hw: tuple[int, int]) -> NDArray[np.float32]:
    made = np.empty((3, *input_hw), np.float32)
    Letterbox(input_hw).apply(image, made)
    return made


def bgr(image: NDArray[np.uint8]) -> DeviceFrame:
    return DeviceFrame(image.ctypes.data, image.shape[1::-1], PixelFormat.BGR, image.strides[0])


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """The same for the same size, in whatever order tests run."""
    return np.random.default_rng((height, width)).integers(0, 256, (height, width, channels), np.uint8)


def test_a_block_is_laid_out_as_the_kernel_reads_it(kernel: ctypes.CDLL) -> None:
    assert kernel.size_of_block() == ctypes.sizeof(FrameBlock)


@pytest.mark.parametrize("shape_hw", SHAPES_HW.values(), ids=SHAPES_HW.keys())
@pytest.mark.parametrize("input_hw", [(640, 640), (256, 416)])
def test_noise_of_every_shape_is_within_one_step_of_the_host_s(
    kernel: ctypes.CDLL, shape_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    image = noise(*shape_hw)
    found = launched(kernel, [bgr(image)], input_hw)[0]
    np.testing.assert_allclose(found, on_host(image, input_hw), rtol=0, atol=STEP)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([(64, 64), (96, 160), (32, 320)]))
def test_any_shape_is_within_one_step_of_the_host_s(
    kernel: ctypes.CDLL, height: int, width: int, input_hw: tuple[int, int]
) -> None:
    image = noise(height, width)
    found = launched(kernel, [bgr(image)], input_hw)[0]
    np.testing.assert_allclose(found, on_host(image, input_hw), rtol=0, atol=STEP)


def test_frames_of_all_sizes_go_in_one_launch(kernel: ctypes.CDLL) -> None:
    images = [noise(*shape) for shape in SHAPES_HW.values()]
    found = launched(kernel, [bgr(image) for image in images], (160, 192))
    for image, one in zip(images, found, strict=True):
        np.testing.assert_allclose(one, on_host(image, (160, 192)), rtol=0, atol=STEP)


def test_rows_may_be_longer_than_the_picture(kernel: ctypes.CDLL) -> None:
    """As buffers of decoders and V4L2 are."""
    whole = noise(90, 200)
    image = whole[:, 3:160]
    found = launched(kernel, [bgr(image)], (64, 64))[0]
    np.testing.assert_allclose(found, on_host(np.ascontiguousarray(image), (64, 64)), rtol=0, atol=STEP)


def test_bgrx_is_bgr_with_a_byte_that_says_nothing(kernel: ctypes.CDLL) -> None:
    image = noise(101, 67)
    four = np.dstack([image, noise(101, 67, 1)])
    frame = DeviceFrame(four.ctypes.data, (67, 101), PixelFormat.BGRX, four.strides[0])
    np.testing.assert_array_equal(launched(kernel, [frame], (64, 64)), launched(kernel, [bgr(image)], (64, 64)))


def test_half_precision_is_the_same_rounded(kernel: ctypes.CDLL) -> None:
    image = noise(101, 67)
    whole = launched(kernel, [bgr(image)], (64, 64))
    half = launched(kernel, [bgr(image)], (64, 64), half=True)
    np.testing.assert_array_equal(half, whole.astype(np.float16).astype(np.float32))


def as_bgr(luma: NDArray[np.uint8], chroma: NDArray[np.uint8], meaning: Colorimetry, nudge: float) -> NDArray[np.uint8]:
    """By the definition of Y'CbCr: each pair is that of four pixels. ``nudge`` is added before rounding."""
    red, blue = SHARES[meaning.matrix]
    height, width = luma.shape
    pairs = chroma.repeat(2, 0).repeat(2, 1)[:height, :width].astype(np.float64) - 128
    brightness = luma.astype(np.float64)
    if meaning.full_range:
        brightness, pairs = brightness / 255, pairs / 255
    else:
        brightness, pairs = (brightness - 16) / 219, pairs / 224
    r = brightness + 2 * (1 - red) * pairs[..., 1]
    b = brightness + 2 * (1 - blue) * pairs[..., 0]
    g = (brightness - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.rint(np.dstack([b, g, r]) * 255 + nudge), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("matrix", "full_range", "shape_hw"),
    list(itertools.product(Matrix, (False, True), [(480, 640), (1080, 1920), (97, 61), (2, 2), (1, 1)])),
)
def test_nv12_is_what_its_matrix_and_range_say(
    kernel: ctypes.CDLL, matrix: Matrix, full_range: bool, shape_hw: tuple[int, int]
) -> None:
    height, width = shape_hw
    luma = noise(height, width, 1)[..., 0].copy()
    chroma = noise(-(-height // 2), -(-width // 2), 2)
    meaning = Colorimetry(matrix, full_range)
    frame = DeviceFrame(
        *(luma.ctypes.data, (width, height), PixelFormat.NV12, luma.strides[0]),
        *(chroma.ctypes.data, chroma.strides[0], meaning),
    )
    found = launched(kernel, [frame], (128, 160))[0]
    low, high = (on_host(as_bgr(luma, chroma, meaning, nudge), (128, 160)) for nudge in (-TIE, TIE))
    assert float((low - found).max()) <= STEP
    assert float((found - high).max()) <= STEP


def test_nv12_of_a_decoder_is_near_what_opencv_makes_of_it(kernel: ctypes.CDLL) -> None:
    both = noise(96 * 3 // 2, 128, 1)[..., 0].clip(16, 235)
    frame = DeviceFrame(
        *(both.ctypes.data, (128, 96), PixelFormat.NV12, 128),
        *(both[96:].ctypes.data, 128, Colorimetry(Matrix.BT601)),
    )
    found = launched(kernel, [frame], (96, 128))[0]
    theirs = on_host(cv2.cvtColor(both, cv2.COLOR_YUV2BGR_NV12).astype(np.uint8), (96, 128))
    np.testing.assert_allclose(found, theirs, rtol=0, atol=2.1 * STEP)


@pytest.mark.parametrize("meaning", MEANINGS, ids=str)
def test_the_host_s_picture_of_nv12_is_within_one_level_of_the_kernel_s(
    kernel: ctypes.CDLL, meaning: Colorimetry
) -> None:
    """At the input's own size nothing is scaled, so that the colours alone are compared."""
    image = noise(130 * 3 // 2, 192, 1)[..., 0].copy()
    frame = DeviceFrame(
        *(image.ctypes.data, (192, 130), PixelFormat.NV12, 192),
        *(image[130:].ctypes.data, 192, meaning),
    )
    found = launched(kernel, [frame], (130, 192))[0]
    wanted = on_host(to_bgr(image, PixelFormat.NV12, meaning), (130, 192))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1.01 * STEP)


def test_photos_are_within_one_step_of_the_host_s(kernel: ctypes.CDLL, shared_data: Path) -> None:
    paths = sorted((shared_data / "images").rglob("*.jpg"))[:24]
    images = [cv2.imread(str(path)).astype(np.uint8) for path in paths]
    found = launched(kernel, [bgr(image) for image in images], (640, 640))
    for image, one in zip(images, found, strict=True):
        np.testing.assert_allclose(one, on_host(image, (640, 640)), rtol=0, atol=STEP)
