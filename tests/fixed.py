"""A network in the YOLO layout that finds the same boxes in every picture: only pictures and labels matter then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 64
Row = tuple[int, float, float, float, float, float]
"""Class id, confidence, and centre x, centre y, width and height in pixels of the input."""


def network(path: Path, names: Sequence[str], rows: Sequence[Row]) -> Path:
    """Write it; its input is (1, 3, 64, 64)."""
    raw = np.zeros((1, 4 + len(names), max(len(rows), 8)), np.float32)
    raw[0, :4, len(rows) :] = 1
    for at, (label, confidence, *box) in enumerate(rows):
        raw[0, :4, at], raw[0, 4 + label, at] = box, confidence
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["raw", "nothing"], ["output0"]),
    ]
    constants = [numpy_helper.from_array(np.zeros(1, np.float32), "zero"), numpy_helper.from_array(raw, "raw")]
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(raw.shape))],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=9)
    fields = {"stride": 32, "task": "detect", "imgsz": [SIDE_PX, SIDE_PX], "names": dict(enumerate(names))}
    helper.set_model_props(made, {key: str(value) for key, value in fields.items()})
    onnx.save(made, str(path))
    return path
