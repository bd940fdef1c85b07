"""DLA placement: the choice recomputed by brute force on random graphs, the table of limits, and real networks."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.graph.dla import partition, ranges
from vajra_edge.graph.dla.rules import Node, refusal
from vajra_edge.graph.topology import Wiring, key, load

LARGE = pytest.mark.long("the large network takes a minute to export; nano's card is made always")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[bool]]:
    """Predecessors in topological order, and which nodes a DLA could run."""
    count = draw(st.integers(1, 9))
    predecessors = [
        sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else [] for node in range(count)
    ]
    return predecessors, draw(st.lists(st.booleans(), min_size=count, max_size=count))


def ways(predecessors: Sequence[Sequence[int]], to: int) -> list[list[int]]:
    """Every path that ends in a node, the one of no step included."""
    return [[to], *([*way, to] for source in predecessors[to] for way in ways(predecessors, source))]


@given(graphs())
def test_no_path_leaves_a_region_and_comes_back(drawn: tuple[list[list[int]], list[bool]]) -> None:
    predecessors, on_dla = drawn
    for region in partition.regions(predecessors, on_dla):
        back = [way for node in region for way in ways(predecessors, node) if way[0] in region]
        assert all(set(way) <= set(region) for way in back)


@given(graphs())
def test_the_regions_hold_every_dla_node_once_and_leave_no_cycle(drawn: tuple[list[list[int]], list[bool]]) -> None:
    predecessors, on_dla = drawn
    found = partition.regions(predecessors, on_dla)
    assert sorted(node for region in found for node in region) == [node for node, on in enumerate(on_dla) if on]
    part = {node: f"region {index}" for index, region in enumerate(found) for node in region}
    merged: dict[object, set[object]] = {}
    for node, sources in enumerate(predecessors):
        name: object = part.get(node, node)
        merged.setdefault(name, set()).update({part.get(source, source) for source in sources} - {name})
    order = list(TopologicalSorter(merged).static_order())  # raises CycleError
    assert set(order) == set(merged)


@given(graphs())
def test_neighbours_with_as_many_borders_before_them_share_a_region(
    drawn: tuple[list[list[int]], list[bool]],
) -> None:
    predecessors, on_dla = drawn
    levels = [
        max(sum(on_dla[u] != on_dla[v] for u, v in itertools.pairwise(way)) for way in ways(predecessors, node))
        for node in range(len(predecessors))
    ]
    assert partition.levels(predecessors, on_dla) == levels
    part = {node: region for region in partition.regions(predecessors, on_dla) for node in region}
    for node, sources in enumerate(predecessors):
        for source in sources:
            if on_dla[node] and on_dla[source]:
                assert (part[node] == part[source]) == (levels[node] == levels[source])


SIDE = 8
CHANNELS = 4
TENSOR_BYTES = CHANNELS * SIDE * SIDE
MACS = {"Conv": CHANNELS * CHANNELS * 9 * SIDE * SIDE, "Relu": 0, "Add": 0, "Softmax": 0}


@st.composite
def networks(draw: st.DrawFn) -> bytes:
    """Random convolutions, activations, sums and softmaxes of one shape; every loose end is an output."""
    weight = numpy_helper.from_array(np.ones((CHANNELS, CHANNELS, 3, 3), np.float32), "w")
    names, nodes = ["images"], []
    for index in range(draw(st.integers(1, 10))):
        op = draw(st.sampled_from(["Conv", "Conv", "Relu", "Add", "Softmax"]))
        inputs = [draw(st.sampled_from(names)) for _ in range(2 if op == "Add" else 1)]
        extra = {"Conv": {"pads": [1, 1, 1, 1]}, "Softmax": {"axis": 1}}.get(op, {})
        nodes.append(helper.make_node(op, [*inputs, "w"] if op == "Conv" else inputs, [f"t{index}"], **extra))
        names.append(f"t{index}")
    read = {name for node in nodes for name in node.input}
    # A last layer each, since what follows the last layer is box arithmetic.
    for number, name in enumerate(name for name in names[1:] if name not in read):
        nodes.append(helper.make_node("Conv", [name, "w"], [f"out{number}"], pads=[1, 1, 1, 1]))
    shape = [1, CHANNELS, SIDE, SIDE]
    outs = [
        helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, shape) for n in nodes if n.output[0][0] == "o"
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)], outs, [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@settings(max_examples=60, deadline=None)
@given(networks())
def test_the_chosen_region_is_the_best_of_all_recomputed_by_hand(onnx_bytes: bytes) -> None:
    placement = partition.plan(onnx_bytes)
    wiring = Wiring(load(onnx_bytes))
    names = [key(node) for node in wiring.nodes]
    on_dla = [node.op_type != "Softmax" for node in wiring.nodes]
    place = {name: index for index, name in enumerate(names)}
    predecessors = [[place[name] for name in node.input if name in place] for node in wiring.nodes]
    gains = {}
    for region in partition.regions(predecessors, on_dla):
        inside = {names[index] for index in region}
        made = [node for node in wiring.nodes if key(node) in inside]
        reads = {name for node in made for name in node.input if name != "w"} - inside
        others = {name for node in wiring.nodes if key(node) not in inside for name in node.input}
        leaves = {name for name in inside if name in others or name in wiring.outputs}
        macs = sum(MACS[node.op_type] for node in made)
        borders = (len(reads) + len(leaves)) * TENSOR_BYTES
        gains[frozenset(inside)] = macs / partition.MACS_PER_S - borders / partition.BYTES_PER_S - partition.LAUNCH_S
    assert {frozenset(region.nodes): pytest.approx(region.gain_s) for region in placement.candidates} == gains
    assert placement.regions[0].gain_s == pytest.approx(max(gains.values()))
    total = sum(MACS[node.op_type] for node in wiring.nodes)
    chosen = sum(MACS[node.op_type] for node in wiring.nodes if key(node) in placement.chosen)
    assert placement.macs_share == pytest.approx(chosen / total)
    assert set(placement.left) == set(names) - placement.chosen
    assert {placement.left[name] for name in names if not on_dla[place[name]]} <= {
        "Softmax: approximate on DLA, so that it stays on the GPU"
    }


def node(op: str, shape: tuple[int, ...] = (1, 16, 32, 32), *, inputs: int = 1, **attributes: Any) -> Node:
    return Node(op, attributes, (shape,) * inputs, (shape,), {}, inputs)


def with_constants(op: str, constants: dict[int, Any], **attributes: Any) -> Node:
    shape = (1, 16, 32, 32)
    return Node(op, attributes, (shape,), (shape,), constants, 1 + len(constants))


WEIGHT = {1: np.zeros((16, 16, 3, 3), np.float32)}


@pytest.mark.parametrize(
    "taken",
    [
        with_constants("Conv", WEIGHT, strides=[2, 2], pads=[1, 1, 1, 1], group=1),
        with_constants("Conv", {1: np.zeros((16, 1, 5, 5), np.float32)}, group=16, dilations=[2, 2]),
        with_constants("ConvTranspose", {1: np.zeros((16, 16, 2, 2), np.float32)}, strides=[2, 2]),
        node("Sigmoid"),
        node("Mul", inputs=2),
        node("Add", inputs=2),
        with_constants("Mul", {1: np.zeros((), np.float32)}),
        with_constants("Add", {1: np.zeros((1, 16, 1, 1), np.float32)}),
        node("Concat", inputs=3, axis=1),
        node("Split", axis=1),
        with_constants("Slice", {1: np.array([0]), 2: np.array([8]), 3: np.array([1]), 4: np.array([1])}),
        node("MaxPool", kernel_shape=[5, 5], pads=[2, 2, 2, 2], strides=[1, 1]),
        with_constants(
            "Resize",
            {1: np.zeros(0), 2: np.array([1, 1, 2, 2], np.float32)},
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        node("QuantizeLinear"),
    ],
    ids=lambda node: node.op,
)
def test_what_the_table_allows(taken: Node) -> None:
    assert refusal(taken) is None


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (node("Conv", inputs=2), "the weights are computed"),
        (with_constants("Conv", {1: np.zeros((16, 16, 33, 3), np.float32)}), "kernel 33 is outside 1 to 32"),
        (with_constants("Conv", WEIGHT, strides=[9, 9]), "stride 9 is outside 1 to 8"),
        (with_constants("Conv", WEIGHT, pads=[32, 0, 0, 0]), "padding 32 is outside 0 to 31"),
        (with_constants("Conv", WEIGHT, dilations=[33, 1]), "dilation 33 is outside 1 to 32"),
        (with_constants("ConvTranspose", WEIGHT, group=2), "padding and groups"),
        (with_constants("ConvTranspose", WEIGHT, dilations=[2, 2]), "dilation is not supported"),
        (node("MaxPool", kernel_shape=[9, 9]), "window 9 is outside 1 to 8"),
        (node("MaxPool", kernel_shape=[5, 5], ceil_mode=1), "ceil mode"),
        (node("Concat", inputs=2, axis=2), "only the channel axis"),
        (with_constants("Concat", {1: np.zeros((1, 16, 32, 32))}, axis=1), "a constant operand"),
        (node("Split", axis=0), "the batch axis cannot be split"),
        (node("Slice", inputs=3), "starts and ends are computed"),
        (
            with_constants("Slice", {1: np.array([0]), 2: np.array([8]), 3: np.array([1]), 4: np.array([2])}),
            "only step 1",
        ),
        (with_constants("Slice", {1: np.array([0]), 2: np.array([1])}), "the batch axis cannot be sliced"),
        (with_constants("Resize", {3: np.array([1, 16, 64, 64])}), "constant scales are needed"),
        (with_constants("Resize", {2: np.array([1, 1, 1.5, 1.5])}), "is not a whole number"),
        (with_constants("Resize", {2: np.array([1, 1, 2, 2])}, mode="linear"), "only nearest"),
        (
            with_constants("Resize", {2: np.array([1, 1, 2, 2])}, coordinate_transformation_mode="align_corners"),
            "align_corners with round_prefer_floor",
        ),
        (Node("Add", {}, ((1, 16, 32, 32), (1, 16, 1, 1)), ((1, 16, 32, 32),), {}, 2), "different shapes"),
        (node("Max", inputs=3), "more than two operands"),
        (with_constants("Mul", {1: np.zeros((32, 32), np.float32)}), "neither one number nor one number a channel"),
        (node("Sigmoid", (1, 16, 1024)), "4 dimensions, this one has 3"),
        (node("Sigmoid", (1, 16, 0, 32)), "static shapes only"),
        (node("Sigmoid", (1, 16, 9000, 32)), "1x16x9000x32 is too large"),
        (node("MatMul", inputs=2), "multiplies by constants only"),
        (node("Softmax"), "stays on the GPU"),
        (node("TopK"), "no DLA operator"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.op,
)
def test_what_the_table_refuses_and_why(refused: Node, reason: str) -> None:
    assert reason in str(refusal(refused))


@pytest.mark.parametrize(
    ("name", "least", "reasons"),
    [
        ("vajra-v1-nano-det-cctv", 0.63, ("MatMul: DLA multiplies by constants only", partition.BOX_ARITHMETIC)),
        ("yolox_nano_v8layout", 0.58, ("MaxPool: window 13 is outside 1 to 8", "Slice: only step 1 is supported")),
    ],
)
def test_the_report_cards_of_real_networks(
    shared_data: Path, name: str, least: float, reasons: tuple[str, ...]
) -> None:
    placed = partition.plan((shared_data / "models" / f"{name}.onnx").read_bytes())
    assert placed.macs_share >= least
    assert placed.transitions == 2
    assert set(reasons) <= set(placed.left.values())


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="absent here: torch")
@pytest.mark.parametrize(("size", "least"), [("nano", 0.63), pytest.param("large", 0.62, marks=LARGE)])
def test_the_report_cards_of_our_own_exports(size: str, least: float) -> None:
    """``tests/bench/trt_builds.py --dla`` prints those of all five."""
    from bench.trt_builds import card

    found = card(size)
    assert least <= found["macs_share"] < least + 0.02  # type: ignore[operator]
    assert found["transitions"] == 2
    assert found["with_more_regions"]["macs_share"] > 0.99  # type: ignore[index]
    assert found["with_more_regions"]["transitions"] == 4  # type: ignore[index]
    assert {partition.BOX_ARITHMETIC, "MatMul: DLA multiplies by constants only"} <= set(found["left_on_gpu"])  # type: ignore[call-overload]


def test_a_second_region_is_taken_on_request_while_it_gains(shared_data: Path) -> None:
    nano = (shared_data / "models" / "vajra-v1-nano-det-cctv.onnx").read_bytes()
    one, more = partition.plan(nano), partition.plan(nano, most_regions=4)
    assert len(more.regions) == 2
    assert more.macs_share > one.macs_share + 0.3
    assert more.transitions == 4


def test_what_the_device_refuses_splits_a_region(shared_data: Path) -> None:
    nano = (shared_data / "models" / "vajra-v1-nano-det-cctv.onnx").read_bytes()
    whole = partition.plan(nano)
    middle = whole.regions[0].nodes[80]
    split = partition.plan(nano, refused={middle: "the compiler refuses it"})
    assert middle not in split.chosen
    assert split.left[middle] == "the compiler refuses it"
    assert split.macs_share < whole.macs_share


def test_ranges_agree_where_a_dla_needs_it_and_travel_in_the_graph() -> None:
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["a"], ["gate"]),
        helper.make_node("Mul", ["a", "gate"], ["silu"]),
        helper.make_node("Add", ["images", "silu"], ["sum"]),
        helper.make_node("MaxPool", ["sum"], ["pooled"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["pooled", "sum"], ["both"], axis=1),
    ]
    weight = numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w")
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4, 8, 8]),
        helper.make_tensor_value_info("both", TensorProto.FLOAT, [1, 8, 8, 8]),
    ]
    graph = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])).SerializeToString()
    measured = {"images": 1.0, "a": 6.0, "silu": 4.0, "sum": 3.0, "pooled": 5.0, "both": 2.0}
    carried = ranges.attach(graph, measured)
    assert ranges.attached(carried) == measured
    assert ranges.attached(graph) == {}
    assert ranges.equalised(graph, measured) == {
        "a": 6.0,
        "gate": 1.0,
        "images": 4.0,
        "silu": 4.0,
        "sum": 5.0,
        "pooled": 5.0,
        "both": 5.0,
    }
