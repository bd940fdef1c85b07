"""Head: the part of a detector behind its last layers, where box arithmetic happens and precision must stay FP32.

It is found by walking from the outputs towards the images up to the first layer with weights. The expectation of the
distribution focal loss is written as a 1x1 convolution with the weights 0, 1, 2 ...; that is arithmetic, not a layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vajra_edge.graph.wiring import Wiring, key

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
