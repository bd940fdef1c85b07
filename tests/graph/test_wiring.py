from __future__ import annotations

import numpy as np
import pytest
import yolo
from near import assert_near
from onnx import helper, numpy_helper

from vajra_edge.errors import GraphError
from vajra_edge.graph.topology import Wiring, elements, load, macs_by_layer, opset_of, raise_opset, share


def test_layers_are_the_nodes_with_constant_weights() -> None:
    wiring = Wiring(load(yolo.network()))
    names = [node.output[0] for node in wiring.layers()]
    assert "qkv" in names
    assert not {"product", "weighted"} & set(names)


@pytest.mark.parametrize(
    ("field", "value"),
    [("value_float", 2.0), ("value_ints", [1, 2]), ("value", numpy_helper.from_array(np.ones(3, np.float32)))],
)
def test_constant_nodes_become_constants(field: str, value: object) -> None:
    draft = yolo.Draft()
    draft.node("Constant", "two", **{field: value})
    draft.node("Relu", "output0", "images")
    wiring = Wiring(load(draft.finish("output0", [3, 64, 64])))
    assert wiring.array("two") is not None
    assert [node.op_type for node in wiring.nodes] == ["Relu"]


def test_a_constant_of_another_kind_is_named() -> None:
    draft = yolo.Draft()
    draft.node("Constant", "words", value_string=b"x")
    draft.node("Relu", "output0", "images")
    with pytest.raises(GraphError, match="value_string"):
        Wiring(load(draft.finish("output0", [3, 64, 64])))


def test_raising_the_operator_set_keeps_metadata_and_meaning() -> None:
    before = load(yolo.network())
    after = raise_opset(load(yolo.network()), 19)
    assert opset_of(after) == 19
    assert {p.key for p in after.metadata_props} == {p.key for p in before.metadata_props}
    images = yolo.images(1)
    expected = yolo.run(before.SerializeToString(), images)
    assert_near(yolo.run(after.SerializeToString(), images), expected)


def test_an_operator_that_cannot_be_raised_is_an_error_with_the_remedy() -> None:
    draft = yolo.Draft()
    draft.node("Relu", "output0", "images")
    model = load(draft.finish("output0", [3, 64, 64]))
    model.graph.node.append(helper.make_node("NoSuchOperator", ["images"], ["x"]))
    with pytest.raises(GraphError, match="export with opset 19"):
        raise_opset(model, 19)


def test_macs_are_kernel_times_places() -> None:
    macs = macs_by_layer(Wiring(load(yolo.network())))
    assert macs["stem"] == 16 * 3 * 9 * 32 * 32
    assert macs["depthwise"] == 32 * 9 * 8 * 8
    assert macs["reach"] == 16 * 4 * 256


def test_macs_of_a_dynamic_graph_are_those_of_one_image_of_the_given_size() -> None:
    static = macs_by_layer(Wiring(load(yolo.network())))
    dynamic = Wiring(load(yolo.network(batch=None)))
    assert macs_by_layer(dynamic, (64, 64)) == static


def test_macs_of_products_and_transposed_convolutions() -> None:
    draft = yolo.Draft()
    draft.node("MatMul", "rows", "images", draft.constant("w", np.ones((64, 8), np.float32)))
    draft.node(
        "ConvTranspose", "output0", "images", draft.constant("t", np.ones((3, 5, 2, 2), np.float32)), strides=[2, 2]
    )
    assert macs_by_layer(Wiring(load(draft.finish("output0", [5, 128, 128])))) == {
        "rows": 3 * 64 * 64 * 8,
        "output0": 3 * 5 * 4 * 64 * 64,
    }


def test_share_is_the_part_of_the_chosen() -> None:
    assert share({"a": 3, "b": 1}, {"a"}) == 0.75
    assert share({}, {"a"}) == 0.0


def test_elements_of_an_addition() -> None:
    assert elements(Wiring(load(yolo.network())), ["added"]) == {"added": 16 * 16 * 16}
