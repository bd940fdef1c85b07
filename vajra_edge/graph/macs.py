"""Macs: how many multiply-adds each layer costs, the weight by which precision choices are judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from math import prod
from typing import Any

from vajra_edge.graph.wiring import Wiring, key, shapes


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
