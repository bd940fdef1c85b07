"""FP16: the pass from the images to the last layers; FP32 for the arithmetic of boxes and the outputs.

FP16 has a spacing of 0.5 px above 512 px, so what computes with coordinates stays FP32: the region of
``graph.topology``, less what gives numbers from 0 to 1 (sigmoids, softmaxes, their products), the mean over a
distribution's bins, and the leading operators that only move values. The input stays float32 and is cast inside.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from vajra_edge.errors import GraphError
from vajra_edge.graph import topology
from vajra_edge.graph.topology import Wiring, drop_unread, key, load, raise_opset, serialize

FLOAT16_MAX = 65504.0
"""Largest finite FP16 number (IEEE 754 binary16)."""

QDQ_OPSET = 19
"""First operator set whose QuantizeLinear and DequantizeLinear take FP16 scales."""

FRACTIONS = frozenset({"Sigmoid", "Softmax"})
"""Operators whose results lie between 0 and 1."""

FLOAT32_ONLY = frozenset({"NonMaxSuppression", "Range", "Multinomial", "RandomUniform", "RandomNormal"})
"""Operators that ONNX defines without FP16 inputs or with a type attribute of their own."""

FLOAT32_SLOTS = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}
"""Inputs that ONNX defines as float32 whatever the data is: regions and scales."""


def to_half(onnx_bytes: bytes, *, keep: AbstractSet[str] = frozenset()) -> bytes:
    """Turn an FP32 network, quantized or not, into FP16 with FP32 boxes.

    Args:
        onnx_bytes: a serialized FP32 graph; static or dynamic, with or without NMS and Q/DQ.
        keep: further tensors whose producing nodes stay FP32.

    Returns:
        The serialized graph; the names, shapes and float32 type of inputs and outputs are unchanged.

    Raises:
        GraphError: the graph cannot be read, holds control flow, or a tensor's type cannot be found.
    """
    model = load(onnx_bytes)
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        model = raise_opset(model, QDQ_OPSET)
    wiring = Wiring(model)
    high = float32_nodes(wiring) | keep
    _Casting(wiring, high).apply()
    return serialize(model)


def float32_nodes(wiring: Wiring) -> frozenset[str]:
    """Keys of the nodes that stay FP32: the head's arithmetic, and whatever FP16 cannot hold or ONNX does not allow."""
    region = set(topology.arithmetic(wiring))
    region -= _fractions(wiring, region)
    for node in wiring.nodes:
        sources = wiring.activations(node)
        inside = [name in wiring.producer and key(wiring.producer[name]) in region for name in sources]
        if key(node) in region and node.op_type in topology.MOVES and sources and not any(inside):
            region.discard(key(node))
    wide = {key(node) for node in wiring.nodes if node.op_type in FLOAT32_ONLY or _overflows(wiring, node)}
    return frozenset(region | wide)


def _fractions(wiring: Wiring, region: AbstractSet[str]) -> frozenset[str]:
    """Keys of the nodes in ``region`` that give numbers from 0 to 1, or the mean of a distribution over its bins.

    FP16 keeps 11 bits of either. A bin is a stride at the most, so that the mean of 16 of them is off by 0.004 strides.
    """
    found: set[str] = set()
    for node in wiring.nodes:
        sources = [wiring.producer.get(name) for name in wiring.activations(node)]
        of_fractions = bool(sources) and all(source is not None and key(source) in found for source in sources)
        moved = node.op_type in topology.MOVES or (node.op_type == "Mul" and len(sources) == len(node.input))
        if key(node) in region and (node.op_type in FRACTIONS or (of_fractions and (moved or node.op_type == "Conv"))):
            found.add(key(node))
    return frozenset(found)


def _overflows(wiring: Wiring, node: Any) -> bool:
    for name in node.input:
        value = wiring.array(name)
        if value is not None and value.dtype == np.float32 and value.size and np.abs(value).max() > FLOAT16_MAX:
            return True
    return False


