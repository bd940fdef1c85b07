from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near import assert_near
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from vajra_edge.errors import GraphError
from vajra_edge.geometry.letterbox import Letterbox
from vajra_edge.graph import signature
from vajra_edge.graph.passes.nms import PASSES, SCORE_FLOOR, add_nms
from vajra_edge.plans.spec import NmsSpec

Floats = NDArray[np.float32]
ANCHORS = 512
GOLDEN, SILVER = 0.6180339887, 0.4142135624
"""Farther from every fraction of small areas than FP32 rounds, so that integer boxes have one right answer."""


def overlaps_of(boxes: Floats) -> NDArray[np.float64]:
    xyxy = boxes.astype(np.float64)
    low = np.maximum(xyxy[:, None, :2], xyxy[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1)
    union = areas[:, None] + areas[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def sequential_nms(raw: Floats, iou: float, confidence: float, max_det: int) -> tuple[Floats, int]:
    """One image (4 + classes, anchors) the plain way: box by box from the best, class by class, all anchors.

    Returns rows of x1, y1, x2, y2, score, class, and how many passes settle every box: one after the first kept rival
    where there is one, else one after the last rival is known to be suppressed.
    """
    best = raw[4:].max(axis=0)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > confidence]
    centre, size = raw[:2, order].T, raw[2:4, order].T
    boxes = np.concatenate((centre - size / 2, centre + size / 2), axis=1)
    labels = raw[4:, order].argmax(axis=0)
    overlap = overlaps_of(boxes) if len(order) else np.zeros((0, 0))
    settled = np.zeros(len(order), int)
    kept: list[int] = []
    for box in range(len(order)):
        rivals = [j for j in range(box) if labels[j] == labels[box] and overlap[j, box] > iou]
        stronger = [settled[j] + 1 for j in rivals if j in kept]
        settled[box] = min(stronger) if stronger else max((settled[j] + 1 for j in rivals), default=0)
        if not stronger:
            kept.append(box)
    rows = np.concatenate((boxes, best[order, None], labels[:, None]), axis=1).astype(np.float32)
    return rows[kept[:max_det]], int(settled.max(initial=0))


def run(network: bytes, images: Floats) -> Floats:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    return session.run(["detections"], {"images": images})[0]


@pytest.fixture(scope="module")
def detect(reshaping_network: Callable[..., bytes]) -> Callable[..., Floats]:
    @lru_cache
    def session(iou: float, max_det: int, top_k: int, opset: int) -> ort.InferenceSession:
        network = add_nms(reshaping_network(opset=opset), NmsSpec(iou, max_det, top_k))
        return ort.InferenceSession(network, providers=["CPUExecutionProvider"])

    def of(raw: Floats, iou: float, max_det: int = 300, top_k: int = ANCHORS, opset: int = 17) -> Floats:
        images = raw.reshape(1, 3, 32, 32)
        return session(iou, max_det, top_k, opset).run(None, {"images": images})[0][0]

    return of


def raw_of(xyxy: list[tuple[float, ...]], scores: list[float], labels: list[int]) -> Floats:
    raw = np.zeros((6, ANCHORS), np.float32)
    for anchor, ((x1, y1, x2, y2), score, label) in enumerate(zip(xyxy, scores, labels, strict=True)):
        raw[:4, anchor] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        raw[4 + label, anchor] = score
    return raw


def filled(rows: Floats) -> Floats:
    return rows[rows[:, 4] > 0]


box = st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(0, 15), st.integers(0, 15)).map(
    lambda side: (min(side[0], side[2]), min(side[1], side[3]), max(side[0], side[2]) + 1, max(side[1], side[3]) + 1)
)
score = st.sampled_from([0.0, 0.25, 0.5, 0.5 + 2**-20, 0.75, 1.0])  # few values: many ties
scene = st.lists(st.tuples(box, score, st.integers(0, 1)), max_size=120)


@given(scene=scene, iou=st.sampled_from([GOLDEN, SILVER]), max_det=st.sampled_from([5, 300]))
@settings(max_examples=300, deadline=None)
def test_any_boxes_with_ties_and_duplicates_end_like_sequential_nms(detect, scene, iou, max_det):
    raw = raw_of([item[0] for item in scene], [item[1] for item in scene], [item[2] for item in scene])
    expected, passes = sequential_nms(raw, iou, SCORE_FLOOR, max_det)
    found = filled(detect(raw, iou, max_det))
    if passes <= PASSES:
        np.testing.assert_array_equal(found, expected)
    elif max_det == 300:
        assert {tuple(row) for row in expected} <= {tuple(row) for row in found}


