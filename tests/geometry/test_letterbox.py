from __future__ import annotations

import cv2
import numpy as np
import pytest

from vajra_edge.geometry.letterbox import Letterbox, LetterboxTransform

SIZES_HW = [(1080, 1920), (576, 768), (768, 576), (100, 37), (640, 640), (641, 333), (1, 5000)]


def upstream(image, input_hw):
    """Upstream's LetterBox, written out with whole-image steps: scale, pad 114, RGB, CHW, / 255."""
    height, width = image.shape[:2]
    scale = min(input_hw[0] / height, input_hw[1] / width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    dw, dh = (input_hw[1] - size[0]) / 2, (input_hw[0] - size[1]) / 2
    scaled = image if (width, height) == size else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    border = round(dh - 0.1), round(dh + 0.1), round(dw - 0.1), round(dw + 0.1)
    padded = cv2.copyMakeBorder(scaled, *border, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    return padded[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255


@pytest.mark.parametrize("image_hw", SIZES_HW)
@pytest.mark.parametrize("input_hw", [(640, 640), (416, 416), (320, 256)])
def test_every_pixel_equals_upstreams(image_hw, input_hw):
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), dtype=np.uint8)
    out = np.full((3, *input_hw), np.nan, np.float32)
    Letterbox(input_hw).apply(image, out)
    np.testing.assert_array_equal(out, upstream(image, input_hw))


def test_a_reused_letterbox_leaves_nothing_of_an_earlier_camera():
    letterbox, out = Letterbox((64, 64)), np.zeros((3, 64, 64), np.float32)
    wide = np.full((20, 80, 3), 255, np.uint8)
    tall = np.full((80, 20, 3), 10, np.uint8)
    for image in (wide, tall, wide, tall):
        letterbox.apply(image, out)
        np.testing.assert_array_equal(out, upstream(image, (64, 64)))


@pytest.mark.parametrize("image_hw", SIZES_HW)
def test_boxes_come_back_where_they_were(image_hw):
    height, width = image_hw
    place = LetterboxTransform.of((width, height), (640, 640))
    boxes = np.array([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]], np.float32)
    np.testing.assert_allclose(place.to_image(place.to_input(boxes), (width, height)), boxes, atol=width * 1e-4)


def test_boxes_are_clipped_to_the_image():
    place = LetterboxTransform.of((100, 50), (640, 640))
    back = place.to_image(np.array([[-500.0, -500.0, 5000.0, 5000.0]], np.float32), (100, 50))
    np.testing.assert_array_equal(back, [[0, 0, 100, 50]])


def test_the_golden_frame_is_reproduced(shared_data):
    cv2_capture = cv2.VideoCapture(str(shared_data / "videos" / "vtest.avi"))
    cv2_capture.set(cv2.CAP_PROP_POS_FRAMES, 700)
    image = cv2_capture.read()[1]
    golden = np.load(shared_data / "golden" / "trained_nano_vtest700.npz")["image_rgb"]
    out = np.empty((3, 640, 640), np.float32)
    Letterbox((640, 640)).apply(image, out)
    difference = np.abs(out - golden.transpose(2, 0, 1).astype(np.float32) / 255)
    assert difference.max() <= 1 / 255 + 1e-6  # the codec's decoder may differ by one level between OpenCV releases
