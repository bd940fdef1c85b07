"""A tiny real network in the YOLO layout whose detections are known: a red cell is a person, a green one a car.

Every 32 x 32 pixel cell of the input is one anchor. Five stride-2 convolutions average it per colour, a 1 x 1
convolution with a sigmoid says how red and how green it is, and the box is a fixed square around its centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STRIDE = 32
BOX_PX = 28.0
"""Side of every box; boxes of neighbouring cells do not overlap."""
NAMES = ("person", "car")
RED, GREEN, GREY = (40, 40, 255), (40, 255, 40), (114, 114, 114)  # BGR
_LEVELS = 5


@dataclass(frozen=True)
class Scene:
    """An image and what the network finds in it.

    Attributes:
        image: (height, width, 3) uint8 BGR.
        xyxy: (n, 4) float32 in image pixels; the image has the input's size, so in input pixels too.
        class_id: (n,) int32.
    """

    image: NDArray[np.uint8]
    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int32]


def scene(side_px: int = 256, objects: int = 6, seed: int = 0) -> Scene:
    """``objects`` red and green cells, alternating, on grey, at places the seed chooses."""
    cells = side_px // STRIDE
    places = np.random.default_rng(seed).permutation(cells * cells)[:objects]
    image = np.full((side_px, side_px, 3), GREY, np.uint8)
    boxes = []
    for number, place in enumerate(places):
        row, column = divmod(int(place), cells)
        top, left = row * STRIDE, column * STRIDE
        image[top : top + STRIDE, left : left + STRIDE] = (RED, GREEN)[number % 2]
        x, y = left + STRIDE / 2, top + STRIDE / 2
        boxes.append((x - BOX_PX / 2, y - BOX_PX / 2, x + BOX_PX / 2, y + BOX_PX / 2))
    class_id = np.arange(objects, dtype=np.int32) % 2
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), class_id)


def blob(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(1, 3, H, W) RGB 0..1 of an image that has the input's size."""
    return np.ascontiguousarray(image[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def network(
    side_px: int = 256,
    *,
    batch: int | None = 1,
    gain: float = 20.0,
    channels: int = 3,
    metadata: bool = True,
    nan: bool = False,
    open_size: bool = False,
) -> bytes:
    """The network as serialized ONNX, opset 17, output ``output0`` (N, 6, anchors).

    Args:
        side_px: height and width of the input; a multiple of 32.
        batch: N, or None for a dynamic one.
        gain: how steep the score is; another one makes other weights with almost the same detections.
        channels: of the averaging convolutions; from 16 on INT8 is worth their while.
        metadata: write names, stride and size as upstream does.
        nan: divide the scores by zero.
        open_size: take any multiple of 32 as height and width.
    """
    cells = side_px // STRIDE
    nodes, constants, last = [], [], "images"
    for level in range(_LEVELS):
        constants.append(numpy_helper.from_array(_average(channels, 3 if level == 0 else channels), f"average{level}"))
        nodes.append(
            helper.make_node("Conv", [last, f"average{level}"], [f"mean{level}"], kernel_shape=[2, 2], strides=[2, 2])
        )
        last = f"mean{level}"
    constants += _head(cells, gain, channels)
    placing = _counted() if open_size else [helper.make_node("Add", ["zeros", "boxes"], ["boxes4"])]
    nodes += [
        helper.make_node("Conv", [last, "colour", "threshold"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores4"]),
        helper.make_node("Conv", [last, "nothing"], ["zeros"]),
        *placing,
        helper.make_node("Concat", ["boxes4", "scores4"], ["all4"], axis=1),
        helper.make_node("Reshape", ["all4", "shape"], ["flat" if nan else "output0"]),
    ]
    if nan:
        constants.append(numpy_helper.from_array(np.zeros((1, 6, 1), np.float32), "none"))
        nodes += [
            helper.make_node("Mul", ["flat", "none"], ["zero"]),
            helper.make_node("Div", ["zero", "zero"], ["output0"]),
        ]
    if open_size:
        constants = [one for one in constants if one.name != "boxes"] + _counting()
    shape = [batch or "batch", 3, *(("height", "width") if open_size else (side_px, side_px))]
    anchors = "anchors" if open_size else cells * cells
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [batch or "batch", 6, anchors])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata:
        names = dict(enumerate(NAMES))
        fields = {"names": names, "stride": STRIDE, "task": "detect", "batch": batch or 1, "imgsz": [side_px, side_px]}
        helper.set_model_props(made, {key: str(value) for key, value in fields.items()})
    onnx.checker.check_model(made)
    return made.SerializeToString()


def dazzled(content: bytes, above: float = 0.9) -> bytes:
    """The network with an output that is no number for pictures whose mean, 0..1, is ``above`` that: 0 divided by 0."""
    made = onnx.load_from_string(content)
    output = made.graph.output[0].name
    for node in made.graph.node:
        node.output[:] = [f"{name}_seen" if name == output else name for name in node.output]
    bound = [numpy_helper.from_array(np.float32(above), "bound"), numpy_helper.from_array(np.array([2]), "last_axis")]
    made.graph.initializer.extend(bound)
    made.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["images"], ["of_colours"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["of_colours"], ["of_pictures"], axes=[1], keepdims=1),
            helper.make_node("Unsqueeze", ["of_pictures", "last_axis"], ["brightness"]),
            helper.make_node("Less", ["brightness", "bound"], ["bearable_flag"]),
            helper.make_node("Cast", ["bearable_flag"], ["bearable"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["bearable", "bearable"], ["one_or_none"]),
            helper.make_node("Mul", [f"{output}_seen", "one_or_none"], [output]),
        ]
    )
    onnx.checker.check_model(made)
    return made.SerializeToString()


def _counted() -> list[onnx.NodeProto]:
    """Centres of as many cells as there are, counted along both axes."""
    return [
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("CumSum", ["ones", "across"], ["columns"]),
        helper.make_node("CumSum", ["ones", "down"], ["rows"]),
        helper.make_node("Mul", ["columns", "column_px"], ["x"]),
        helper.make_node("Mul", ["rows", "row_px"], ["y"]),
        helper.make_node("Add", ["x", "y"], ["ends"]),
        helper.make_node("Add", ["ends", "sizes"], ["boxes4"]),
    ]


def _counting() -> list[TensorProto]:
    rows = {
        "column_px": [STRIDE, 0, 0, 0],
        "row_px": [0, STRIDE, 0, 0],
        "sizes": [-STRIDE / 2, -STRIDE / 2, BOX_PX, BOX_PX],
    }
    made = [numpy_helper.from_array(np.array(row, np.float32).reshape(1, 4, 1, 1), name) for name, row in rows.items()]
    axes = [numpy_helper.from_array(np.array(axis), name) for name, axis in (("across", 3), ("down", 2))]
    return [*made, *axes, numpy_helper.from_array(np.float32(1.0), "one")]


def _average(channels: int, inputs: int) -> NDArray[np.float32]:
    weights = np.zeros((channels, inputs, 2, 2), np.float32)
    for channel in range(channels):
        weights[channel, channel % inputs] = 0.25
    return weights


def _head(cells: int, gain: float, channels: int) -> list[TensorProto]:
    colour = np.zeros((2, channels, 1, 1), np.float32)
    colour[:, :3, 0, 0] = gain * np.array([[1, -0.5, -0.5], [-0.5, 1, -0.5]])
    centres = (np.arange(cells, dtype=np.float32) + 0.5) * STRIDE
    x, y = np.meshgrid(centres, centres)
    boxes = np.stack([x, y, np.full_like(x, BOX_PX), np.full_like(x, BOX_PX)])[None]
    return [
        numpy_helper.from_array(colour, "colour"),
        numpy_helper.from_array(np.full(2, -0.5 * gain, np.float32), "threshold"),
        numpy_helper.from_array(np.zeros((4, channels, 1, 1), np.float32), "nothing"),
        numpy_helper.from_array(boxes, "boxes"),
        numpy_helper.from_array(np.array([0, 6, -1]), "shape"),
    ]
