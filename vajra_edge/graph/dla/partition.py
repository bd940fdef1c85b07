"""DLA partition: which nodes go to a DLA core, so that the core is entered and left as rarely as possible.

Every border costs a reformat on the GPU, a launch, and a fusion that can no longer happen. So one region is chosen
(more on request), and it is convex: no path leaves it and comes back, or the DLA would have to wait in the middle. With

    level(v) = max over predecessors u of level(u) + [device(u) != device(v)]

all DLA nodes of one level form a convex set, and so does each of its connected parts: a region.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import prod
from typing import Any

from vajra_edge.graph import topology
from vajra_edge.graph.dla.rules import Node, refusal
from vajra_edge.graph.topology import Wiring, key, load, macs_by_layer, shapes

MACS_PER_S = 5e12
"""What a core of Orin's sustains in INT8: 40 % of the 26 dense TOPS of the data sheet."""
BYTES_PER_S = 1e11
"""Memory bandwidth of Orin NX (102 GB/s), which each border tensor crosses."""
LAUNCH_S = 2e-4
"""One more loadable: in NVIDIA's jetson_dla_tutorial 4 more islands cost 1.7 ms, half of it for border tensors."""

BOX_ARITHMETIC = "box arithmetic stays on the GPU in FP32"
NOT_CHOSEN = "DLA could run it, outside the chosen region"


@dataclass(frozen=True)
class Region:
    """Nodes that become one loadable.

    Attributes:
        nodes: keys (first outputs) in graph order.
        macs: multiply-adds for the whole batch.
        entering_bytes: tensors made outside and read inside, once each.
        leaving_bytes: tensors made inside and read outside.
    """

    nodes: tuple[str, ...]
    macs: int
    entering_bytes: int
    leaving_bytes: int

    @property
    def gain_s(self) -> float:
        """Work taken from the GPU less the cost of the borders, in seconds."""
        return self.macs / MACS_PER_S - (self.entering_bytes + self.leaving_bytes) / BYTES_PER_S - LAUNCH_S


@dataclass(frozen=True)
class DlaPlacement:
    """What goes to the DLA, and why the rest does not.

    Attributes:
        regions: what was chosen, best first; empty if nothing can.
        candidates: every region there was.
        macs_share: part of all multiply-adds that runs on the DLA, 0..1.
        transitions: how often execution passes between GPU and DLA.
        left: key -> reason, for every node that stays on the GPU.
        operators: key -> operator type, of every node.
    """

    regions: tuple[Region, ...]
    candidates: tuple[Region, ...]
    macs_share: float
    transitions: int
    left: Mapping[str, str]
    operators: Mapping[str, str]

    @property
    def chosen(self) -> frozenset[str]:
        """Keys of the nodes on the DLA."""
        return frozenset(name for region in self.regions for name in region.nodes)


def plan(
    onnx_bytes: bytes, *, refused: Mapping[str, str] | None = None, most_regions: int = 1, value_bytes: int = 1
) -> DlaPlacement:
    """Choose the regions of a network.

    Args:
        onnx_bytes: a serialized graph of static shape.
        refused: node key -> reason, where the device's own builder says no beyond the table.
        most_regions: further regions are taken in order of gain while they gain anything.
        value_bytes: size of one activation on a border: 1 for INT8, 2 for FP16.

    Raises:
        GraphError: the bytes are not a graph this package reads.
    """
    wiring = Wiring(load(onnx_bytes))
    sides = shapes(wiring.model)
    left = {**(refused or {}), **_static_refusals(wiring, sides)}
    names = [key(node) for node in wiring.nodes]
    predecessors = _predecessors(wiring)
    groups = regions(predecessors, [name not in left for name in names])
    macs = _macs(wiring, sides)
    found = [_region(wiring, [names[index] for index in group], macs, sides, value_bytes) for group in groups]
    ranked = sorted(found, key=lambda region: -region.gain_s)
    chosen = tuple(ranked[:1] + [region for region in ranked[1:most_regions] if region.gain_s > 0])
    inside = {name for region in chosen for name in region.nodes}
    total = sum(macs.values())
    return DlaPlacement(
        regions=chosen,
        candidates=tuple(ranked),
        macs_share=sum(region.macs for region in chosen) / total if total else 0.0,
        transitions=sum((region.entering_bytes > 0) + (region.leaving_bytes > 0) for region in chosen),
        left={name: left.get(name, NOT_CHOSEN) for name in names if name not in inside},
        operators={key(node): node.op_type for node in wiring.nodes},
    )


