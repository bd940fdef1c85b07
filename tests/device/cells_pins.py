"""F: what pinning box arithmetic to FP32 costs in time and gives in points, under weak typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import cells_figures
import lab as shared
from lab import Lab

from vajra_edge.graph import topology
from vajra_edge.graph.passes import fp16
from vajra_edge.graph.topology import Wiring, key

product = fp16.float32_nodes
"""As the checkout pins, kept from before the cell puts another set in its place."""


def nothing(wiring: Wiring) -> frozenset[str]:
    """No pins at all."""
    del wiring
    return frozenset()


def region(wiring: Wiring) -> frozenset[str]:
    """All of the head's arithmetic but the leading operators that only move values, and what FP16 cannot hold."""
    found = set(topology.arithmetic(wiring))
    for node in wiring.nodes:
        sources = wiring.activations(node)
        inside = [name in wiring.producer and key(wiring.producer[name]) in found for name in sources]
        if key(node) in found and node.op_type in topology.MOVES and sources and not any(inside):
            found.discard(key(node))
    wide = {key(node) for node in wiring.nodes if node.op_type in fp16.FLOAT32_ONLY or fp16._overflows(wiring, node)}
    return frozenset(found | wide)


SETS: dict[str, Callable[[Wiring], frozenset[str]]] = {"nothing": nothing, "product": product, "region": region}
"""Sets of keys of the nodes that stay FP32, by name; another one is a line here and one in ``cells._pins``."""


def build(lab: Lab, network: str, pins: str) -> Any:
    """FP16 with these pins; kept for the cell that times."""
    spec = shared.spec_of("fp16")
    fold = cells_figures.fold_of(lab, network)
    fp32, found = shared.assembled(fold.network.read_bytes(), spec)
    count: list[int] = []

    def pinned(wiring: Wiring) -> frozenset[str]:
        keys = SETS[pins](wiring)
        count.append(len(keys))
        return keys

    with mock.patch.object(fp16, "float32_nodes", pinned), shared.of_level(lab.level):
        made = shared.build(fp32, found, spec)
    assert count, "the build did not ask half.float32_nodes for its pins: the product does it another way now"
    notes = {"pinned_nodes": count[-1]}
    return cells_figures.scored(lab, f"F {network}, pinned: {pins}", made, fp32, spec, fold.scored, notes)
