from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import onnx
import pytest
import tiny
from onnx import TensorProto, helper
from waiting import LIMIT_S

from vajra_edge.errors import GraphError
from vajra_edge.graph import topology
from vajra_edge.graph.passes.nms import add_nms
from vajra_edge.graph.signature import Layout, Signature, read
from vajra_edge.plans.spec import NmsSpec

NAMES = {"names": '["person", "car"]'}


def test_a_manifest_from_before_the_largest_size_still_loads():
    now = read(tiny.network())
    plain = now.to_json()
    assert plain.pop("largest_hw") is None
    assert Signature.from_json(plain) == now
    assert (now.most_hw, replace(now, largest_hw=(512, 320)).most_hw) == ((256, 256), (512, 320))
    wide = replace(now, dynamic_size=True, largest_hw=(512, 320))
    assert Signature.from_json(json.loads(json.dumps(wide.to_json()))) == wide


def test_a_static_raw_network_is_recognised(reshaping_network):
    assert read(reshaping_network()) == Signature(
        "images", "output0", Layout.RAW, 1, (32, 32), False, False, 32, ("person", "car")
    )


def test_dynamic_sizes_take_the_recorded_size_unless_another_is_wanted(reshaping_network):
    network = reshaping_network(
        input_shape=("batch", 3, "height", "width"),
        output_shape=("batch", 6, "anchors"),
        metadata={**NAMES, "stride": "32", "imgsz": "[96, 64]", "batch": "8"},
    )
    found = read(network)
    assert (found.dynamic_batch, found.dynamic_size, found.batch, found.resolution_hw) == (True, True, 8, (96, 64))
    assert read(network, resolution_hw=(320, 640)).resolution_hw == (320, 640)


def test_a_fixed_size_wins_over_a_wanted_and_a_recorded_one(reshaping_network):
    network = reshaping_network(metadata={**NAMES, "stride": "32", "imgsz": "nonsense"})
    assert read(network, resolution_hw=(320, 640)).resolution_hw == (32, 32)


def test_one_open_side_takes_its_part_of_the_size(reshaping_network):
    network = reshaping_network(input_shape=(1, 3, 32, "width"), output_shape=(1, 6, "anchors"))
    found = read(network, resolution_hw=(640, 96))
    assert (found.resolution_hw, found.dynamic_size) == ((32, 96), True)


def test_output_dimensions_that_the_file_leaves_open_are_inferred(reshaping_network):
    assert read(reshaping_network(output_shape=(None, None, None))).layout is Layout.RAW


def test_settings_supply_what_the_metadata_lacks(reshaping_network):
    found = read(reshaping_network(metadata={}), class_names=("a", "b"), stride=16)
    assert (found.class_names, found.stride) == (("a", "b"), 16)


def test_settings_override_the_names_and_not_the_stride(reshaping_network):
    found = read(reshaping_network(), class_names=("a", "b"), stride=16)
    assert (found.class_names, found.stride) == (("a", "b"), 32)


def test_a_network_with_nms_tells_its_figures_and_survives_json(reshaping_network):
    found = read(add_nms(reshaping_network(), NmsSpec(0.45, 100, 200)))
    assert (found.layout, found.nms_iou, found.max_det, found.top_k) == (Layout.DETECTIONS, 0.45, 100, 200)
    assert Signature.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": {"stride": "32"}}, r"no class names; set \[weights\] class_names"),
        ({"metadata": NAMES}, r"no stride; set \[weights\] stride"),
        ({"metadata": {**NAMES, "stride": "64"}}, r"32x32 \(height x width\) is not a multiple of stride 64"),
        ({"metadata": {**NAMES, "stride": "32", "task": "segment"}}, "task is 'segment'"),
        ({"input_shape": (1, 3072)}, r"expected one input \(N, 3, H, W\), found images \(1, 3072\)"),
        ({"input_shape": (1, 12, 16, 16)}, r"no image input: .* found images \(1, 12, 16, 16\)"),
        ({"kind": TensorProto.FLOAT16}, "'images' is FLOAT16, expected FLOAT; export without half"),
        ({"output_shape": (3072,)}, r"expected one output \(N, 6, anchors\) for 2 classes, found output0 \(3072\)"),
        (
            {"input_shape": (1, 3, "height", "width"), "output_shape": (1, 6, "anchors")},
            r"takes any size and its metadata has none; set \[engine\] img_size",
        ),
        (
            {"metadata": {**NAMES, "stride": "32", "nms_iou": "0.7", "max_det": "300", "top_k": "1000"}},
            r"expected one output .* found output0",
        ),
        ({"metadata": {**NAMES, "stride": "32", "nms_iou": "0.7"}}, "NMS metadata is incomplete"),
        ({"metadata": {**NAMES, "stride": "32", "nms_iou": "7", "max_det": "1", "top_k": "1"}}, "is incomplete"),
    ],
)
def test_a_wrong_network_gets_one_line_with_the_remedy(reshaping_network, changes, words):
    with pytest.raises(GraphError, match=words) as raised:
        read(reshaping_network(**changes))
    assert raised.value.remedy
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\0" * 100, b"\x08\x08", b"PK\x03\x04" * 50])
def test_bytes_that_are_not_onnx_are_refused(content):
    with pytest.raises(GraphError, match=r"export it (again|to ONNX)|unpack it"):
        read(content)


