"""Topology: an ONNX graph from bytes, who makes and who reads each tensor, its head, and what each layer costs.

Untrusted files get limits, and the onnx library loads on first use. Behind a detector's last layers is its head,
where box arithmetic happens and precision must stay FP32. It is found by walking from the outputs towards the images
up to the first layer with weights. The expectation of the distribution focal loss is written as a 1x1 convolution
with the weights 0, 1, 2 ...; that is arithmetic, not a layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import GraphError
from vajra_edge.graph import external, metadata
from vajra_edge.weights.file_kinds import HEAD_BYTES, kind_of

if TYPE_CHECKING:
    import onnx

MAX_ONNX_BYTES = 1 << 30
"""The largest VajraV1 in FP32 is below 300 MB; protobuf itself ends at 2 GiB."""
MAX_SUBGRAPH_DEPTH = 8
_USUAL_OPSET = 17  # what export writes unless told otherwise


def parse(onnx_bytes: bytes, *, path: Path | None = None) -> onnx.ModelProto:
    """Read a serialized ONNX file.

    Args:
        onnx_bytes: of the file.
        path: where it lies, so that tensors in files beside it are brought in.

    Raises:
        GraphError: not ONNX, larger than 1 GiB, nested deeper than eight subgraphs, or with tensors in other files
            that are not beside ``path``.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its types are a package of their own

    if (other := kind_of(onnx_bytes[:HEAD_BYTES])) is not None:
        raise GraphError(f"the file is not ONNX, it is {other.what}", remedy=other.for_onnx)
    if len(onnx_bytes) > MAX_ONNX_BYTES:
        raise GraphError(
            f"the ONNX file has {len(onnx_bytes)} bytes, the limit is {MAX_ONNX_BYTES}",
            remedy="export a smaller network",
            size_bytes=len(onnx_bytes),
        )
    try:
        proto = onnx.load_model_from_string(onnx_bytes)
    except DecodeError as error:
        raise GraphError("the file is not ONNX, or it is cut short", remedy="export it again") from error
    if not proto.graph.node or not proto.graph.output:
        raise GraphError(f"the file of {len(onnx_bytes)} bytes holds no ONNX network", remedy="export it again")
    if path is not None:
        external.embed(proto, inner_tensors(proto), path, MAX_ONNX_BYTES)
    for tensor in inner_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise GraphError(
                f"tensor {tensor.name!r} lies in another file",
                remedy=f"write one file with all weights inside: {external.COMMAND.format(name='network.onnx')}",
            )
    return proto


def serialize(proto: onnx.ModelProto) -> bytes:
    """The bytes of a network, equal for equal networks.

    Raises:
        GraphError: it became larger than 1 GiB.
    """
    if proto.ByteSize() > MAX_ONNX_BYTES:
        raise GraphError(f"the network grew to {proto.ByteSize()} bytes, the limit is {MAX_ONNX_BYTES}")
    return bytes(proto.SerializeToString(deterministic=True))


def check(proto: onnx.ModelProto, when: str) -> None:
    """Run ONNX's own checker with shape inference.

    Raises:
        GraphError: the network is not valid; ``when`` says at which stage.
    """
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise GraphError(f"the network is not valid ONNX {when}: {lines[0]}", remedy="export it again") from error


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Each dimension as its size, its name, or None; None for a tensor of unknown rank."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in value.type.tensor_type.shape.dim
    )


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the network uses.

    Raises:
        GraphError: it names none.
    """
    for opset in proto.opset_import:
        if opset.domain in {"", "ai.onnx"}:
            return int(opset.version)
    raise GraphError("the network names no opset of the ONNX domain", remedy="export it again")


def inner_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that is in a network: weights, constants, and those of subgraphs and functions.

    Raises:
        GraphError: it nests too deep.
    """
    yield from _graph_tensors(proto.graph, MAX_SUBGRAPH_DEPTH)
    for function in proto.functions:
        yield from _node_tensors(function.node, MAX_SUBGRAPH_DEPTH)


