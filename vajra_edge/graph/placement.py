"""Placement: where Q/DQ pairs go in a detector, and the reason for every place they do not.

The rules follow what TensorRT fuses (its documentation on explicit quantization and the placement that NVIDIA's own
Model Optimizer uses): only inputs of layers are quantized, never outputs, so that nothing stands between a convolution
and its activation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from vajra_edge.graph import head
from vajra_edge.graph.wiring import Wiring, attribute, key

NARROW = 16
"""Channels below which an INT8 convolution or product gains nothing on tensor cores."""

DEPTHWISE_KERNEL = 3
"""Smallest kernel side for which TensorRT has INT8 depthwise convolutions."""

CARRIES = head.MOVES | {"MaxPool", "Resize"}
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
    region = head.arithmetic(wiring)
    last = head.last_layers(wiring, region)
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