def levels(predecessors: Sequence[Sequence[int]], on_dla: Sequence[bool]) -> list[int]:
    """How often the device changes on the way to each node; nodes are in topological order."""
    level: list[int] = []
    for index, sources in enumerate(predecessors):
        level.append(max((level[u] + (on_dla[u] != on_dla[index]) for u in sources), default=0))
    return level


def regions(predecessors: Sequence[Sequence[int]], on_dla: Sequence[bool]) -> list[tuple[int, ...]]:
    """The connected parts of each level's DLA nodes; each is convex, and together they leave no cycle."""
    level = levels(predecessors, on_dla)
    parent = list(range(len(level)))

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, sources in enumerate(predecessors):
        for source in sources:
            if on_dla[index] and on_dla[source] and level[index] == level[source]:
                parent[find(index)] = find(source)
    groups: dict[int, list[int]] = defaultdict(list)
    for index, chosen in enumerate(on_dla):
        if chosen:
            groups[find(index)].append(index)
    return [tuple(group) for group in groups.values()]


def _static_refusals(wiring: Wiring, sides: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    arithmetic = topology.arithmetic(wiring)
    left = {}
    for node in wiring.nodes:
        reason = BOX_ARITHMETIC if key(node) in arithmetic else refusal(_view(wiring, node, sides))
        if reason is not None:
            left[key(node)] = reason
    return left


def _view(wiring: Wiring, node: Any, sides: Mapping[str, tuple[int, ...]]) -> Node:
    from onnx import helper

    values = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    arrays = {slot: wiring.array(name) for slot, name in enumerate(node.input) if name in wiring.tensors}
    weight = wiring.weight(node)
    if weight is not None:  # seen through its Q/DQ pair
        arrays[1] = wiring.array(weight)
    computed = [name for slot, name in enumerate(node.input) if name and slot not in arrays]
    return Node(
        op=node.op_type,
        attributes={name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()},
        inputs=tuple(sides.get(name, ()) for name in computed),
        outputs=tuple(sides.get(name, ()) for name in node.output if name),
        constants=arrays,
        slots=len(node.input),
    )


def _predecessors(wiring: Wiring) -> list[list[int]]:
    place = {key(node): index for index, node in enumerate(wiring.nodes)}
    return [
        [place[key(wiring.producer[name])] for name in wiring.activations(node) if name in wiring.producer]
        for node in wiring.nodes
    ]


def _macs(wiring: Wiring, sides: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Multiply-adds of the whole batch by node key, attention's products of two activations included."""
    batch = sides.get(wiring.inputs[0], (1,))[0] or 1
    macs = {name: count * batch for name, count in macs_by_layer(wiring).items()}
    for node in wiring.nodes:
        if node.op_type == "MatMul" and key(node) not in macs:
            macs[key(node)] = prod(sides.get(node.output[0], (0,))) * (sides.get(node.input[0]) or (0,))[-1]
    return macs


def _region(
    wiring: Wiring, names: Sequence[str], macs: Mapping[str, int], sides: Mapping[str, tuple[int, ...]], size: int
) -> Region:
    inside = set(names)
    nodes = [node for node in wiring.nodes if key(node) in inside]
    made = {name for node in nodes for name in node.output if name}
    read = {name for node in nodes for name in wiring.activations(node)}
    leaving = {name for name in made if name in wiring.outputs or _read_outside(wiring, name, inside)}
    entering = read - made
    return Region(
        nodes=tuple(names),
        macs=sum(macs.get(name, 0) for name in names),
        entering_bytes=sum(prod(sides.get(name, (0,))) for name in entering) * size,
        leaving_bytes=sum(prod(sides.get(name, (0,))) for name in leaving) * size,
    )


def _read_outside(wiring: Wiring, name: str, inside: AbstractSet[str]) -> bool:
    return any(key(reader) not in inside for reader in wiring.readers[name])
