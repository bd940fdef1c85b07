"""What a DLA core takes, operator by operator, as a table of limits; everything else stays on the GPU with a reason.

The limits are those of "DLA Supported Layers and Restrictions" (TensorRT 10.7 documentation) and of the operator table
in NVIDIA/Deep-Learning-Accelerator-SW, for Orin. They are the answer away from the device; on it, the builder's own
``can_run_on_DLA`` is asked as well, and a node goes to the DLA only if both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = tuple[int, ...]

MAX_BATCH = 4096
MAX_SIDE = 8192
"""Of any dimension but the batch."""
MAX_TENSOR_BYTES = 1 << 30

CONV_KERNEL, CONV_STRIDE, CONV_PAD, CONV_DILATION = range(1, 33), range(1, 9), range(32), range(1, 33)
POOL_WINDOW, POOL_STRIDE, POOL_PAD = range(1, 9), range(1, 17), range(8)
RESIZE_SCALE = range(1, 33)


@dataclass(frozen=True)
class Node:
    """One operator, as the rules see it.

    Attributes:
        op: ONNX operator type.
        attributes: by name; text as str.
        inputs: shape of each computed input; an empty one where it is not known; a dynamic side is 0.
        outputs: likewise.
        constants: input slot -> values, where an input is constant.
        slots: number of inputs, computed or constant.
    """

    op: str
    attributes: Mapping[str, Any]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    constants: Mapping[int, Any]
    slots: int


def refusal(node: Node) -> str | None:
    """Why ``node`` cannot run on a DLA core, or None if it can."""
    if node.op in GPU_ONLY:
        return GPU_ONLY[node.op]
    rule = RULES.get(node.op)
    if rule is None:
        return f"{node.op}: no DLA operator"
    for shape in (*node.inputs, *node.outputs):
        if len(shape) != 4:  # noqa: PLR2004  batch, channels, height, width
            return f"{node.op}: DLA takes tensors of 4 dimensions, this one has {len(shape)}"
        if 0 in shape:
            return f"{node.op}: DLA takes static shapes only"
        if shape[0] > MAX_BATCH or max(shape[1:]) > MAX_SIDE or prod(shape) * 2 > MAX_TENSOR_BYTES:
            return f"{node.op}: a tensor of {'x'.join(map(str, shape))} is too large"
    reason = rule(node)
    return f"{node.op}: {reason}" if reason else None


def _conv(node: Node) -> str | None:
    weight = node.constants.get(1)
    if weight is None:
        return "the weights are computed"
    return (
        _within("kernel", node.attributes.get("kernel_shape", weight.shape[2:]), CONV_KERNEL)
        or _within("stride", node.attributes.get("strides", (1, 1)), CONV_STRIDE)
        or _within("dilation", node.attributes.get("dilations", (1, 1)), CONV_DILATION)
        or _within("padding", node.attributes.get("pads", (0, 0, 0, 0)), CONV_PAD)
    )


def _deconv(node: Node) -> str | None:
    if any(node.attributes.get("pads", ())) or node.attributes.get("group", 1) != 1:
        return "padding and groups are not supported"
    if any(side != 1 for side in node.attributes.get("dilations", ())):
        return "dilation is not supported"
    return _conv(node)


def _pool(node: Node) -> str | None:
    return (
        _within("window", node.attributes.get("kernel_shape", ()), POOL_WINDOW)
        or _within("stride", node.attributes.get("strides", (1, 1)), POOL_STRIDE)
        or _within("padding", node.attributes.get("pads", (0, 0, 0, 0)), POOL_PAD)
        or ("ceil mode is not supported" if node.attributes.get("ceil_mode", 0) else None)
        or _within("dilation", node.attributes.get("dilations", (1, 1)), range(1, 2))
    )


def _elementwise(node: Node) -> str | None:
    if len(node.inputs) + len(node.constants) != 2:  # noqa: PLR2004  two operands
        return "more than two operands"
    if len(node.inputs) == 1:
        value = next(iter(node.constants.values()))
        channels = node.inputs[0][1]
        shape = (1,) * (4 - value.ndim) + value.shape
        fits = value.size == 1 or shape == (1, channels, 1, 1)
        return None if fits else "a constant operand is neither one number nor one number a channel"
    return None if node.inputs[0] == node.inputs[1] else "operands of different shapes"


def _concat(node: Node) -> str | None:
    if node.constants:
        return "a constant operand"
    return None if node.attributes.get("axis") in {1, -3} else "only the channel axis is supported"


def _split(node: Node) -> str | None:
    return "the batch axis cannot be split" if node.attributes.get("axis", 0) in {0, -4} else None


def _slice(node: Node) -> str | None:
    if len(node.constants) != node.slots - 1:
        return "starts and ends are computed"
    axes = node.constants.get(3)
    steps = node.constants.get(4)
    if steps is not None and any(int(step) != 1 for step in steps.reshape(-1)):
        return "only step 1 is supported"
    named = range(len(node.constants[1].reshape(-1))) if axes is None else axes.reshape(-1)
    return "the batch axis cannot be sliced" if any(int(axis) in {0, -4} for axis in named) else None


def _resize(node: Node) -> str | None:
    if node.attributes.get("mode", "nearest") != "nearest":
        return "only nearest is supported"
    scales = node.constants.get(2)
    if scales is None or scales.size != 4:  # noqa: PLR2004  one a dimension
        return "constant scales are needed, sizes are not enough"
    numbers = [float(scale) for scale in scales.reshape(-1)]
    if numbers[:2] != [1.0, 1.0] or any(not scale.is_integer() or int(scale) not in RESIZE_SCALE for scale in numbers):
        return f"a scale of {numbers} is not a whole number from 1 to {RESIZE_SCALE[-1]} of the two sides"
    coordinates = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
    known = coordinates == "half_pixel" or (coordinates, rounding) == ("asymmetric", "floor")
    return None if known else f"{coordinates} with {rounding} is not supported"


def _any(node: Node) -> str | None:
    del node
    return None


def _within(what: str, values: Sequence[int], allowed: range) -> str | None:
    wrong = [int(value) for value in values if int(value) not in allowed]
    return f"{what} {wrong[0]} is outside {allowed[0]} to {allowed[-1]}" if wrong else None


RULES: Mapping[str, Callable[[Node], str | None]] = {
    "Conv": _conv,
    "ConvTranspose": _deconv,
    "BatchNormalization": _any,  # folded, else a Scale layer
    "Sigmoid": _any,
    "Relu": _any,
    "Tanh": _any,
    "LeakyRelu": _any,
    "Add": _elementwise,
    "Mul": _elementwise,
    "Sub": _elementwise,
    "Max": _elementwise,
    "Min": _elementwise,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Resize": _resize,
    "Identity": _any,
    "QuantizeLinear": _any,
    "DequantizeLinear": _any,
}

GPU_ONLY: Mapping[str, str] = {
    "MatMul": "MatMul: DLA multiplies by constants only",
    "Softmax": "Softmax: approximate on DLA, so that it stays on the GPU",
    "Transpose": "Transpose: DLA's shuffle is too restricted",
    "Reshape": "Reshape: DLA's shuffle is too restricted",
    "GlobalAveragePool": "GlobalAveragePool: DLA reduces by maximum only",
    "ReduceMean": "ReduceMean: DLA reduces by maximum only",
    "Cast": "Cast: the border between two types belongs to the GPU",
}
