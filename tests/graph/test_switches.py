from __future__ import annotations

import numpy as np
import pytest
import yolo

from vajra_edge.engine.spec import NmsSpec
from vajra_edge.errors import GraphError
from vajra_edge.graph import signature, switches
from vajra_edge.graph.nms import add_nms
from vajra_edge.graph.placement import place
from vajra_edge.graph.probes import measurable
from vajra_edge.graph.qdq import quantize
from vajra_edge.graph.qlinear import to_qlinear
from vajra_edge.graph.wiring import Wiring, load

PLAIN = yolo.network()
PLACED = place(Wiring(load(PLAIN)))
UNITS = [*sorted(PLACED.layers), *PLACED.shortcuts]
TENSORS = measurable(PLAIN)
QUANTIZED = quantize(PLAIN, PLACED, dict.fromkeys(TENSORS, 4.0), {"images": [0.5, 0.5, 0.5]})
FUSED = to_qlinear(QUANTIZED, dict.fromkeys(TENSORS, (-4.0, 4.0)))


def mixture(quantized: bytes, on: set[str]) -> np.ndarray:
    graph = switches.switchable(PLAIN, quantized, UNITS, "output0")
    flags = np.array([unit in on for unit in UNITS])
    return yolo.run(graph, yolo.images(1), **{switches.INPUT: flags})


@pytest.mark.parametrize("quantized", [QUANTIZED, FUSED], ids=["inputs", "fused"])
def test_all_off_is_the_plain_network(quantized: bytes) -> None:
    np.testing.assert_allclose(mixture(quantized, set()), yolo.run(PLAIN, yolo.images(1)), atol=1e-4)


@pytest.mark.parametrize("quantized", [QUANTIZED, FUSED], ids=["inputs", "fused"])
def test_all_on_is_the_quantized_network(quantized: bytes) -> None:
    np.testing.assert_allclose(mixture(quantized, set(UNITS)), yolo.run(quantized, yolo.images(1)), atol=1e-3)


def test_one_on_is_the_network_with_that_layer_quantized() -> None:
    others = dict.fromkeys(set(UNITS) - {"neck"}, "measured")
    alone = quantize(PLAIN, place(Wiring(load(PLAIN)), others), dict.fromkeys(TENSORS, 4.0))
    np.testing.assert_allclose(mixture(QUANTIZED, {"neck"}), yolo.run(alone, yolo.images(1)), atol=1e-3)


def test_a_shortcut_has_its_own_switch() -> None:
    assert np.abs(mixture(QUANTIZED, {"added"}) - mixture(QUANTIZED, set())).max() > 0


def test_behind_nms_the_raw_output_is_found() -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    assert switches.raw_output(plain, signature.read(plain)) == "output0"
    assert switches.raw_output(PLAIN, signature.read(PLAIN)) == "output0"


def test_what_does_not_lead_to_the_output_goes() -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    quantized = quantize(plain, place(Wiring(load(plain))), dict.fromkeys(TENSORS, 4.0))
    graph = load(switches.switchable(plain, quantized, UNITS, "output0"))
    assert not [node.name for node in graph.graph.node if node.name.startswith("/nms/")]


def test_foreign_nms_is_refused() -> None:
    plain = add_nms(PLAIN, NmsSpec(max_det=20, top_k=100))
    model = load(plain)
    for node in model.graph.node:
        node.name = node.name.replace("/nms/", "/other/")
    with pytest.raises(GraphError, match="0 tensors enter the NMS"):
        switches.raw_output(model.SerializeToString(), signature.read(plain))
