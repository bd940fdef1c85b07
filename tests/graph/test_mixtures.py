from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import yolo
from near import assert_near

from vajra_edge.errors import GraphError
from vajra_edge.graph import signature
from vajra_edge.graph.passes.instrument import Mixtures, measurable
from vajra_edge.graph.passes.nms import add_nms, raw_output
from vajra_edge.graph.passes.qdq import place, quantize
from vajra_edge.graph.passes.qoperator import to_qlinear
from vajra_edge.graph.topology import Wiring, load
from vajra_edge.plans.spec import NmsSpec

PLAIN = yolo.network()
PLACED = place(Wiring(load(PLAIN)))
UNITS = [*sorted(PLACED.layers), *PLACED.shortcuts]
TENSORS = measurable(PLAIN)
QUANTIZED = quantize(PLAIN, PLACED, dict.fromkeys(TENSORS, 4.0), {"images": [0.5, 0.5, 0.5]})
FUSED = to_qlinear(QUANTIZED, dict.fromkeys(TENSORS, (-4.0, 4.0)))


def mixture(quantized: bytes, on: set[str]) -> np.ndarray:
    return yolo.run(Mixtures(PLAIN, quantized, UNITS, "output0").graph(on), yolo.images(1))


@pytest.mark.parametrize("quantized", [QUANTIZED, FUSED], ids=["inputs", "fused"])
def test_all_off_is_the_plain_network(quantized: bytes) -> None:
    assert_near(mixture(quantized, set()), yolo.run(PLAIN, yolo.images(1)))


@pytest.mark.parametrize("quantized", [QUANTIZED, FUSED], ids=["inputs", "fused"])
def test_all_on_is_the_quantized_network(quantized: bytes) -> None:
    assert_near(mixture(quantized, set(UNITS)), yolo.run(quantized, yolo.images(1)))


def test_one_on_is_the_network_with_that_layer_quantized() -> None:
    others = dict.fromkeys(set(UNITS) - {"neck"}, "measured")
    alone = quantize(PLAIN, place(Wiring(load(PLAIN)), others), dict.fromkeys(TENSORS, 4.0))
    assert_near(mixture(QUANTIZED, {"neck"}), yolo.run(alone, yolo.images(1)))


def test_a_shortcut_is_a_unit_of_its_own() -> None:
    assert np.abs(mixture(QUANTIZED, {"added"}) - mixture(QUANTIZED, set())).max() > 0


@pytest.mark.parametrize("quantized", [QUANTIZED, FUSED], ids=["inputs", "fused"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_alone_can_be_run_from_where_it_first_changes_something(quantized: bytes, unit: str) -> None:
    mixtures = Mixtures(PLAIN, quantized, UNITS, "output0")
    names = mixtures.crossing(mixtures.places[unit])
    graph = mixtures.graph(set(), outputs=names)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    known = dict(zip(names, session.run(names, {"images": yolo.images(1)}), strict=True)) if names else {}
    rest = mixtures.graph({unit}, known)
    assert len(load(rest).graph.node) <= len(load(mixtures.graph({unit})).graph.node)
    found = yolo.run(rest, yolo.images(1), **known)
    assert_near(found, mixture(quantized, {unit}))


def test_behind_nms_the_raw_output_is_found() -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    assert raw_output(plain, signature.read(plain)) == "output0"
    assert raw_output(PLAIN, signature.read(PLAIN)) == "output0"


def test_what_does_not_lead_to_the_output_goes() -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    quantized = quantize(plain, place(Wiring(load(plain))), dict.fromkeys(TENSORS, 4.0))
    graph = load(Mixtures(plain, quantized, UNITS, "output0").graph(set(UNITS)))
    assert not [node.name for node in graph.graph.node if node.name.startswith("/nms/")]


def test_foreign_nms_is_refused() -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    model = load(plain)
    for node in model.graph.node:
        node.name = node.name.replace("/nms/", "/other/")
    with pytest.raises(GraphError, match="0 tensors enter the NMS"):
        raw_output(model.SerializeToString(), signature.read(plain))
