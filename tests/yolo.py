"""A small network with every structure of the real ones: SiLU, residuals, split and concat, pooling, depthwise
layers, attention, nearest resize, and a head with distribution focal loss. Its weights are random."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
ANCHORS = (SIDE // 4) ** 2
CLASSES = 2


class Draft:
    """Appends nodes and constants; every method returns the name of what it made."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.dice = np.random.default_rng(seed)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], f"/{name}", **attributes))
        return name

    def conv(
        self, name: str, source: str, inputs: int, outputs: int, side: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        fan = inputs // group * side * side
        weight = self.dice.normal(0, 1.5 / np.sqrt(fan), (outputs, inputs // group, side, side)).astype(np.float32)
        bias = self.dice.normal(0, 0.2, outputs).astype(np.float32)
        parts = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        sides = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [side // 2] * 4, "group": group}
        return self.node("Conv", name, source, *parts, **sides)

    def block(self, name: str, source: str, *sizes: int, **more: int) -> str:
        """Convolution and SiLU."""
        made = self.conv(name, source, *sizes, **more)
        return self.node("Mul", f"{name}_silu", made, self.node("Sigmoid", f"{name}_gate", made))

    def split(self, name: str, source: str, sizes: list[int], axis: int = 1) -> list[str]:
        outputs = [f"{name}{at}" for at in range(len(sizes))]
        lengths = self.constant(f"{name}_sizes", np.array(sizes))
        self.nodes.append(helper.make_node("Split", [source, lengths], outputs, f"/{name}", axis=axis))
        return outputs

    def reshape(self, name: str, source: str, *shape: int) -> str:
        return self.node("Reshape", name, source, self.constant(f"{name}_shape", np.array(shape)))

    def finish(self, output: str, shape: list[int | str], batch: int | None = 1, side: int = SIDE) -> bytes:
        count = batch or "batch"
        graph = helper.make_graph(
            self.nodes,
            "yolo",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [count, 3, side, side])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [count, *shape])],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(made, {"names": "['person', 'car']", "stride": "8", "imgsz": f"[{side}, {side}]"})
        onnx.checker.check_model(made, full_check=True)
        return made.SerializeToString()


def network(*, batch: int | None = 1, seed: int = 0) -> bytes:
    """The network, opset 17, ``images`` (N, 3, 64, 64) to ``output0`` (N, 6, 256)."""
    draft = Draft(seed)
    fine, deep = _backbone(draft)
    up = draft.node("Resize", "up", deep, "", draft.constant("scales", np.array([1, 1, 2, 2], np.float32)))
    neck = draft.block("neck", draft.node("Concat", "joined", up, fine, axis=1), 64, 32)
    return draft.finish(_head(draft, neck), [4 + CLASSES, ANCHORS], batch)


def _backbone(draft: Draft) -> tuple[str, str]:
    first = draft.block("stem", "images", 3, 16, side=3, stride=2)
    down = draft.block("down", first, 16, 32, side=3, stride=2)
    kept, passed = draft.split("halves", draft.block("enter", down, 32, 32), [16, 16])
    inner = draft.block("inner2", draft.block("inner1", passed, 16, 16, side=3), 16, 16, side=3)
    added = draft.node("Add", "added", passed, inner)
    fine = draft.block("leave", draft.node("Concat", "parts", kept, passed, added, axis=1), 48, 32)
    deep = draft.block("depthwise", fine, 32, 32, side=3, stride=2, group=32)
    pooled = draft.node("MaxPool", "pooled", deep, kernel_shape=[5, 5], pads=[2] * 4)
    spread = draft.block("spread", draft.node("Concat", "levels", deep, pooled, axis=1), 64, 32)
    return fine, _attention(draft, spread)


def _attention(draft: Draft, source: str) -> str:
    places = (SIDE // 8) ** 2
    every = draft.reshape("heads", draft.conv("qkv", source, 32, 96), -1, 96, places)
    query, key, value = draft.split("qkv_parts", every, [32, 32, 32])
    turned = draft.node("Transpose", "query_turned", query, perm=[0, 2, 1])
    scores = draft.node("Softmax", "attention", draft.node("MatMul", "product", turned, key), axis=-1)
    turned_back = draft.node("Transpose", "attention_turned", scores, perm=[0, 2, 1])
    mixed = draft.reshape("mixed", draft.node("MatMul", "weighted", value, turned_back), -1, 32, SIDE // 8, SIDE // 8)
    return draft.node("Add", "attended", source, draft.conv("project", mixed, 32, 32))


def _head(draft: Draft, neck: str) -> str:
    sides = draft.conv("box_last", draft.block("box1", neck, 32, 32, side=3), 32, 64)
    classes = draft.block("class2", draft.block("class1", neck, 32, 32, side=3, group=32), 32, 32)
    every = draft.node("Concat", "level", sides, draft.conv("class_last", classes, 32, CLASSES), axis=1)
    box, score = draft.split("both", draft.reshape("flat", every, -1, 64 + CLASSES, ANCHORS), [64, CLASSES])
    bins = draft.node("Transpose", "bins_first", draft.reshape("bins", box, -1, 4, 16, ANCHORS), perm=[0, 2, 1, 3])
    chance = draft.node("Softmax", "chance", bins, axis=1)
    row = draft.constant("row", np.arange(16, dtype=np.float32).reshape(1, 16, 1, 1))
    reach = draft.reshape("reach4", draft.node("Conv", "reach", chance, row), -1, 4, ANCHORS)
    before, behind = draft.split("reaches", reach, [2, 2])
    centres = (np.arange(SIDE // 4, dtype=np.float32) + 0.5) * np.ones((SIDE // 4, 1), np.float32)
    places = draft.constant("places", np.stack([centres, centres.T]).reshape(1, 2, ANCHORS))
    low, high = draft.node("Sub", "low", places, before), draft.node("Add", "high", places, behind)
    two, stride = draft.constant("two", np.array(2, np.float32)), draft.constant("stride", np.array(4, np.float32))
    centre = draft.node("Div", "centre", draft.node("Add", "sum", low, high), two)
    size = draft.node("Sub", "size", high, low)
    boxes = draft.node("Mul", "boxes", draft.node("Concat", "box4", centre, size, axis=1), stride)
    return draft.node("Concat", "output0", boxes, draft.node("Sigmoid", "scores", score), axis=1)


def images(count: int, seed: int = 1, side: int = SIDE) -> NDArray[np.float32]:
    """(count, 3, side, side) float32 0..1: smooth random pictures."""
    coarse = np.random.default_rng(seed).random((count, 3, side // 8, side // 8), np.float32)
    return np.ascontiguousarray(np.kron(coarse, np.ones((1, 1, 8, 8), np.float32)))


def run(onnx_bytes: bytes, batch: NDArray[np.float32], *, written: bool = True, **more: NDArray[Any]) -> NDArray[Any]:
    """The first output by ONNX Runtime; ``written``: operator by operator, nothing fused or reordered."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(None, {"images": batch, **more})[0]
    return found
