"""Q/DQ: the INT8 pass, which writes symmetric explicit quantization into an FP32 graph; where, and where not and why.

The rules follow what TensorRT fuses (its documentation on explicit quantization and the placement that NVIDIA's own
Model Optimizer uses): only inputs of layers are quantized, never outputs, so that nothing stands between a convolution
and its activation.

Activations: one scale a tensor, zero point 0. Weights: one scale an output channel, stored as INT8 constants.
Biases: never, they are added to the INT32 sums. Scales are numbers that FP16 holds exactly (rounded up), so that the
FP16 pass behind this one changes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import GraphError
from vajra_edge.graph import topology
from vajra_edge.graph.passes.fp16 import FLOAT16_MAX
from vajra_edge.graph.topology import Wiring, attribute, drop_unread, key, load, raise_opset, serialize

NARROW = 16
"""Channels below which an INT8 convolution or product gains nothing on tensor cores."""

DEPTHWISE_KERNEL = 3
"""Smallest kernel side for which TensorRT has INT8 depthwise convolutions."""

CARRIES = topology.MOVES | {"MaxPool", "Resize"}
"""Operators whose output holds values of their input (nearest resize): INT8 passes through them unchanged."""


@dataclass(frozen=True)
class Placement:
    """What is quantized.

    Attributes:
        layers: keys of the layers that compute in INT8.
        high: the layers that do not, each with the reason.
        shortcuts: keys of the residual additions that read their shortcut in INT8.
        reads: tensor to the keys of the nodes that read it in INT8 (layers, and residual additions).
        shared: sets of tensors that must have one scale.
    """

    layers: frozenset[str]
    high: Mapping[str, str]
    shortcuts: tuple[str, ...]
    reads: Mapping[str, frozenset[str]]
    shared: tuple[frozenset[str], ...]


def place(wiring: Wiring, keep: Mapping[str, str] | None = None) -> Placement:
    """Decide what is quantized.

    Args:
        wiring: an FP32 graph without Q/DQ.
        keep: further layers and residual additions that stay high, each with its reason (measured mixed precision).
    """
    high = {**static_reasons(wiring), **(keep or {})}
    layers = frozenset(key(node) for node in wiring.layers() if key(node) not in high)
    reads: dict[str, set[str]] = {}
    for node in wiring.layers():
        if key(node) in layers:
            reads.setdefault(node.input[0], set()).add(key(node))
    shortcuts: dict[str, str] = {}
    for node in wiring.nodes:
        shortcut = None if key(node) in high else residual_shortcut(wiring, node, reads)
        if shortcut is not None:
            shortcuts[key(node)] = shortcut
    for addition, shortcut in shortcuts.items():
        reads[shortcut].add(addition)
    frozen = {tensor: frozenset(readers) for tensor, readers in reads.items()}
    return Placement(layers, high, tuple(shortcuts), frozen, shared_scales(wiring, frozenset(reads)))


def static_reasons(wiring: Wiring) -> dict[str, str]:
    """The layers that the rules leave in higher precision, whatever the ranges are: key to reason."""
    region = topology.arithmetic(wiring)
    last = topology.last_layers(wiring, region)
    rules: tuple[tuple[Callable[[Any], bool], str], ...] = (
        (lambda node: key(node) in region, "box arithmetic: a bin of the distribution is a whole stride of pixels"),
        (lambda node: key(node) in last, "last layer of a head branch: its rounding goes straight into box or score"),
        (lambda node: bool(wiring.activations(node)[:1]) and _is_small_product(wiring, node), "product too small"),
        (lambda node: _is_thin_depthwise(wiring, node), "depthwise without a multiple of 8 channels or a 3x3 kernel"),
        (lambda node: _is_narrow(wiring, node), f"fewer than {NARROW} channels: INT8 is not faster than FP16"),
    )
    reasons = {}
    for node in wiring.layers():
        reason = next((text for applies, text in rules if applies(node)), None)
        if reason is not None:
            reasons[key(node)] = reason
    return reasons


def _channels(wiring: Wiring, node: Any) -> tuple[int, int, int, tuple[int, ...]]:
    """Input channels, output channels, groups and kernel of a convolution."""
    weight = wiring.array(wiring.weight(node) or "")
    groups = int(attribute(node, "group", 1))
    sides = weight.shape if weight is not None else (0, 0)
    if node.op_type == "ConvTranspose":
        return sides[0], sides[1] * groups, groups, sides[2:]
    return sides[1] * groups, sides[0], groups, sides[2:]


def _is_small_product(wiring: Wiring, node: Any) -> bool:
    weight = wiring.array(wiring.weight(node) or "")
    return node.op_type in {"MatMul", "Gemm"} and weight is not None and min(weight.shape[-2:]) < NARROW


def _is_thin_depthwise(wiring: Wiring, node: Any) -> bool:
    if node.op_type != "Conv":
        return False
    inputs, outputs, groups, kernel = _channels(wiring, node)
    return groups > 1 and groups == inputs and (outputs % 8 != 0 or min(kernel, default=0) < DEPTHWISE_KERNEL)


def _is_narrow(wiring: Wiring, node: Any) -> bool:
    if node.op_type not in {"Conv", "ConvTranspose"}:
        return False
    inputs, outputs, groups, kernel = _channels(wiring, node)
    if min(inputs, outputs) >= NARROW or groups == inputs > 1:
        return False
    aligned = inputs % 8 == 0 or outputs % 8 == 0
    first = _is_first(wiring, node)
    worth = groups == 1 and aligned and len(set(kernel)) == 1 and (first or max(inputs, outputs) >= NARROW)
    return not worth


def _is_first(wiring: Wiring, node: Any) -> bool:
    """Whether no layer stands between the images and ``node``."""
    pending, seen = list(node.input[:1]), set()
    while pending:
        name = pending.pop()
        maker = wiring.producer.get(name)
        if maker is None or name in seen:
            continue
        seen.add(name)
        if wiring.weight(maker) is not None:
            return False
        pending += wiring.activations(maker)
    return True


def residual_shortcut(wiring: Wiring, node: Any, quantized: Mapping[str, AbstractSet[str]]) -> str | None:
    """The shortcut input of a residual addition if it is in INT8 already, else None.

    The other input comes straight from a layer and stays unquantized, so that TensorRT adds inside that layer's
    kernel; the shortcut is then read as the INT8 tensor that the block's first layer reads too.
    """
    if node.op_type != "Add" or any(name in wiring.tensors for name in node.input):
        return None
    for shortcut, branch in (node.input, node.input[::-1]):
        if shortcut in quantized and branch not in quantized and _ends_in_layer(wiring, branch):
            return str(shortcut)
    return None


def _ends_in_layer(wiring: Wiring, tensor: str) -> bool:
    """Whether ``tensor`` is a layer's output, with or without its activation function."""
    node = wiring.producer.get(tensor)
    while node is not None and node.op_type in {"Mul", "Sigmoid", "Relu", "LeakyRelu", "Clip", "HardSwish"}:
        node = wiring.producer.get(next(iter(wiring.activations(node)), ""))
    return node is not None and wiring.weight(node) is not None