def chain(length: int) -> Floats:
    """Each box suppresses only the next: sequential NMS keeps every other one."""
    boxes = [(4.0 * step, 0.0, 4.0 * step + 16, 16.0) for step in range(length)]  # neighbours overlap by 0.6
    return raw_of(boxes, [1 - step / 1000 for step in range(length)], [0] * length)


@pytest.mark.parametrize("length", range(1, PASSES + 2))
def test_chains_as_long_as_the_passes_are_exact(detect, length):
    raw = chain(length)
    expected, passes = sequential_nms(raw, 0.5, SCORE_FLOOR, 300)
    assert passes == length - 1
    np.testing.assert_array_equal(filled(detect(raw, 0.5)), expected)
    assert len(expected) == (length + 1) // 2


@pytest.mark.parametrize("length", [PASSES + 2, PASSES + 3, 60, 400])
def test_longer_chains_keep_duplicates_and_never_lose_an_object(detect, length):
    raw = chain(length)
    expected, _ = sequential_nms(raw, 0.5, SCORE_FLOOR, 300)
    found = filled(detect(raw, 0.5, max_det=512))
    assert {tuple(row) for row in expected} <= {tuple(row) for row in found}
    assert len(found) == len(expected) + (length - PASSES) // 2


def test_identical_boxes_of_one_class_become_one_and_of_two_classes_two(detect):
    same = (2.0, 2.0, 9.0, 9.0)
    found = filled(detect(raw_of([same] * 500, [0.5] * 500, [0, 1] * 250), 0.7))
    np.testing.assert_array_equal(found, [[*same, 0.5, 0], [*same, 0.5, 1]])


class GatherElements(OpRun):
    """The reference's own takes 32 anchors at most."""

    def _run(self, data: Floats, indices: NDArray[np.int64], axis: int) -> tuple[Floats]:
        return (np.take_along_axis(data, indices, axis),)


def in_half(network: bytes) -> onnx.ModelProto:
    """Every float of a network as FP16: what weak typing may make of any layer that TensorRT does not pin."""
    model = onnx.load_from_string(network)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for tensor in model.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float16), tensor.name))
    for entry in [*model.graph.input, *model.graph.output]:
        entry.type.tensor_type.elem_type = half
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == single:
                attribute.i = half
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("side", [4.0, 20.0, 300.0, 600.0])
def test_boxes_of_any_size_suppress_each_other_in_fp16_too(reshaping_network, side, dynamic):
    anchors = 32 * 640 * 3 // 6
    network = add_nms(
        reshaping_network(
            input_shape=(1, 3, "height", "width") if dynamic else (1, 3, 32, 640),
            output_shape=(1, 6, "anchors") if dynamic else (1, 6, anchors),
            metadata={"names": '["person", "car"]', "stride": "32", "img_size": "[32, 640]"},
        ),
        NmsSpec(0.7, 10, 16),
    )
    near = side / 8  # IoU 0.78
    far = 8 + side
    boxes = [(8.0, 8.0, far, far), (8.0, 8 + near, far, far + near), (far, 8.0, far + 1, 9.0)]
    raw = np.zeros((1, 6, anchors), np.float16)
    raw[0, :, :ANCHORS] = raw_of(boxes, [0.75, 0.5, 0.25], [0, 0, 0])
    evaluator = ReferenceEvaluator(in_half(network), new_ops=[GatherElements])
    found = evaluator.run(None, {"images": raw.reshape(1, 3, 32, 640)})[0]
    assert [tuple(row[:4]) for row in filled(found[0])] == [boxes[0], boxes[2]]


def test_overlap_exactly_at_the_threshold_is_kept(detect):
    boxes = [(0.0, 0.0, 4.0, 4.0), (0.0, 0.0, 4.0, 2.0)]
    assert len(filled(detect(raw_of(boxes, [0.9, 0.8], [0, 0]), 0.5))) == 2


