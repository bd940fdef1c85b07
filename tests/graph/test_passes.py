"""What each graph pass writes, as digests: a change must raise ``PASSES``, or stored plans would not be built anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
import yolo
from onnx import helper, numpy_helper

from vajra_edge.graph.dla import ranges
from vajra_edge.graph.passes import fp16, nms, qdq, qoperator
from vajra_edge.graph.passes.instrument import measurable
from vajra_edge.graph.topology import Wiring, load
from vajra_edge.plans import fingerprint
from vajra_edge.plans.spec import NmsSpec

PASSES = 5
DIGESTS = {
    "half": "78462f9f8c12da43",
    "nms": "f996782c2b43d5cb",
    "qdq": "c66225756a279c79",
    "qlinear": "393787e02257d3fe",
    "dla_ranges": "4f8481260bed3bcc",
}


def amax() -> dict[str, float]:
    return {name: 1.0 + at / 8 for at, name in enumerate(measurable(yolo.network()))}


def quantized() -> bytes:
    plain = yolo.network()
    return qdq.quantize(plain, qdq.place(Wiring(load(plain))), amax(), {})


MAKERS: dict[str, Callable[[], bytes]] = {
    "half": lambda: fp16.to_half(yolo.network()),
    "nms": lambda: nms.add_nms(yolo.network(), NmsSpec(max_det=20, top_k=100)),
    "qdq": quantized,
    "qlinear": lambda: qoperator.to_qlinear(quantized(), {name: (-most, most) for name, most in amax().items()}),
    "dla_ranges": lambda: ranges.attach(yolo.network(), amax()),
}


def digest_of(onnx_bytes: bytes) -> str:
    """Operators, wiring, attributes and constants; these to five digits, so that no processor's rounding counts."""
    model, total = load(onnx_bytes), hashlib.sha256()
    for node in model.graph.node:
        attributes = sorted(helper.printable_attribute(attribute) for attribute in node.attribute)
        total.update(f"{node.op_type} {list(node.input)} {list(node.output)} {attributes}\n".encode())
    for tensor in sorted(model.graph.initializer, key=lambda one: one.name):
        values = numpy_helper.to_array(tensor)
        text = [f"{value:.5g}" for value in np.ravel(values).astype(np.float64)]
        total.update(f"{tensor.name} {values.dtype} {values.shape} {text}\n".encode())
    total.update(str([value.name for value in model.graph.output]).encode())
    return total.hexdigest()[:16]


@pytest.mark.parametrize("name", MAKERS)
def test_a_pass_that_writes_another_graph_raises_the_number(name: str) -> None:
    assert digest_of(MAKERS[name]()) == DIGESTS[name], "raise PASSES in plans/fingerprint.py, and state it here"


def test_the_digests_are_those_of_the_number() -> None:
    assert fingerprint.PASSES == PASSES
