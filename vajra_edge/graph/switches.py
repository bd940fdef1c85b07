"""Switches: a quantized graph in which each layer can be turned between FP32 and INT8 from outside.

Measuring what each layer costs would take one graph, one session and one round of optimisation a layer; with a
``Where`` at each changed input, driven by one bool vector, it takes one session and one run a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vajra_edge.errors import GraphError
from vajra_edge.graph.nms import PREFIX as NMS_PREFIX
from vajra_edge.graph.proto import opset_of, serialize
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.graph.wiring import Wiring, drop_unread, key, load, raise_opset

INPUT = "/switch/on"
"""Name of the added input: (units,) bool, True where a unit computes in INT8."""


def switchable(onnx_bytes: bytes, quantized: bytes, units: Sequence[str], output: str) -> bytes:
    """A graph that computes any mixture of two.

    Args:
        onnx_bytes: the FP32 graph.
        quantized: the same graph after ``qdq.quantize``, and ``qlinear.to_qlinear`` if that is what will run.
        units: keys of the nodes that get a switch, at least one; the position is that in ``INPUT``.
        output: the tensor that becomes the only output; what does not lead to it goes.
    """
    from onnx import TensorProto, helper

    mixed = Wiring(load(quantized))
    plain = Wiring(raise_opset(load(onnx_bytes), opset_of(mixed.model)))
    before = {key(node): node for node in plain.nodes}
    owners = _Owners(plain, units)
    graph = mixed.model.graph
    graph.initializer.extend(tensor for name, tensor in plain.tensors.items() if name not in mixed.tensors)
    nodes: list[Any] = []
    for node in mixed.nodes:
        if key(node) in before:
            nodes += _switch(graph, node, before[key(node)], owners)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(_leading_to(output, nodes))
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.BOOL, [len(units)]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    drop_unread(graph)
    return serialize(mixed.model)


def raw_output(onnx_bytes: bytes, signature: Signature) -> str:
    """The tensor in the RAW layout: the output, or what enters the in-graph NMS.

    Raises:
        GraphError: the graph has another NMS than ours.
    """
    if signature.layout is Layout.RAW:
        return signature.output_name
    wiring = Wiring(load(onnx_bytes))
    tail = {name for name, node in wiring.producer.items() if node.name.startswith(NMS_PREFIX)}
    entering = {
        name
        for made in tail
        for name in wiring.activations(wiring.producer[made])
        if name not in tail and name in wiring.producer
    }
    if len(entering) != 1:
        raise GraphError(
            f"{len(entering)} tensors enter the NMS of the graph",
            remedy="give a graph without NMS",
            found=len(entering),
        )
    return entering.pop()


class _Owners:
    """Which unit's switch decides about an input: its own, else that of the nearest unit before it, else behind it."""

    def __init__(self, wiring: Wiring, units: Sequence[str]) -> None:
        self.wiring = wiring
        self.position = {unit: at for at, unit in enumerate(units)}
        self.made: set[int] = set()

    def of(self, node: Any, tensor: str) -> int:
        if key(node) in self.position:
            return self.position[key(node)]
        for behind in (False, True):
            pending, seen = [tensor], {tensor}
            for name in pending:
                makers = [self.wiring.producer[name]] if name in self.wiring.producer else []
                for near in self.wiring.readers[name] if behind else makers:
                    if key(near) in self.position:
                        return self.position[key(near)]
                    further = near.output if behind else self.wiring.activations(near)
                    pending += [found for found in further if found not in seen]
                    seen.update(further)
        return 0


def _switch(graph: Any, node: Any, before: Any, owners: _Owners) -> list[Any]:
    """Nodes that choose each input in which ``node`` and ``before`` differ."""
    from onnx import helper, numpy_helper

    made = []
    for slot, (now, then) in enumerate(zip(node.input, before.input, strict=True)):
        if now == then:
            continue
        at = owners.of(node, then)
        index, on = f"/switch/index/{at}", f"/switch/on/{at}"
        if at not in owners.made:
            owners.made.add(at)
            graph.initializer.append(numpy_helper.from_array(np.array(at, np.int64), index))
            made.append(helper.make_node("Gather", [INPUT, index], [on], on, axis=0))
        chosen = f"/switch/{key(node)}/{slot}"
        made.append(helper.make_node("Where", [on, now, then], [chosen], chosen))
        node.input[slot] = chosen
    return made


def _leading_to(output: str, nodes: Sequence[Any]) -> list[Any]:
    """The nodes that ``output`` depends on, in the order they had."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]