def test_boxes_without_area_neither_suppress_nor_vanish(detect):
    boxes = [(3.0, 3.0, 3.0, 3.0), (3.0, 3.0, 3.0, 3.0), (5.0, 1.0, 2.0, 9.0)]  # two points, one of negative width
    assert len(filled(detect(raw_of(boxes, [0.9, 0.8, 0.7], [0, 0, 0]), 0.0))) == 3


def test_rows_are_sorted_and_empty_rows_are_all_zero(detect):
    boxes = [(0.0, 0.0, 4.0, 4.0), (20.0, 0.0, 24.0, 4.0), (40.0, 0.0, 44.0, 4.0)]
    found = detect(raw_of(boxes, [0.3, SCORE_FLOOR / 2, 0.9], [0, 1, 1]), 0.7)
    assert found.shape == (300, 6)
    np.testing.assert_array_equal(found[:2, 4], np.float32([0.9, 0.3]))
    assert not found[2:].any()


def test_only_the_top_k_candidates_enter(detect):
    boxes = [(10.0 * step, 0.0, 10.0 * step + 4, 4.0) for step in range(40)]
    found = filled(detect(raw_of(boxes, list(np.linspace(0.2, 0.9, 40)), [0] * 40), 0.7, top_k=8))
    assert len(found) == 8
    assert found[-1, 4] > 0.7


def test_a_box_that_is_not_finite_stays_visible_to_the_gate(detect):
    raw = raw_of([(0.0, 0.0, 4.0, 4.0)], [0.9], [0])
    raw[0, 0] = np.inf
    assert not np.isfinite(detect(raw, 0.7)).all()


@pytest.mark.parametrize("opset", [11, 13, 15, 17, 18, 19, 20])
def test_every_opset_gives_the_same(detect, opset):
    rng = np.random.default_rng(opset)
    raw = rng.random((6, ANCHORS), np.float32) * np.float32([[60], [60], [30], [30], [1], [1]])
    expected, passes = sequential_nms(raw, 0.5, SCORE_FLOOR, 50)
    assert passes > 1
    np.testing.assert_allclose(filled(detect(raw, 0.5, 50, opset=opset)), expected, atol=1e-5)


def test_fewer_anchors_than_rows_leave_empty_rows(detect, reshaping_network):
    found = detect(raw_of([(0.0, 0.0, 4.0, 4.0)], [0.9], [1]), 0.7, max_det=600, top_k=1000)
    assert found.shape == (600, 6)
    assert len(filled(found)) == 1
    recorded = signature.read(add_nms(reshaping_network(), NmsSpec(0.7, 600, 1000)))
    assert (recorded.max_det, recorded.top_k) == (600, 1000)


@pytest.mark.parametrize(("height", "width", "batch"), [(32, 32, 1), (32, 64, 3), (96, 64, 2)])
def test_dynamic_batch_and_size_see_each_image_alone(detect, reshaping_network, height, width, batch):
    network = add_nms(
        reshaping_network(
            input_shape=("batch", 3, "height", "width"),
            output_shape=("batch", 6, "anchors"),
            metadata={"names": '["person", "car"]', "stride": "32", "img_size": "[96, 64]", "batch": "4"},
        ),
        NmsSpec(0.5, 300, 700),
    )
    rng = np.random.default_rng(batch)
    raw = rng.random((batch, 6, height * width // 2), np.float32) * np.float32([[90], [90], [40], [40], [1], [1]])
    found = run(network, raw.reshape(batch, 3, height, width))
    assert found.shape == (batch, 300, 6)
    for image in range(batch):
        order = np.sort(np.argsort(-raw[image, 4:].max(axis=0), kind="stable")[:700])
        expected, _ = sequential_nms(raw[image][:, order], 0.5, SCORE_FLOOR, 300)
        np.testing.assert_allclose(filled(found[image]), expected, atol=1e-4)


def test_the_signature_of_the_new_network_says_what_is_baked_in(reshaping_network):
    before = signature.read(reshaping_network())
    after = signature.read(add_nms(reshaping_network(), NmsSpec(0.6, 50, 200)))
    assert (after.layout, after.output_name) == (signature.Layout.DETECTIONS, "detections")
    assert (after.nms_iou, after.max_det, after.top_k) == (0.6, 50, 200)
    assert (after.class_names, after.stride, after.resolution_hw) == (
        before.class_names,
        before.stride,
        before.resolution_hw,
    )


def test_only_operators_with_static_shapes_are_added_and_named_so_that_precision_passes_skip_them(reshaping_network):
    network = onnx.load_from_string(add_nms(reshaping_network(), NmsSpec()))
    added = [node for node in network.graph.node if node.output[0] != "output0"]
    assert all(node.name.startswith("/nms/") for node in added)
    assert not {node.op_type for node in added} & {"If", "Loop", "Scan", "NonZero", "NonMaxSuppression", "Where"}
    assert {node.domain for node in added} == {""}
    assert len(network.SerializeToString()) < 100_000


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (NmsSpec(iou=1.5), "NMS iou is 1.5; choose between 0 and 1"),
        (NmsSpec(max_det=0), "NMS max_det is 0; choose between 1 and 3840"),
        (NmsSpec(top_k=5000), "NMS top_k is 5000; choose between 1 and 3840"),
    ],
)
def test_figures_out_of_range_are_refused(reshaping_network, spec, words):
    with pytest.raises(GraphError, match=words):
        add_nms(reshaping_network(), spec)


