"""The kernels that choose objects, compiled for the processor, against sequential suppression on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from backends.cuda_on_cpu import library
from numpy.typing import NDArray

from vajra_edge.backends.cuda.detections import (
    MOST_CANDIDATES,
    OVERLAPS_BYTES,
    ROW_BYTES,
    TALLY_BYTES,
    Answer,
    ImageBlock,
    image_block,
)
from vajra_edge.errors import UnsupportedSpec
from vajra_edge.geometry.letterbox import Letterbox, LetterboxTransform, placement
from vajra_edge.heads import Limits
from vajra_edge.heads.detect import best_class
from vajra_edge.types import Detections

INPUT_HW = (416, 416)
MOST_ROWS = 300


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return library("detections", tmp_path_factory.mktemp("detections"))


def launched(
    kernel: ctypes.CDLL,
    output: NDArray[np.float32] | NDArray[np.float16],
    blocks: Sequence[ImageBlock],
    *,
    threads: int = 64,
    backward: bool = False,
    turns: int = 2,
) -> list[Detections | None]:
    """All images at once; twice, for what one frame leaves behind is the next one's. None: its computation broke."""
    images, rows, anchors = output.shape
    memory = {
        "keys": np.zeros((images, anchors), np.uint64),
        "labels": np.zeros((images, anchors), np.int32),
        "tallies": np.zeros((images, TALLY_BYTES // 4), np.int32),
        "rows": np.zeros((images, MOST_CANDIDATES, 6), np.float32),
        "overlapped": np.zeros((images, OVERLAPS_BYTES), np.uint8),
        "found": np.zeros((images, MOST_ROWS, 6), np.float32),
        "answers": np.zeros((images, ctypes.sizeof(Answer) // 4), np.int32),
    }
    run = kernel.run_f16 if output.dtype == np.float16 else kernel.run_f32
    given = (ImageBlock * images)(*blocks)
    addresses = [array.ctypes.data_as(ctypes.c_void_p) for array in memory.values()]
    whole = np.ascontiguousarray(output).ctypes.data_as(ctypes.c_void_p)
    for _ in range(turns):
        run(images, threads, int(backward), whole, ctypes.byref(given), *addresses, anchors, rows - 4, MOST_ROWS)
    assert not memory["tallies"].any(), "the next frame counts from zero"
    assert [int(one.ticket) for one in blocks] == memory["answers"][:, 1].tolist(), (
        "each answer says of which image it is"
    )
    kept = [memory["found"][index, :count] for index, count in enumerate(memory["answers"][:, 0])]
    assert not any(len(one) for one, broken in zip(kept, memory["answers"][:, 2], strict=True) if broken)
    return [
        None if broken else Detections(one[:, :4].copy(), one[:, 4].copy(), one[:, 5].astype(np.int32))
        for one, broken in zip(kept, memory["answers"][:, 2], strict=True)
    ]


def on_host(
    output: NDArray[np.float32], limits: Limits, place: LetterboxTransform, resolution_wh: tuple[int, int]
) -> Detections:
    top_k = MOST_CANDIDATES if limits.top_k is None else limits.top_k
    found = best_class(output, limits.confidence, limits.iou, limits.max_det, top_k)
    return Detections(place.to_image(found.xyxy, resolution_wh), found.confidence, found.class_id)


def require_same(found: Detections | None, wanted: Detections) -> None:
    assert found is not None
    np.testing.assert_array_equal(found.class_id, wanted.class_id)
    np.testing.assert_array_equal(found.confidence, wanted.confidence)
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, rtol=1e-5, atol=1e-3)


def crowd(seed: int, anchors: int, classes: int, steps: int = 0) -> NDArray[np.float32]:
    """(4 + classes, anchors): boxes in clusters, so that many overlap; scores of few ``steps`` have many ties."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 416, (12, 2))[rng.integers(0, 12, anchors)] + rng.normal(0, 9, (anchors, 2))
    sizes = rng.uniform(20, 90, (anchors, 2))
    scores = rng.random((classes, anchors)) ** 6
    if steps:
        scores = np.round(scores * steps) / steps
    return np.concatenate([centres.T, sizes.T, scores]).astype(np.float32)


def test_blocks_are_laid_out_as_the_kernels_read_them(kernel: ctypes.CDLL) -> None:
    assert kernel.size_of_block() == ctypes.sizeof(ImageBlock)
    assert kernel.size_of_row() == ROW_BYTES
    assert kernel.size_of_answer() == ctypes.sizeof(Answer)
    assert kernel.size_of_tally() == TALLY_BYTES
    assert kernel.most_candidates() == MOST_CANDIDATES


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("limits", "classes"),
    [
        (Limits(0.25), 80),
        (Limits(0.05, iou=0.45, top_k=500), 3),
        (Limits(0.01, iou=0.9, max_det=7, top_k=1000), 1),
        (Limits(0.999), 80),
    ],
)
def test_a_crowd_is_thinned_out_as_on_the_host(kernel: ctypes.CDLL, seed: int, limits: Limits, classes: int) -> None:
    output, wh = crowd(seed, 700, classes), (1920, 1080)
    place = placement(wh, INPUT_HW)
    (found,) = launched(kernel, output[None], [image_block(limits, place, wh, 7)])
    require_same(found, on_host(output, limits, place, wh))


@pytest.mark.parametrize("seed", range(6))
def test_of_equal_scores_the_lower_anchor_goes_first_in_whatever_order_threads_run(
    kernel: ctypes.CDLL, seed: int
) -> None:
    output, wh, limits = crowd(seed, 900, 4, steps=6), (640, 480), Limits(0.1, iou=0.5, top_k=200)
    place = placement(wh, INPUT_HW)
    block = image_block(limits, place, wh, 0)
    wanted = on_host(output, limits, place, wh)
    for threads, backward in ((32, False), (64, True), (256, True)):
        (found,) = launched(kernel, output[None], [block], threads=threads, backward=backward)
        require_same(found, wanted)


def test_images_of_one_launch_have_their_own_sizes_and_thresholds(kernel: ctypes.CDLL) -> None:
    outputs = np.stack([crowd(seed, 500, 5) for seed in range(4)])
    sizes = [(1920, 1080), (100, 900), (416, 416), (3, 2)]
    limits = [Limits(0.3), Limits(0.9, iou=0.1), Limits(0.02, max_det=5), Limits(0.2, top_k=1)]
    places = [placement(wh, INPUT_HW) for wh in sizes]
    blocks = [image_block(*parts, ticket) for ticket, parts in enumerate(zip(limits, places, sizes, strict=True))]
    for index, found in enumerate(launched(kernel, outputs, blocks)):
        require_same(found, on_host(outputs[index], limits[index], places[index], sizes[index]))


def test_nothing_found_is_no_row(kernel: ctypes.CDLL) -> None:
    output = np.zeros((1, 84, 100), np.float32)
    for confidence in (0.25, 0.0):
        block = image_block(Limits(confidence), placement((640, 480), INPUT_HW), (640, 480), 0)
        (found,) = launched(kernel, output, [block])
        assert found is not None
        assert len(found.class_id) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("label", [0, 2, 4])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_an_image_with_one_score_that_is_no_number_is_said_to_be_broken_and_no_other(
    kernel: ctypes.CDLL, wrong: float, label: int, kind: type[np.float32 | np.float16]
) -> None:
    outputs, wh, limits = np.stack([crowd(seed, 400, 5) for seed in range(3)]).astype(kind), (640, 480), Limits(0.3)
    outputs[1, 4 + label, 7] = wrong
    place = placement(wh, INPUT_HW)
    blocks = [image_block(limits, place, wh, ticket) for ticket in range(3)]
    for backward in (False, True):
        one, broken, other = launched(kernel, outputs, blocks, backward=backward)
        assert broken is None
        require_same(one, on_host(outputs[0].astype(np.float32), limits, place, wh))
        require_same(other, on_host(outputs[2].astype(np.float32), limits, place, wh))


def test_an_image_without_one_score_that_is_a_number_is_said_to_be_broken(kernel: ctypes.CDLL) -> None:
    block = image_block(Limits(0.3), placement((640, 480), INPUT_HW), (640, 480), 7)
    for wrong in (np.nan, np.inf, -np.inf):
        assert launched(kernel, np.full((1, 9, 400), wrong, np.float32), [block]) == [None]


def test_an_output_of_half_precision_is_read_as_the_values_it_holds(kernel: ctypes.CDLL) -> None:
    output, wh, limits = crowd(1, 600, 8).astype(np.float16), (1280, 720), Limits(0.2)
    place = placement(wh, INPUT_HW)
    (found,) = launched(kernel, output[None], [image_block(limits, place, wh, 7)])
    require_same(found, on_host(output.astype(np.float32), limits, place, wh))


def test_more_candidates_than_a_block_holds_are_left_to_the_host() -> None:
    place = placement((640, 480), INPUT_HW)
    for limits in (Limits(0.25, top_k=MOST_CANDIDATES + 1), Limits(0.001, every_class=True)):
        with pytest.raises(UnsupportedSpec, match="at most 1024 candidates"):
            image_block(limits, place, (640, 480), 0)


@pytest.mark.parametrize("limits", [Limits(0.25), Limits(0.02, iou=0.6, top_k=1000)], ids=["predict", "low"])
def test_on_every_photo_the_same_objects_are_found(kernel: ctypes.CDLL, shared_data: Path, limits: Limits) -> None:
    model = shared_data / "models" / "yolox_nano_v8layout.onnx"
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    letterbox, buffer = Letterbox(INPUT_HW), np.empty((1, 3, *INPUT_HW), np.float32)
    paths, objects = sorted((shared_data / "images").rglob("*.jpg")), 0
    for path in paths:
        image = np.asarray(cv2.imread(str(path)), np.uint8)
        wh = (image.shape[1], image.shape[0])
        place = letterbox.apply(image, buffer[0])
        (output,) = session.run(None, {session.get_inputs()[0].name: buffer})
        (found,) = launched(kernel, output, [image_block(limits, place, wh, 7)], turns=1)
        require_same(found, on_host(output[0], limits, place, wh))
        objects += len(found.class_id) if found else 0
    assert len(paths) >= 128
    assert objects > 400