class _Casting:
    """Rewrites one graph: FP16 constants, casts where the precision changes, types made right."""

    def __init__(self, wiring: Wiring, high: frozenset[str]) -> None:
        self.wiring = wiring
        self.high = high
        self.floats = float_tensors(wiring)
        self.made: dict[tuple[str, bool], str] = {}
        self.nodes: list[Any] = []

    def apply(self) -> None:
        graph = self.wiring.model.graph
        for node in self.wiring.nodes:
            half = key(node) not in self.high
            for slot, name in enumerate(node.input):
                if name in self.floats:
                    wanted = half and slot not in FLOAT32_SLOTS.get(node.op_type, frozenset())
                    node.input[slot] = self._as(name, half=wanted)
            if half:
                _retype(node)
            self.nodes.append(node)
        self._restore_outputs()
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]
        drop_unread(graph)

    def _is_half(self, name: str) -> bool:
        node = self.wiring.producer.get(name)
        return node is not None and key(node) not in self.high

    def _as(self, name: str, *, half: bool) -> str:
        """The name of the FP16 or FP32 version of a float tensor, made when first asked for."""
        if name in self.wiring.tensors:
            return self._constant(name) if half else name
        if self._is_half(name) == half:
            return name
        if (name, half) not in self.made:
            self.made[name, half] = self._cast(name, f"{name}_{'fp16' if half else 'fp32'}", half=half)
        return self.made[name, half]

    def _constant(self, name: str) -> str:
        from onnx import numpy_helper

        if (name, True) not in self.made:
            value = self.wiring.array(name)
            if value is None:  # pragma: no cover - the caller has looked
                raise GraphError(f"constant {name} has no value", name=name)
            self.made[name, True] = f"{name}_fp16"
            self.wiring.model.graph.initializer.append(
                numpy_helper.from_array(value.astype(np.float16), f"{name}_fp16")
            )
        return self.made[name, True]

    def _cast(self, name: str, to: str, *, half: bool) -> str:
        from onnx import TensorProto, helper

        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.nodes.append(helper.make_node("Cast", [name], [to], name=f"{to}_cast", to=kind))
        return to

    def _restore_outputs(self) -> None:
        """Outputs that an FP16 node makes keep their name and float32 type through a cast."""
        for name in self.wiring.outputs:
            if name in self.floats and self._is_half(name):
                inner = f"{name}_fp16"
                for node in self.nodes:
                    node.input[:] = [inner if used == name else used for used in node.input]
                    node.output[:] = [inner if made == name else made for made in node.output]
                self._cast(inner, name, half=False)


def float_tensors(wiring: Wiring) -> frozenset[str]:
    """Names of all float32 tensors.

    Raises:
        GraphError: shape inference does not know an operator, so that types behind it are unknown.
    """
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(wiring.model).graph
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in [*graph.value_info, *graph.input, *graph.output]}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    unknown = [name for name in wiring.producer if not kinds.get(name)]
    if unknown:
        node = wiring.producer[unknown[0]]
        raise GraphError(
            f"the type of tensor {unknown[0]} behind {node.op_type} is unknown",
            remedy="export with standard operators only",
            tensor=unknown[0],
        )
    return frozenset(name for name, kind in kinds.items() if kind == TensorProto.FLOAT)


def _retype(node: Any) -> None:
    """Attributes that name float32 as the type to make now name FP16."""
    from onnx import TensorProto, numpy_helper

    for entry in node.attribute:
        if entry.name in {"to", "dtype", "output_dtype"} and entry.i == TensorProto.FLOAT:
            entry.i = TensorProto.FLOAT16
        elif node.op_type == "ConstantOfShape" and entry.name == "value" and entry.t.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(entry.t).astype(np.float16)
            entry.t.CopyFrom(numpy_helper.from_array(value, entry.t.name))
