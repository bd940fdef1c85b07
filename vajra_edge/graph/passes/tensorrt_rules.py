"""TensorRT's rules: what it refuses of a quantized graph, in our words, looked for before minutes are spent.

Found by real builds: TensorRT 10.6 was asked about small graphs, each of one kind of layer and one way to quantize it,
and its answers are kept in ``tests/device/results/small_graphs.json``. These rules agree with every one of them.

Last, the way from the names in a library's error to the layers that can be left out of INT8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np

from vajra_edge.graph.passes.qdq import Placement
from vajra_edge.graph.topology import Wiring, attribute, key

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
INTEGER_OPERATORS = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm"}
)
"""Operators of ONNX Runtime's form of INT8; the parser has none of them (UNSUPPORTED_NODE)."""

SCALE, ZERO = 1, 2
"""Inputs of a quantizer."""


@dataclass(frozen=True)
class BuildMode:
    """How the graph will be built.

    Attributes:
        strong: the graph's own types rule.
        obeys: weak typing with OBEY_PRECISION_CONSTRAINTS.
        pinned: names of nodes that are kept in FP32.
    """

    strong: bool = False
    obeys: bool = False
    pinned: AbstractSet[str] = frozenset()


@dataclass(frozen=True)
class BrokenRule:
    """One thing that the library does not take.

    Attributes:
        reason: in one line.
        nodes: names of the nodes at fault, the layer first.
    """

    reason: str
    nodes: tuple[str, ...]


def refusals(wiring: Wiring, build: BuildMode) -> tuple[BrokenRule, ...]:
    """All that TensorRT would refuse of ``wiring``; empty where it should build.

    Args:
        wiring: a graph with Q/DQ nodes; one without has nothing to refuse.
        build: how it will be built.
    """
    return tuple(refusal for rule in _RULES for refusal in rule(wiring, build))