def inner_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph of a network, and the subgraphs of its nodes."""
    pending = [proto.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            pending += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _graph_tensors(graph: onnx.GraphProto, depth: int) -> Iterator[onnx.TensorProto]:
    if depth == 0:
        raise GraphError(f"the network nests more than {MAX_SUBGRAPH_DEPTH} subgraphs", remedy="export it again")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node, depth)


def _node_tensors(nodes: Iterable[onnx.NodeProto], depth: int) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graph_tensors(subgraph, depth - 1)


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
    from onnx import shape_inference, version_converter

    if opset_of(model) >= least:
        return model
    try:
        raised = version_converter.convert_version(model, least)
    except (RuntimeError, ValueError, version_converter.ConvertError, shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GraphError(
            f"opset {opset_of(model)} cannot be raised to {least}: {reason}",
            remedy=f"export with opset {max(least, _USUAL_OPSET)}",
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


MOVES = frozenset({"Concat", "Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators that move values without computing: any precision gives the same values."""


def arithmetic(wiring: Wiring) -> frozenset[str]:
    """Keys of the nodes between the last layers and the outputs."""
    found: set[str] = set()
    pending = list(wiring.outputs)
    while pending:
        node = wiring.producer.get(pending.pop())
        if node is None or key(node) in found or is_layer(wiring, node):
            continue
        found.add(key(node))
        pending += wiring.activations(node)
    return frozenset(found)


def last_layers(wiring: Wiring, region: frozenset[str]) -> frozenset[str]:
    """Keys of the layers whose outputs enter the head's arithmetic: the final 1x1 convolutions of each branch."""
    return frozenset(
        key(node)
        for node in wiring.layers()
        if key(node) not in region and any(key(reader) in region for reader in wiring.readers[node.output[0]])
    )


def is_layer(wiring: Wiring, node: Any) -> bool:
    """Whether ``node`` has trained weights: a constant second input that is not the row 0, 1, 2 ..."""
    name = wiring.weight(node)
    weight = None if name is None else wiring.array(name)
    if weight is None:
        return False
    flat = weight.astype(np.float32).reshape(-1)
    return not (flat.size > 1 and np.array_equal(flat, np.arange(flat.size, dtype=np.float32)))


def macs_by_layer(wiring: Wiring, input_hw: tuple[int, int] | None = None) -> dict[str, int]:
    """Multiply-adds of each layer with constant weights for one image, by node key.

    Args:
        wiring: the graph.
        input_hw: the size that stands for dynamic sides, in pixels; static graphs need none.
    """
    sides = shapes(_pinned(wiring.model, input_hw))
    return {key(node): _macs(wiring, node, sides) for node in wiring.layers()}


def elements(wiring: Wiring, keys: Iterable[str], input_hw: tuple[int, int] | None = None) -> dict[str, int]:
    """Output elements of nodes for one image, by node key: the work of an elementwise node."""
    sides = shapes(_pinned(wiring.model, input_hw))
    return {name: prod(sides.get(name, (0,))[1:]) for name in keys}


def share(macs: Mapping[str, int], chosen: AbstractSet[str]) -> float:
    """The part of all multiply-adds that the chosen layers do, 0..1."""
    total = sum(macs.values())
    return sum(count for name, count in macs.items() if name in chosen) / total if total else 0.0


def _macs(wiring: Wiring, node: Any, sides: Mapping[str, tuple[int, ...]]) -> int:
    weight = wiring.array(wiring.weight(node) or "")
    if weight is None:
        return 0
    if node.op_type == "ConvTranspose":
        # Each input position meets each of its kernel's weights once.
        return int(weight.size * prod(sides.get(node.input[0], (0,))[2:]))
    made = sides.get(node.output[0], ())
    places = made[2:] if node.op_type == "Conv" else made[1:-1]
    return int(weight.size * prod(places))


def _pinned(model: Any, input_hw: tuple[int, int] | None) -> Any:
    """The model with every dynamic side of its image input made static, batch 1."""
    import onnx

    sides = model.graph.input[0].type.tensor_type.shape.dim
    if all(side.HasField("dim_value") for side in sides) or input_hw is None:
        return model
    pinned = onnx.ModelProto()
    pinned.CopyFrom(model)
    del pinned.graph.value_info[:]
    for side, value in zip(pinned.graph.input[0].type.tensor_type.shape.dim, (1, 3, *input_hw), strict=True):
        side.dim_value = value
    return pinned