def test_a_truncated_file_is_refused(reshaping_network):
    whole = reshaping_network()
    for length in range(0, len(whole) - 1, 7):
        with pytest.raises(GraphError):
            read(whole[:length])


def test_a_file_over_the_limit_is_refused_before_it_is_parsed(monkeypatch, reshaping_network):
    monkeypatch.setattr(topology, "MAX_ONNX_BYTES", 100)
    with pytest.raises(GraphError, match="the limit is 100"):
        read(reshaping_network())


def test_two_outputs_of_the_known_layout_are_refused(reshaping_network):
    network = onnx.load_from_string(reshaping_network())
    network.graph.node.append(helper.make_node("Identity", ["output0"], ["again"]))
    network.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, (1, 6, 512)))
    with pytest.raises(GraphError, match=r"found output0 \(1, 6, 512\), again \(1, 6, 512\)"):
        read(network.SerializeToString())


def test_a_half_precision_output_is_refused(reshaping_network):
    network = onnx.load_from_string(reshaping_network())
    network.graph.node[0].output[0] = "whole"
    network.graph.node.append(helper.make_node("Cast", ["whole"], ["output0"], to=TensorProto.FLOAT16))
    network.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(GraphError, match="'output0' is FLOAT16, expected FLOAT; export without half"):
        read(network.SerializeToString())


def external(tensor: onnx.TensorProto) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def test_weights_in_another_file_are_refused_wherever_they_hide(reshaping_network):
    initializer = onnx.load_from_string(reshaping_network())
    external(initializer.graph.initializer[0])
    attribute = onnx.load_from_string(reshaping_network())
    hidden = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    external(hidden)
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=hidden)], "inner", [], [])
    attribute.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))
    function = onnx.load_from_string(reshaping_network())
    constant = helper.make_node("Constant", [], ["c"], value=hidden)
    function.functions.append(helper.make_function("f", "f", [], ["c"], [constant], []))
    for network in (initializer, attribute, function):
        with pytest.raises(GraphError, match="lies in another file"):
            read(network.SerializeToString())


def test_subgraphs_nested_without_end_are_refused(reshaping_network):
    network = onnx.load_from_string(reshaping_network())
    inner = helper.make_graph([], "inner", [], [])
    for _ in range(20):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "inner", [], [])
    network.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))
    with pytest.raises(GraphError, match="nests more than 8 subgraphs"):
        read(network.SerializeToString())


def test_importing_the_signature_loads_no_onnx():
    program = "import sys, vajra_edge.graph.signature; print(any(m.split('.')[0] == 'onnx' for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("name", "size", "anchors"), [("yolox_nano_v8layout", 416, 3549), ("vajra-v1-nano-det-cctv", 640, 8400)]
)
def test_trained_networks_are_recognised(shared_data, name, size, anchors):
    content = (shared_data / f"models/{name}.onnx").read_bytes()
    found = read(content)
    assert (found.layout, found.resolution_hw, found.stride, len(found.class_names)) == (
        Layout.RAW,
        (size, size),
        32,
        80,
    )
    output = onnx.load_from_string(content).graph.output[0]
    assert topology.shape_of(output) == (1, 84, anchors)
