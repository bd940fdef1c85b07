"""Small networks with the output of every family: one photo's worth of known boxes, wrapped as each exporter does.

Every network finds the same: ``BOXES`` in pixels of a 64 x 64 input, whatever it is shown. What a picture adds is
multiplied by zero, so that the network has to be run and its values are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vajra_edge.graph.anchors import Grid

SIDE = 64
NAMES = ("person", "car", "dog")
GRID, GRID3 = Grid((8, 16, 32), 1), Grid((8, 16, 32), 3)
CELLS = (9, 27, 50)
"""Anchors of the first level that find something: centres at (12, 12), (28, 28), (20, 52)."""
SCORES = (0.9, 0.8, 0.7)
SIZE = 12.0
BOXES = np.array([(6, 6, 18, 18), (22, 22, 34, 34), (14, 46, 26, 58)], np.float32)
"""x1, y1, x2, y2 of what is found; of classes 0, 1 and 2."""

Array = NDArray[np.float32]


def table(grid: Grid, *, objectness: bool, classes: int = len(NAMES)) -> Array:
    """(anchors, 4 or 5 + classes): every anchor a box around its cell, three of them with a score."""
    steps = grid.steps((SIDE, SIDE))
    made = np.zeros((len(steps), 4 + int(objectness) + classes), np.float32)
    made[:, :2] = (grid.corners((SIDE, SIDE)) + 0.5) * steps[:, None]
    made[:, 2:4] = SIZE
    if objectness:
        made[:, 4] = 0.01
        made[:, 5:] = 0.5
    for label, (cell, score) in enumerate(zip(CELLS, SCORES, strict=True)):
        if label < classes:
            made[cell, 4 + int(objectness) + label] = score
            if objectness:
                made[cell, 4], made[cell, 5 + label] = score, 1.0
    return made


def corners_of(rows: Array) -> Array:
    return np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], 1)


def yolov8() -> Array:
    return table(GRID, objectness=False).T


def transposed() -> Array:
    return table(GRID, objectness=False)


def shares() -> Array:
    made = table(GRID, objectness=False)
    made[:, :4] /= SIDE
    return made.T


def yolov5() -> Array:
    return table(GRID3, objectness=True)


def yolov6() -> Array:
    made = table(GRID, objectness=True)
    made[:, 5:] *= (made[:, 4:5] > 0.5) * made[:, 4:5]
    made[:, 4] = 1
    return made


def yolox() -> Array:
    made, steps = table(GRID, objectness=True), GRID.steps((SIDE, SIDE))[:, None]
    made[:, :2] = made[:, :2] / steps - GRID.corners((SIDE, SIDE)) + np.linspace(0, 0.01, len(made))[:, None]
    made[:, 2:4] = np.log(made[:, 2:4] / steps)
    for cell, box in zip(CELLS, BOXES, strict=True):
        made[cell, :2] = (box[:2] + box[2:]) / 2 / steps[cell] - GRID.corners((SIDE, SIDE))[cell]
    return made


def end_to_end() -> Array:
    made = np.zeros((30, 6), np.float32)
    made[:3, :4], made[:3, 4], made[:3, 5] = BOXES, SCORES, range(3)
    return made[::-1].copy()


def rtdetr() -> Array:
    made = np.full((30, 4 + len(NAMES)), 0.01, np.float32)
    for at, (box, score) in enumerate(zip(BOXES, SCORES, strict=True)):
        made[at, :4] = [*(box[:2] + box[2:]) / 2 / SIDE, *(box[2:] - box[:2]) / SIDE]
        made[at, 4 + at] = score
    return made


FAMILIES: Mapping[str, Callable[[], Array]] = {
    "YOLOv8": yolov8,
    "YOLOv8 transposed": transposed,
    "YOLOv8 with boxes of 0..1": shares,
    "YOLOv5": yolov5,
    "YOLOv6": yolov6,
    "YOLOX": yolox,
    "end to end": end_to_end,
    "RT-DETR": rtdetr,
}
SELF_CHOSEN = frozenset({"end to end", "RT-DETR"})
"""Families that choose their objects themselves: NMS does not apply to them."""


def wrapped(
    *outputs: Array,
    names: tuple[str, ...] | None = NAMES,
    kind: int = TensorProto.FLOAT,
    open_batch: bool = False,
    opset: int = 13,
    channels_last: bool = False,
    inputs: Mapping[str, list[int]] | None = None,
    output_names: tuple[str, ...] = ("output0", "output1", "output2", "output3"),
    **metadata: str,
) -> bytes:
    """A network with these outputs, each of one image.

    Args:
        outputs: without the batch axis, or whole for ranks that have none.
        names: in the metadata; None: there is none.
        kind: of the input and the outputs: FLOAT, FLOAT16, or UINT8 for the input alone.
        open_batch: leave N open.
        opset: of the operators.
        channels_last: the input is (N, H, W, 3).
        inputs: further ones, with their shapes.
        output_names: in order.
        metadata: further entries.
    """
    batch: int | str = "batch" if open_batch else 1
    shape = [batch, SIDE, SIDE, 3] if channels_last else [batch, 3, SIDE, SIDE]
    inner = TensorProto.FLOAT16 if kind == TensorProto.FLOAT16 else TensorProto.FLOAT
    number = np.float16 if inner == TensorProto.FLOAT16 else np.float32
    source, nodes = "images", []
    if kind == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", ["images"], ["floats"], to=inner))
        source = "floats"
    nodes += [
        helper.make_node("ReduceMean", [source], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["none"]),
        helper.make_node("Reshape", ["none", "flat"], ["nothing"]),
    ]
    constants = [
        numpy_helper.from_array(np.zeros(1, number), "zero"),
        numpy_helper.from_array(np.array([-1, 1, 1]), "flat"),
    ]
    values = []
    for name, value in zip(output_names, outputs, strict=False):
        whole = value[None].astype(number)
        constants.append(numpy_helper.from_array(whole, f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "nothing"], [name]))
        values.append(helper.make_tensor_value_info(name, inner, [batch, *value.shape]))
    images = helper.make_tensor_value_info("images", kind, shape)
    further = [
        helper.make_tensor_value_info(*one) for one in ((k, TensorProto.INT64, v) for k, v in (inputs or {}).items())
    ]
    graph = helper.make_graph(nodes, "family", [images, *further], values, constants)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    words = {} if names is None else {"names": str(dict(enumerate(names)))}
    helper.set_model_props(network, {**words, **metadata})
    return network.SerializeToString()


def edited(content: bytes, change: Callable[[onnx.ModelProto], None]) -> bytes:
    network = onnx.load_from_string(content)
    change(network)
    return network.SerializeToString()