@pytest.mark.parametrize(("opset", "operator"), [(9, "Upsample"), (11, "Unknown")])
def test_an_old_network_that_cannot_be_raised_says_so(reshaping_network, opset, operator):
    network = onnx.load_from_string(reshaping_network(opset=opset))
    network.graph.node[0].output[0] = "reshaped"
    network.graph.node.append(onnx.helper.make_node(operator, ["reshaped"], ["output0"]))
    with pytest.raises(GraphError, match=f"opset {opset} cannot be raised to 13: .*; export with opset 17"):
        add_nms(network.SerializeToString(), NmsSpec())


def test_nms_is_not_added_twice(reshaping_network):
    with pytest.raises(GraphError, match="holds NMS already"):
        add_nms(add_nms(reshaping_network(), NmsSpec()), NmsSpec())


def test_nvidias_parser_and_builder_take_it(reshaping_network):
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="absent here: TensorRT-RTX")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(add_nms(reshaping_network(), NmsSpec(0.7, 300, 400)))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert tuple(network.get_output(0).shape) == (1, 300, 6)
    assert builder.build_serialized_network(network, config) is not None


def photos(folder: Path) -> list[Path]:
    return sorted((folder / "images/coco128").glob("*.jpg"))


def test_on_128_photos_no_box_differs_from_sequential_nms(shared_data, reshaping_network):
    confidence = 0.05
    letterbox = Letterbox((416, 416))
    plain = (shared_data / "models/yolox_nano_v8layout.onnx").read_bytes()
    raw_session = ort.InferenceSession(plain, providers=["CPUExecutionProvider"])
    inputs = []
    for photo in photos(shared_data):
        images = letterbox.blank(1)
        letterbox.apply(cv2.imread(str(photo)), images[0])
        inputs.append(images)
    raws = [raw_session.run(None, {"images": images})[0][0] for images in inputs]
    assert len(raws) == 128
    inside = ort.InferenceSession(add_nms(plain, NmsSpec(0.7)), providers=["CPUExecutionProvider"])
    first = inside.run(None, {"images": inputs[0]})[0][0]
    assert_near(first[first[:, 4] > confidence], sequential_nms(raws[0], 0.7, confidence, 300)[0])
    shape = (1, 3, raws[0].size // (3 * raws[0].shape[1]), raws[0].shape[1])
    names = {"names": str([f"class {number}" for number in range(80)]), "stride": "1"}
    alone = reshaping_network(input_shape=shape, output_shape=(1, *raws[0].shape), metadata=names)
    for iou in (0.7, 0.45):  # behind the same raw outputs: another run of the network differs in last digits
        session = ort.InferenceSession(add_nms(alone, NmsSpec(iou)), providers=["CPUExecutionProvider"])
        total = most_passes = different = 0
        for raw in raws:
            expected, passes = sequential_nms(raw, iou, confidence, 300)
            found = session.run(None, {"images": raw.reshape(shape)})[0][0]
            found = found[found[:, 4] > confidence]
            total, most_passes = total + len(expected), max(most_passes, passes)
            different += len({tuple(row) for row in found} ^ {tuple(row) for row in expected})
        print(f"iou {iou}: {total} boxes, {different} differ, settled after {most_passes} passes")
        assert different == 0
        assert total > 1000
        assert most_passes <= PASSES