def shared_scales(wiring: Wiring, quantized: AbstractSet[str]) -> tuple[frozenset[str], ...]:
    """Quantized tensors that hold the same values through concat, pooling, nearest resize, split and reshapes."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in wiring.nodes:
        if node.op_type not in CARRIES or attribute(node, "mode", b"nearest") != b"nearest":
            continue
        sources = wiring.activations(node)[: None if node.op_type == "Concat" else 1]
        for name in [*sources, *node.output]:
            parent[root(name)] = root(node.output[0])
    groups: dict[str, set[str]] = {}
    for name in sorted(quantized):
        groups.setdefault(root(name), set()).add(name)
    return tuple(frozenset(group) for group in groups.values() if len(group) > 1)


LEVELS = 127
"""Steps on each side of zero; -128 is not used, so that the code is symmetric."""

BIASED = 3
"""Inputs of a Conv that has a bias."""

QDQ_OPSET = 13
"""First operator set whose DequantizeLinear has an axis."""


def quantize(
    onnx_bytes: bytes,
    placement: Placement,
    amax: Mapping[str, float],
    means: Mapping[str, Sequence[float]] | None = None,
) -> bytes:
    """Write Q/DQ pairs into a graph.

    Args:
        onnx_bytes: a serialized FP32 graph.
        placement: what is quantized, made from the same graph.
        amax: largest magnitude that INT8 must hold, by tensor; at least every tensor in ``placement.reads``.
        means: mean of each channel by tensor; where given, biases make up for what rounding the weights adds on
            average (bias correction, Nagel et al. 2019, arXiv:1906.04721, section 4.2).

    Returns:
        The serialized graph in operator set 13 or later; FP32 where it is not quantized.

    Raises:
        GraphError: a range is missing or not a positive finite number.
    """
    wiring = Wiring(raise_opset(load(onnx_bytes), QDQ_OPSET))
    scales = activation_scales(placement, amax)
    sources = {key(node): node.input[0] for node in wiring.layers()}
    nodes: list[Any] = []
    for name in wiring.inputs:
        nodes += _activation_pair(wiring, name, placement, scales)
    for node in wiring.nodes:
        if key(node) in placement.layers:
            nodes += _weight_dequantizer(wiring, node, (means or {}).get(sources[key(node)]))
        nodes.append(node)
        for name in node.output:
            nodes += _activation_pair(wiring, name, placement, scales)
    graph = wiring.model.graph
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    return serialize(wiring.model)


def activation_scales(placement: Placement, amax: Mapping[str, float]) -> dict[str, float]:
    """One scale for each quantized tensor; tensors that share take the widest range among them.

    Raises:
        GraphError: a range is missing or not a positive finite number.
    """
    widest = dict(amax)
    for group in placement.shared:
        most = max(amax.get(name, 0.0) for name in group)
        widest |= dict.fromkeys(group, most)
    missing = sorted(name for name in placement.reads if name not in amax)
    if missing:
        raise GraphError(
            f"no range for {len(missing)} tensors, the first is {missing[0]}",
            remedy="calibrate this graph again",
            missing=missing,
        )
    return {name: float(scale_of(np.float32(widest[name]), name)) for name in placement.reads}


def scale_of(amax: NDArray[np.float32] | np.float32, name: str) -> NDArray[np.float32]:
    """The step for ``amax``, rounded up to a number that FP16 holds; the smallest FP16 number where amax is 0.

    Raises:
        GraphError: ``amax`` is not finite or beyond what FP16 holds.
    """
    if not np.all(np.isfinite(amax)) or np.any(np.asarray(amax) < 0) or np.any(np.asarray(amax) > FLOAT16_MAX):
        raise GraphError(
            f"the range of {name} is {np.max(amax)}", remedy="check the weights and the images", tensor=name
        )
    wanted = np.asarray(amax, np.float32) / LEVELS
    rounded = wanted.astype(np.float16)
    above = np.where(rounded.astype(np.float32) < wanted, np.nextafter(rounded, np.float16(np.inf)), rounded)
    scale: NDArray[np.float32] = np.maximum(above, np.finfo(np.float16).smallest_subnormal).astype(np.float32)
    return scale


def quantize_weight(weight: NDArray[np.float32], axis: int, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """INT8 values and one scale for each slice along ``axis``, so that values * scale is near ``weight``."""
    others = tuple(side for side in range(weight.ndim) if side != axis)
    scale = scale_of(np.abs(weight).max(axis=others), name)
    shape = [-1 if side == axis else 1 for side in range(weight.ndim)]
    steps = np.rint(weight / scale.reshape(shape))
    return np.clip(steps, -LEVELS, LEVELS).astype(np.int8), scale


def weight_axis(node: Any, weight: NDArray[Any]) -> int:
    """The axis of output channels: 0 for Conv, 1 for ConvTranspose, the last of a product unless it is transposed."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    return weight.ndim - 2 if transposed else weight.ndim - 1


