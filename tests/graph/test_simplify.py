from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import onnxslim
import pytest
from near import assert_near
from onnx import TensorProto, helper

from vajra_edge.errors import GraphError
from vajra_edge.graph import metadata, signature
from vajra_edge.graph.assemble import simplify
from vajra_edge.graph.passes.nms import add_nms
from vajra_edge.plans.spec import NmsSpec


def with_idle_nodes(content: bytes) -> bytes:
    network = onnx.load_from_string(content)
    graph = network.graph
    graph.node[0].output[0] = "reshaped"
    zero = helper.make_node("ConstantOfShape", ["one"], ["zero"])
    graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    graph.node.extend(
        [zero, helper.make_node("Identity", ["reshaped"], ["same"]), helper.make_node("Add", ["same", "zero"], ["sum"])]
    )
    graph.node.append(helper.make_node("Identity", ["sum"], ["output0"]))
    return network.SerializeToString()


def outputs(network: bytes, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(network, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def test_idle_nodes_go_and_figures_metadata_and_signature_stay(reshaping_network):
    before = with_idle_nodes(reshaping_network())
    after = simplify(before)
    images = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    assert len(onnx.load_from_string(after).graph.node) < len(onnx.load_from_string(before).graph.node)
    assert_near(outputs(after, images), outputs(before, images))
    assert signature.read(after) == signature.read(before)
    fields = [metadata.fields_of(onnx.load_from_string(content)) for content in (before, after)]
    assert fields[0] == fields[1]


def test_dynamic_dimensions_come_through(reshaping_network):
    network = reshaping_network(
        input_shape=("batch", 3, "height", "width"),
        output_shape=("batch", 6, "anchors"),
        metadata={"names": '["person", "car"]', "stride": "32", "imgsz": "64"},
    )
    assert signature.read(simplify(network)) == signature.read(network)


def test_a_network_with_nms_finds_the_same(reshaping_network):
    before = add_nms(reshaping_network(), NmsSpec(0.5, 100, 200))
    images = np.random.default_rng(1).random((1, 3, 32, 32), np.float32) * 30
    assert_near(outputs(simplify(before), images), outputs(before, images))


def test_an_invalid_network_is_refused_before(reshaping_network):
    network = onnx.load_from_string(reshaping_network())
    network.graph.node[0].input[0] = "nowhere"
    with pytest.raises(GraphError, match="not valid ONNX before it is simplified") as raised:
        simplify(network.SerializeToString())
    assert "\n" not in str(raised.value)


def test_a_failure_inside_onnxslim_names_the_setting_that_switches_it_off(reshaping_network, monkeypatch):
    def fail(network):
        raise KeyError("no such pattern")

    monkeypatch.setattr(onnxslim, "slim", fail)
    with pytest.raises(GraphError, match=r"onnxslim failed: .*no such pattern.*\[engine\] simplify = false"):
        simplify(reshaping_network())


def test_a_changed_contract_is_refused(reshaping_network, monkeypatch):
    def rename(network):
        network.graph.node[0].output[0] = network.graph.output[0].name = "other"
        return network

    monkeypatch.setattr(onnxslim, "slim", rename)
    with pytest.raises(GraphError, match=r"onnxslim changed output 'output0' from .* to None, output 'other'"):
        simplify(reshaping_network())


def test_the_trained_network_finds_the_same(shared_data):
    content = (shared_data / "models/yolox_nano_v8layout.onnx").read_bytes()
    images = np.random.default_rng(2).random((1, 3, 416, 416), np.float32)
    assert_near(outputs(simplify(content), images), outputs(content, images), 1e-4)
