"""Q/DQ: the INT8 pass. Writes symmetric explicit quantization into an FP32 graph from measured ranges.

Activations: one scale a tensor, zero point 0. Weights: one scale an output channel, stored as INT8 constants.
Biases: never, they are added to the INT32 sums. Scales are numbers that FP16 holds exactly (rounded up), so that the
FP16 pass behind this one changes none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.errors import GraphError
from vajra_edge.graph.half import FLOAT16_MAX
from vajra_edge.graph.placement import Placement
from vajra_edge.graph.proto import serialize
from vajra_edge.graph.wiring import Wiring, drop_unread, key, load, raise_opset

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