def _integer_operators(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    del build
    for node in wiring.nodes:
        if node.op_type in INTEGER_OPERATORS:
            yield BrokenRule(f"{node.op_type} is not an operator of TensorRT's, it takes Q/DQ nodes only", (node.name,))


def _zero_points(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """The parser: shiftIsAllZeros. Unsigned values are read as signed with a warning."""
    del build
    for node in _quantizers(wiring):
        zero = wiring.array(node.input[ZERO]) if node.input[ZERO:] else None
        if zero is not None and np.any(zero != 0):
            yield BrokenRule("quantization has to be symmetric, and a zero point is not 0", (node.name,))


def _scales(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """The parser: scaleAllPositive, in the type that the graph stores; and no scale worked out at run time."""
    del build
    for node in _quantizers(wiring):
        scale = wiring.array(node.input[SCALE])
        if scale is None:
            yield BrokenRule("a scale is computed by the network, and has to be a constant", (node.name,))
        elif np.any(scale <= 0):
            yield BrokenRule("a scale is not above 0", (node.name,))


def _integers(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """What may be dequantized: INT8; blocks of INT4 only."""
    del build
    for node in _quantizers(wiring):
        value = wiring.array(node.input[0])
        if value is not None and value.dtype == np.int32:
            yield BrokenRule("a bias is stored in INT32 and dequantized; leave biases in float", (node.name,))
        if attribute(node, "block_size", 0) and value is not None and value.dtype == np.int8:
            yield BrokenRule("scales by block are for INT4 only", (node.name,))


def _average_pools(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """No tactic computes it in INT8 (seen with a 5x5 window, stride 1, padding 2)."""
    del build
    for node in wiring.nodes:
        if node.op_type == "AveragePool" and _is_dequantized(wiring, node.input[0]) and _is_quantized(wiring, node):
            yield BrokenRule("an average pool between Q/DQ pairs has no implementation", (node.name,))


def _transposed(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """Strong typing finds no format for an INT8 transposed convolution; weak typing leaves it in a higher precision."""
    for node in wiring.nodes:
        if build.strong and node.op_type == "ConvTranspose" and _is_int8_layer(wiring, node):
            yield BrokenRule("a transposed convolution has no INT8 under strong typing", (node.name,))


def _depthwise(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """Under strong typing a depthwise convolution in FP16 is fused with its SiLU and the quantizer behind them.

    For the three together there is no implementation, at any level; ``silus_before_int8`` names what to keep in FP32.
    """
    if not build.strong:
        return
    kinds = _kinds(wiring)
    for conv, silu in _depthwise_silus(wiring):
        if _is_half(kinds, conv.input[0]) and all(_is_half(kinds, name) for node in silu for name in node.input):
            yield BrokenRule("a depthwise convolution in FP16 has its SiLU quantized", (conv.name, silu[-1].name))


def silus_before_int8(wiring: Wiring) -> frozenset[str]:
    """Keys of the SiLUs between a float depthwise convolution and a quantizer.

    In FP32 they keep TensorRT from a fusion that it has no implementation for (see ``_depthwise``).
    """
    return frozenset(key(node) for _, silu in _depthwise_silus(wiring) for node in silu)


def _depthwise_silus(wiring: Wiring) -> Iterator[tuple[Any, list[Any]]]:
    """Each depthwise convolution with a float weight, and the Sigmoid and Mul between it and a quantizer."""
    for node in wiring.nodes:
        weight = wiring.array(node.input[1]) if node.op_type == "Conv" else None
        if weight is None or not 1 < attribute(node, "group", 1) == weight.shape[0]:
            continue
        silu = wiring.readers[node.output[0]]
        silu = [reader for one in silu if one.op_type == "Cast" for reader in wiring.readers[one.output[0]]] or silu
        if sorted(one.op_type for one in silu) == ["Mul", "Sigmoid"] and _reaches_quantizer(wiring, silu):
            yield node, sorted(silu, key=lambda one: one.op_type, reverse=True)


def _reaches_quantizer(wiring: Wiring, silu: list[Any]) -> bool:
    """Whether the product is quantized, with nothing between but what computes nothing."""
    due = [one.output[0] for one in silu if one.op_type == "Mul"]
    while due:
        for reader in wiring.readers[due.pop()]:
            if reader.op_type == "QuantizeLinear":
                return True
            if reader.op_type in {"Cast", "Identity"}:
                due.append(reader.output[0])
    return False


def _is_half(kinds: Mapping[str, int], tensor: str) -> bool:
    from onnx import TensorProto

    return kinds.get(tensor) == int(TensorProto.FLOAT16)


def _types(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """Strong typing wants the input and the weight of a layer in one type; a scale's type is that of what it makes."""
    if not build.strong:
        return
    kinds = _kinds(wiring)
    for node in wiring.layers():
        data, weight = (kinds.get(name) for name in node.input[:2])
        if data is not None and weight is not None and data != weight:
            yield BrokenRule("input and weight are of different types", (node.name,))


def _residuals(wiring: Wiring, build: BuildMode) -> Iterator[BrokenRule]:
    """A convolution without activation is fused with the addition behind it, and its INT8 then has no candidates.

    Only where precision constraints are obeyed, and where the shortcut or the sum is read in INT8 and in float both.
    (``filterQDQFormats``: all candidates were removed; the same words in TensorRT#3040.) PREFER takes all of these.
    """
    if not build.obeys:
        return
    for node in wiring.nodes:
        readers = wiring.readers[node.output[0]]
        if node.op_type != "Conv" or not _is_int8_layer(wiring, node) or [one.op_type for one in readers] != ["Add"]:
            continue
        add = readers[0]
        shortcut = next((name for name in add.input if name != node.output[0]), "")
        if add.name not in build.pinned and any(_is_read_both_ways(wiring, name) for name in (shortcut, add.output[0])):
            yield BrokenRule(
                "an INT8 convolution is fused with an addition whose shortcut or sum is read in INT8 and in float, "
                "while precision constraints are obeyed",
                (node.name, add.name),
            )


_RULES: tuple[Callable[[Wiring, BuildMode], Iterator[BrokenRule]], ...] = (
    _integer_operators,
    _zero_points,
    _scales,
    _integers,
    _average_pools,
    _transposed,
    _depthwise,
    _types,
    _residuals,
)


def _quantizers(wiring: Wiring) -> Iterator[Any]:
    return (node for node in wiring.nodes if node.op_type in QUANTIZERS)


def _is_dequantized(wiring: Wiring, tensor: str) -> bool:
    node = wiring.producer.get(tensor)
    return node is not None and node.op_type == "DequantizeLinear"


def _is_quantized(wiring: Wiring, node: Any) -> bool:
    return any(reader.op_type == "QuantizeLinear" for reader in wiring.readers[node.output[0]])


def _is_int8_layer(wiring: Wiring, node: Any) -> bool:
    return all(_is_dequantized(wiring, name) for name in node.input[:2])


def _is_read_both_ways(wiring: Wiring, tensor: str) -> bool:
    kinds = {reader.op_type == "QuantizeLinear" for reader in wiring.readers[tensor]}
    return len(kinds) > 1


def _kinds(wiring: Wiring) -> dict[str, int]:
    """Element types of the tensors that inference finds; that of a DequantizeLinear is its scale's."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(wiring.model).graph
    kinds = {entry.name: int(entry.type.tensor_type.elem_type) for entry in [*graph.value_info, *graph.input]}
    kinds |= {name: int(tensor.data_type) for name, tensor in wiring.tensors.items()}
    for node in wiring.nodes:
        if node.op_type == "DequantizeLinear" and node.input[SCALE] in kinds:
            kinds[node.output[0]] = kinds[node.input[SCALE]]
    return kinds


PAIR = ("_dq", "_q")
"""How ``graph.passes.qdq`` ends the names of the nodes that it adds; before that stands the tensor's name."""


def in_int8(wiring: Wiring, placed: Placement, names: Iterable[str]) -> frozenset[str]:
    """Keys of layers and residual additions in INT8 that the names speak of.

    A name that is neither (an activation function fused into its layer, a concat) stands for the nearest ones before
    and behind it; that of a Q/DQ node for those that read its tensor.

    Args:
        wiring: the FP32 graph.
        placed: what of it is in INT8.
        names: ONNX node names, node keys, or names of Q/DQ nodes.
    """
    movable = placed.layers.union(placed.shortcuts)
    found: set[str] = set()
    for name in names:
        nodes = [node for node in wiring.nodes if name == node.name or name in node.output]
        for node in nodes:
            found |= _around(wiring, node, movable)
        if not nodes:
            found |= {key(node) for node in _readers(wiring, name)} & movable
    return frozenset(found)


def keys_of(wiring: Wiring, names: Iterable[str]) -> dict[str, str]:
    """Name to key of the nodes with these names or keys; those that the graph does not have are left out."""
    known = {str(node.name or key(node)): key(node) for node in wiring.nodes}
    known |= {key(node): key(node) for node in wiring.nodes}
    return {name: known[name] for name in names if name in known}


def _readers(wiring: Wiring, name: str) -> list[Any]:
    tensor = next((name.removesuffix(end) for end in PAIR if name.endswith(end)), name)
    return wiring.readers.get(tensor, [])


def _around(wiring: Wiring, node: Any, movable: AbstractSet[str]) -> set[str]:
    if key(node) in movable or wiring.weight(node) is not None:
        return {key(node)} & movable
    return _reached(wiring, node, movable, behind=False) | _reached(wiring, node, movable, behind=True)


def _reached(wiring: Wiring, start: Any, movable: AbstractSet[str], *, behind: bool) -> set[str]:
    """The first of ``movable`` on each way from ``start``, in one direction."""
    pending, seen, found = [start], {key(start)}, set()
    for node in pending:
        if behind:
            near = [reader for name in node.output for reader in wiring.readers.get(name, [])]
        else:
            near = [wiring.producer[name] for name in wiring.activations(node) if name in wiring.producer]
        for one in near:
            if key(one) in movable:
                found.add(key(one))
            elif key(one) not in seen and wiring.weight(one) is None:
                seen.add(key(one))
                pending.append(one)
    return found