def _weight_dequantizer(wiring: Wiring, node: Any, mean: Sequence[float] | None) -> Iterable[Any]:
    """Point ``node`` at a DequantizeLinear of its INT8 weight; yields the new node where none was made before."""
    from onnx import helper

    name = wiring.weight(node) or ""
    weight = wiring.array(name)
    if weight is None:
        raise GraphError(f"layer {key(node)} has no constant weight", remedy="place on the same graph", layer=key(node))
    axis = weight_axis(node, weight)
    values, scale = quantize_weight(weight.astype(np.float32), axis, name)
    if node.op_type == "Conv" and mean:
        _correct_bias(wiring, node, weight - values * scale.reshape(-1, *[1] * (weight.ndim - 1)), np.asarray(mean))
    node.input[1] = f"{name}_dq"
    if f"{name}_int8" in wiring.tensors:
        return
    parts = [f"{name}_int8", f"{name}_scale", f"{name}_zero"]
    _add_constant(wiring, parts[0], values)
    _add_constant(wiring, parts[1], scale)
    _add_constant(wiring, parts[2], np.zeros(scale.shape, np.int8))
    yield helper.make_node("DequantizeLinear", parts, [f"{name}_dq"], name=f"{name}_dq", axis=axis)


def _correct_bias(wiring: Wiring, node: Any, lost: NDArray[np.float32], mean: NDArray[np.float64]) -> None:
    """Add to a convolution's bias what rounding took from its output on average.

    Args:
        wiring: the graph.
        node: a Conv with a constant bias; others stay as they are.
        lost: (out, in / groups, ...) weight less its INT8 value.
        mean: (in,) mean of each input channel.
    """
    bias = wiring.array(node.input[2]) if len(node.input) == BIASED else None
    if bias is None:
        return
    outputs, inputs = lost.shape[:2]
    sums = lost.sum(axis=tuple(range(2, lost.ndim)), dtype=np.float64)
    groups = len(mean) // inputs
    group_of = np.arange(outputs) // (outputs // groups)
    shift = (sums * mean.reshape(groups, inputs)[group_of]).sum(axis=1)
    name = f"{node.input[2]}_of_{key(node)}"
    _add_constant(wiring, name, (bias + shift).astype(np.float32))
    node.input[2] = name


def _activation_pair(wiring: Wiring, name: str, placement: Placement, scales: Mapping[str, float]) -> Iterable[Any]:
    """One Q/DQ pair behind ``name``, read by exactly the nodes that ``placement`` says."""
    from onnx import helper

    readers = placement.reads.get(name)
    if not readers:
        return
    _add_constant(wiring, f"{name}_scale", np.array(scales[name], np.float32))
    _add_constant(wiring, f"{name}_zero", np.zeros((), np.int8))
    grid = [f"{name}_scale", f"{name}_zero"]
    yield helper.make_node("QuantizeLinear", [name, *grid], [f"{name}_q"], name=f"{name}_q")
    yield helper.make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_dq"], name=f"{name}_dq")
    for node in wiring.readers[name]:
        if key(node) in readers:
            node.input[:] = [f"{name}_dq" if used == name else used for used in node.input]


def _add_constant(wiring: Wiring, name: str, value: NDArray[Any]) -> None:
    from onnx import numpy_helper

    tensor = numpy_helper.from_array(value, name)
    wiring.model.graph.initializer.append(tensor)
    wiring.tensors[name] = tensor
