"""Layouts: the output of another family, rewritten by a few nodes into one of the two that everything here reads.

Candidates become ``Layout.RAW``, to which NMS is added as to our own; what a network chose by itself becomes
``Layout.DETECTIONS``. Boxes and scores are multiplied and added in FP32, as in every other head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vajra_edge.errors import GraphError
from vajra_edge.graph import form, metadata
from vajra_edge.graph.families import FamilyKind, Reading, Unit
from vajra_edge.graph.passes.nodes import Nodes
from vajra_edge.graph.signature import BOX_ROWS, DETECTION_COLUMNS, END_TO_END, LAYOUT
from vajra_edge.graph.topology import check, drop_unread, raise_opset

if TYPE_CHECKING:
    import onnx

PREFIX = "/layout/"
OUTPUTS = {FamilyKind.ANCHOR: "raw", FamilyKind.QUERY: "objects", FamilyKind.DETECTION: "objects"}
_OLDEST_OPSET = 13
_BYTES = 255.0


def rewrite(
    network: onnx.ModelProto, reading: Reading, rows: int, classes: int, size_hw: tuple[int, int]
) -> onnx.ModelProto:
    """Give a network the output that the rest works on.

    Args:
        network: in form; see ``form``.
        reading: of its output.
        rows: how many candidates or objects it tells at ``size_hw``.
        classes: how many there are.
        size_hw: of its input; the one that was looked at where sizes are open.

    Returns:
        The network with one output: (N, 4 + classes, anchors), or (N, objects, 6).

    Raises:
        GraphError: its opset cannot be raised, or it has open sizes and offsets that only a fixed one resolves.
    """
    network = raise_opset(network, _OLDEST_OPSET)
    image = network.graph.input[0]
    sides = [dim.dim_value or None for dim in image.type.tensor_type.shape.dim]
    if reading.bgr_bytes:
        form.scale_input(network, image.name, [_BYTES], reverse=True)
    name = OUTPUTS[reading.kind]
    nodes = Nodes(network, PREFIX, [name])
    every = reading.output
    if not reading.rows_first:
        every = nodes.node("Transpose", "rows_first", every, perm=[0, 2, 1])
    boxes = _boxes(nodes, nodes.part("boxes", every, 0, BOX_ROWS, 2), reading, image.name, sides, size_hw)
    if reading.kind is FamilyKind.ANCHOR:
        shape = (sides[0] or "batch", BOX_ROWS + classes, rows if all(sides[2:]) else "anchors")
        table = nodes.node("Concat", "table", boxes, _scores(nodes, every, reading, classes), axis=2)
        nodes.node("Transpose", name, table, perm=[0, 2, 1])
    else:
        shape = (sides[0] or "batch", rows, DETECTION_COLUMNS)
        chosen = (
            _chosen(nodes, every, classes) if reading.kind is FamilyKind.QUERY else [nodes.part("rest", every, 4, 6, 2)]
        )
        nodes.node("Concat", name, boxes, *chosen, axis=2)
        metadata.put(network, {LAYOUT: END_TO_END})
    _set_output(network, name, shape)
    check(network, f"after its output ({reading.family}) was brought into our layout")
    return network


def _boxes(
    nodes: Nodes, boxes: str, reading: Reading, image: str, sides: list[int | None], size_hw: tuple[int, int]
) -> str:
    """(N, rows, 4) in pixels: centres and sizes of candidates, corners of objects."""
    if reading.unit is Unit.CELLS:
        boxes = _decoded(nodes, boxes, reading, sides, size_hw)
    elif reading.unit is Unit.SHARES:
        boxes = nodes.node("Mul", "in_pixels", boxes, _pixels(nodes, image, sides))
    wants_corners = reading.kind is not FamilyKind.ANCHOR
    if reading.kind is FamilyKind.DETECTION or reading.corners is wants_corners:
        return boxes
    first, second = nodes.part("first", boxes, 0, 2, 2), nodes.part("second", boxes, 2, BOX_ROWS, 2)
    half = nodes.floats("half", 0.5)
    if wants_corners:
        reach = nodes.node("Mul", "reach", second, half)
        ends = nodes.node("Sub", "low", first, reach), nodes.node("Add", "high", first, reach)
    else:
        middle = nodes.node("Mul", "middle", nodes.node("Add", "both", first, second), half)
        ends = middle, nodes.node("Sub", "size", second, first)
    return nodes.node("Concat", "turned", *ends, axis=2)


def _pixels(nodes: Nodes, image: str, sides: list[int | None]) -> str:
    """(4,) float32: width, height, width, height of the input."""
    height, width = sides[2:]
    if height is not None and width is not None:
        return nodes.floats("input_wh", width, height, width, height)
    shape = nodes.node("Shape", "input_shape", image)
    return nodes.to_float("input_wh", nodes.node("Gather", "input_sides", shape, nodes.integers("whwh", 3, 2, 3, 2)))


def _decoded(nodes: Nodes, boxes: str, reading: Reading, sides: list[int | None], size_hw: tuple[int, int]) -> str:
    """Offsets in cells and logarithms of sizes, as YOLOX leaves them, in pixels."""
    if reading.grid is None or None in sides[2:]:
        raise GraphError(
            f"the network leaves its boxes in cells of a grid ({reading.family}) and its input size open",
            remedy="export it with a fixed input size",
        )
    step = nodes.constant("step", reading.grid.steps(size_hw).reshape(1, -1, 1))
    cell = nodes.constant("cell", reading.grid.corners(size_hw)[None].astype(np.float32))
    offset, size = nodes.part("offset", boxes, 0, 2, 2), nodes.part("size_log", boxes, 2, BOX_ROWS, 2)
    centre = nodes.node("Mul", "centre", nodes.node("Add", "in_cells", offset, cell), step)
    return nodes.node(
        "Concat", "decoded", centre, nodes.node("Mul", "sizes", nodes.node("Exp", "grown", size), step), axis=2
    )


def _scores(nodes: Nodes, every: str, reading: Reading, classes: int) -> str:
    """(N, rows, classes), 0..1."""
    first = BOX_ROWS + int(reading.objectness)
    scores = nodes.part("class_scores", every, first, first + classes, 2)
    if not reading.objectness:
        return scores
    return nodes.node("Mul", "scores", scores, nodes.part("objectness", every, BOX_ROWS, first, 2))


def _chosen(nodes: Nodes, every: str, classes: int) -> list[str]:
    """Score and number of the best class, (N, rows, 1) each."""
    scores = nodes.part("class_scores", every, BOX_ROWS, BOX_ROWS + classes, 2)
    label = nodes.node("ArgMax", "label_id", scores, axis=2, keepdims=1)
    return [nodes.largest("score", scores, 2), nodes.to_float("label", label)]


def _set_output(network: onnx.ModelProto, name: str, shape: tuple[int | str, ...]) -> None:
    """One output, and nothing that only the others needed."""
    import onnx

    del network.graph.output[:]
    network.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    needed, kept = {name}, []
    for node in reversed(network.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed.update(_captured(node))
            kept.append(node)
    del network.graph.node[:]
    network.graph.node.extend(kept[::-1])
    if not any(attribute.HasField("g") for node in kept for attribute in node.attribute):
        drop_unread(network.graph)


def _captured(node: onnx.NodeProto) -> set[str]:
    """What the subgraphs of a node read from outside."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    read = {name for graph in graphs for inner in graph.node for name in inner.input}
    return read.union(*(_captured(inner) for graph in graphs for inner in graph.node))
