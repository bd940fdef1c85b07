from __future__ import annotations

import numpy as np
import onnx
import pytest
import yolo
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.errors import GraphError
from vajra_edge.graph.passes.fp16 import to_half
from vajra_edge.graph.passes.instrument import measurable
from vajra_edge.graph.passes.nms import add_nms
from vajra_edge.graph.passes.qdq import place, quantize
from vajra_edge.graph.topology import Wiring, load
from vajra_edge.plans.spec import NmsSpec

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def kinds(onnx_bytes: bytes) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(onnx_bytes)).graph
    entries = [*graph.value_info, *graph.output, *graph.input]
    return {entry.name: entry.type.tensor_type.elem_type for entry in entries}


def quantized(plain: bytes) -> bytes:
    placement = place(Wiring(load(plain)))
    return quantize(plain, placement, dict.fromkeys(measurable(plain), 4.0))


def test_layers_compute_in_fp16_and_the_box_arithmetic_in_fp32() -> None:
    found = kinds(to_half(yolo.network()))
    assert {found[name] for name in ("stem", "inner2", "qkv", "attention", "neck", "box_last", "class_last")} == {HALF}
    assert {found[name] for name in ("low", "high", "size", "boxes", "output0")} == {FULL}


def test_numbers_from_0_to_1_and_the_mean_over_bins_are_fp16() -> None:
    found = kinds(to_half(yolo.network()))
    assert {found[name] for name in ("chance", "reach", "scores")} == {HALF}


def test_the_border_lies_behind_operators_that_only_move_values() -> None:
    found = kinds(to_half(yolo.network()))
    assert {found[name] for name in ("level", "flat", "both0", "bins_first")} == {HALF}


def test_inputs_and_outputs_keep_name_shape_and_type() -> None:
    before, after = (onnx.load_from_string(one).graph for one in (yolo.network(), to_half(yolo.network())))
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)


def test_boxes_and_scores_hardly_move() -> None:
    images = yolo.images(1)
    before, after = yolo.run(yolo.network(), images), yolo.run(to_half(yolo.network()), images)
    assert np.abs(before[:, :4] - after[:, :4]).max() < 0.1
    assert np.abs(before[:, 4:] - after[:, 4:]).max() < 0.005


def test_the_file_is_half_as_large() -> None:
    assert len(to_half(yolo.network())) < 0.75 * len(yolo.network())


def test_any_batch_goes_through_a_dynamic_graph() -> None:
    half = to_half(yolo.network(batch=None))
    assert [yolo.run(half, yolo.images(count)).shape for count in (1, 3)] == [(1, 6, 256), (3, 6, 256)]


def test_a_graph_with_nms_finds_the_same_objects() -> None:
    plain = add_nms(yolo.network(), NmsSpec(max_det=20, top_k=100))
    half = to_half(plain)
    assert {kind for name, kind in kinds(half).items() if name in {"/nms/x1", "/nms/area", "detections"}} == {FULL}
    before, after = (yolo.run(one, yolo.images(1))[0] for one in (plain, half))
    assert np.abs(before[:5, :5] - after[:5, :5]).max() < 0.2


def test_quantized_graphs_get_fp16_scales_in_an_operator_set_that_has_them() -> None:
    plain = yolo.network()
    half = to_half(quantized(plain))
    model = onnx.load_from_string(half)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 19
    scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert scales
    assert {tensor.data_type for tensor in model.graph.initializer if tensor.name in scales} == {HALF}
    assert yolo.run(half, yolo.images(1)).shape == (1, 6, 256)


def test_casting_changes_no_scale_of_a_quantized_graph() -> None:
    before = onnx.load_from_string(quantized(yolo.network()))
    after = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load_from_string(to_half(before.SerializeToString())).graph.initializer
    }
    scales = [tensor for tensor in before.graph.initializer if tensor.name.endswith("_scale")]
    assert scales
    for tensor in scales:
        np.testing.assert_array_equal(after[f"{tensor.name}_fp16"].astype(np.float32), numpy_helper.to_array(tensor))


def test_resize_keeps_float32_scales() -> None:
    model = onnx.load_from_string(to_half(yolo.network()))
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    assert {t.data_type for t in model.graph.initializer if t.name == resize.input[2]} == {FULL}


def test_a_weight_beyond_fp16_keeps_its_layer_in_fp32() -> None:
    draft = yolo.Draft()
    huge = draft.constant("huge", np.full((4, 3, 1, 1), 1e5, np.float32))
    draft.node("Relu", "output0", draft.conv("last", draft.node("Conv", "wide", "images", huge), 4, 4))
    found = kinds(to_half(draft.finish("output0", [4, 64, 64])))
    assert (found["wide"], found["last"]) == (FULL, HALF)


def test_named_tensors_stay_fp32() -> None:
    assert kinds(to_half(yolo.network(), keep={"neck"}))["neck"] == FULL


def test_an_output_that_a_layer_makes_is_cast_back() -> None:
    draft = yolo.Draft()
    draft.conv("output0", "images", 3, 4)
    half = to_half(draft.finish("output0", [4, 64, 64]))
    assert yolo.run(half, yolo.images(1)).dtype == np.float32


def test_control_flow_is_refused_by_name() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["inner"])],
        "body",
        [],
        [helper.make_empty_tensor_value_info("inner")],
    )
    draft = yolo.Draft()
    always = draft.constant("always", np.array(True))
    draft.node("If", "output0", always, then_branch=body, else_branch=body)
    with pytest.raises(GraphError, match="control flow \\(If\\)"):
        to_half(draft.finish("output0", [3, 64, 64]))


def test_a_tensor_of_unknown_type_is_named() -> None:
    draft = yolo.Draft()
    draft.node("Odd", "strange", "images", domain="somewhere")
    draft.node("Relu", "output0", "strange")
    graph = helper.make_graph(
        draft.nodes,
        "odd",
        [helper.make_tensor_value_info("images", FULL, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output0", FULL, [1, 3, 8, 8])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("somewhere", 1)]
    with pytest.raises(GraphError, match="strange behind Odd"):
        to_half(helper.make_model(graph, opset_imports=imports).SerializeToString())


@pytest.mark.parametrize("name", ["vajra-v1-nano-det-cctv.onnx", "yolox_nano_v8layout.onnx"])
def test_real_networks_keep_their_scores(shared_data, name: str) -> None:
    plain = (shared_data / "models" / name).read_bytes()
    half = to_half(plain)
    onnx.checker.check_model(onnx.load_from_string(half), full_check=True)
    side = onnx.load_from_string(plain).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    picture = yolo.images(1, side=side)
    assert np.abs(yolo.run(plain, picture)[:, 4:] - yolo.run(half, picture)[:, 4:]).max() < 0.01
