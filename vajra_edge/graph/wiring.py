"""Wiring: who makes and who reads each tensor of an ONNX graph. Shared by the precision and quantization passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import GraphError
from vajra_edge.graph import metadata
from vajra_edge.graph.proto import opset_of, parse

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that multiply and add; with a constant second input they are layers, and hold nearly all of the work."""


class Wiring:
    """One ONNX model, indexed.

    Nodes are known by their first output, since names may be missing or repeated.

    Args:
        model: a ``ModelProto`` without control flow; ``Constant`` nodes become initialisers.

    Raises:
        GraphError: the graph holds control flow (If, Loop, Scan), whose insides the passes would miss.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        _refuse_control_flow(model.graph.node)
        _lift_constants(model.graph)
        self.index()

    def index(self) -> None:
        """Read the graph again after edits."""
        graph = self.model.graph
        self.nodes: list[Any] = list(graph.node)
        self.tensors: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.producer: dict[str, Any] = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self.inputs = [entry.name for entry in graph.input if entry.name not in self.tensors]
        self.outputs = [entry.name for entry in graph.output]

    def array(self, name: str) -> NDArray[Any] | None:
        """The value of a constant tensor; None for a computed one."""
        from onnx import numpy_helper

        tensor = self.tensors.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def activations(self, node: Any) -> list[str]:
        """The inputs of ``node`` that are computed, in order."""
        return [name for name in node.input if name and name not in self.tensors]

    def weight(self, node: Any) -> str | None:
        """The constant that ``node`` multiplies with, seen through a Q/DQ pair; None where it is not a layer."""
        if node.op_type not in WEIGHTED or not node.input[1:]:
            return None
        name = node.input[1]
        while name in self.producer and self.producer[name].op_type in {"DequantizeLinear", "QuantizeLinear"}:
            name = self.producer[name].input[0]
        return name if name in self.tensors else None

    def layers(self) -> list[Any]:
        """The nodes that multiply with a constant weight, in graph order."""
        return [node for node in self.nodes if self.weight(node) is not None]


load = parse
"""What the passes call reading a serialized graph."""


def key(node: Any) -> str:
    """What a node is known by: its first output."""
    return str(node.output[0])


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of an attribute, or ``default`` where the node does not carry it."""
    from onnx import helper

    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Static shapes by tensor name, where shape inference finds them; a dynamic side counts as 0."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for entry in [*graph.value_info, *graph.input, *graph.output]:
        if entry.type.tensor_type.HasField("shape"):
            found[entry.name] = tuple(int(side.dim_value) for side in entry.type.tensor_type.shape.dim)
    return found


def raise_opset(model: Any, least: int) -> Any:
    """The same network in operator set ``least`` or the newer one it already has.

    Raises:
        GraphError: an operator cannot be converted.
    """
    from onnx import version_converter

    if opset_of(model) >= least:
        return model
    try:
        raised = version_converter.convert_version(model, least)
    except (RuntimeError, ValueError, version_converter.ConvertError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GraphError(
            f"the graph's opset {opset_of(model)} cannot be raised to {least}: {reason}",
            remedy=f"export with opset {least}",
            opset=opset_of(model),
        ) from error
    metadata.put(raised, metadata.fields_of(model))
    return raised


def drop_unread(graph: Any) -> None:
    """Remove the constants that no node reads any more."""
    read = {name for node in graph.node for name in node.input} | {entry.name for entry in graph.output}
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)


def _refuse_control_flow(nodes: Iterable[Any]) -> None:
    found = sorted({node.op_type for node in nodes if any(entry.HasField("g") for entry in node.attribute)})
    if found:
        raise GraphError(
            f"the graph holds control flow ({', '.join(found)})", remedy="export it static or simplify it", found=found
        )


def _lift_constants(graph: Any) -> None:
    from onnx import numpy_helper

    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        value = _constant_value(node)
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        graph.node.remove(node)


def _constant_value(node: Any) -> NDArray[Any]:
    from onnx import helper, numpy_helper

    entry = node.attribute[0]
    value = helper.get_attribute_value(entry)
    if entry.name in {"value_float", "value_floats"}:
        return np.asarray(value, np.float32)
    if entry.name in {"value_int", "value_ints"}:
        return np.asarray(value, np.int64)
    if entry.name != "value":
        raise GraphError(
            f"a constant of kind {entry.name} is not supported", remedy="simplify the graph", name=entry.name
        )
    return np.asarray(numpy_helper.to_array(value))
