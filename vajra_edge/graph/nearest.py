"""Nearest: from the names that a library gives in an error to the layers that can be left out of INT8."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from vajra_edge.graph.placement import Placement
from vajra_edge.graph.wiring import Wiring, key

PAIR = ("_dq", "_q")
"""How ``graph.qdq`` ends the names of the nodes that it adds; before that stands the tensor's name."""


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
