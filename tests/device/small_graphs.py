"""Small quantized graphs, one question to TensorRT each: what of this does the builder take?

Each case is a graph of a few layers with Q/DQ nodes, and how it is built: weakly typed (flags FP16 and INT8) or
strongly typed, with which nodes pinned to FP32. The library's answers are recorded in ``results/`` by ``run.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 32, 40
OPSET = 19


@dataclass(frozen=True)
class Case:
    """One graph and how it is built."""

    name: str
    onnx_bytes: bytes
    strong: bool = False
    pins: tuple[str, ...] = ()


class Drawing:
    """A graph in the making: every method adds nodes and returns the name of the tensor that they make."""

    def __init__(self, *, half: bool = False, channels: int = CHANNELS, opset: int = OPSET) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.half = half
        self.opset = opset
        self.shape = (1, channels, SIDE, SIDE)
        self.random = np.random.default_rng(0)
        self.x = self.node("Cast", "images", to=TensorProto.FLOAT16) if half else "images"
        if not half:
            self.x = self.node("Relu", "images")

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        made = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [made], made, **attributes))
        return made

    def parts(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        made = f"{kind.lower()}_{len(self.nodes)}"
        outputs = [f"{made}_{index}" for index in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, made, **attributes))
        return outputs

    def constant(self, value: Any, kind: Any = None) -> str:
        array = np.asarray(value, kind)
        if self.half and array.dtype == np.float32:
            array = array.astype(np.float16)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def scale(self, value: Any = 0.05) -> str:
        return self.constant(value, np.float32)

    def q(self, tensor: str, scale: Any = 0.05, zero: int = 0, kind: Any = np.int8, **attributes: Any) -> str:
        zeros = np.full(np.shape(scale), zero, kind)
        return self.node("QuantizeLinear", tensor, self.scale(scale), self.constant(zeros), **attributes)

    def dq(self, tensor: str, scale: Any = 0.05, zero: int = 0, kind: Any = np.int8, **attributes: Any) -> str:
        zeros = np.full(np.shape(scale), zero, kind)
        return self.node("DequantizeLinear", tensor, self.scale(scale), self.constant(zeros), **attributes)

    def qdq(self, tensor: str, scale: Any = 0.05, **more: Any) -> str:
        return self.dq(self.q(tensor, scale, **more), scale, **more)

    def weight(self, *shape: int, int8: bool = True, axis: int | None = 0, kind: Any = np.int8) -> str:
        if not int8:
            return self.constant(self.random.normal(0, 0.05, shape), np.float32)
        values = self.constant(self.random.integers(-127, 128, shape), kind)
        if axis is None:
            return self.dq(values, 0.001)
        return self.dq(values, np.full(shape[axis], 0.001), axis=axis)

    def conv(
        self, tensor: str, *, kernel: int = 3, inputs: int = CHANNELS, outputs: int = CHANNELS, groups: int = 1,
        int8: bool = True, axis: int | None = 0, dilation: int = 1, name: str = "",
    ) -> str:  # fmt: skip
        weight = self.weight(outputs, inputs // groups, kernel, kernel, int8=int8, axis=axis)
        bias = self.constant(self.random.normal(0, 0.1, outputs), np.float32)
        pad = dilation * (kernel // 2)
        return self.node(
            "Conv", tensor, weight, bias, name=name,
            kernel_shape=[kernel] * 2, pads=[pad] * 4, group=groups, dilations=[dilation] * 2,
        )  # fmt: skip

    def silu(self, tensor: str) -> str:
        return self.node("Mul", tensor, self.node("Sigmoid", tensor))

    def add(self, *tensors: str, name: str = "") -> str:
        return self.node("Add", *tensors, name=name)

    def finish(self, *tensors: str, kind: int = TensorProto.FLOAT) -> bytes:
        outputs = []
        for tensor in tensors:
            made = (
                self.node("Cast", tensor, to=TensorProto.FLOAT) if self.half and kind == TensorProto.FLOAT else tensor
            )
            outputs.append(helper.make_tensor_value_info(made, kind, None))
        given = [helper.make_tensor_value_info("images", TensorProto.FLOAT, self.shape)]
        graph = helper.make_graph(self.nodes, "small", given, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        return bytes(model.SerializeToString())


def body(g: Drawing) -> str:
    """A float feature map that a float convolution made."""
    return g.silu(g.conv(g.x, int8=False))


def chain(g: Drawing) -> bytes:
    """Convolution, SiLU, convolution: each reads INT8."""
    one = g.silu(g.conv(g.qdq(g.x)))
    return g.finish(g.silu(g.conv(g.qdq(one))))


def residual(g: Drawing, *, shortcut: bool, branch: bool = False, activation: bool = True, both: bool = False) -> bytes:
    """conv(x) + x, then a convolution; x or the branch through INT8; ``both``: the sum is read in float too."""
    x = body(g)
    read = g.qdq(x)
    one = g.silu(g.conv(read))
    two = g.conv(g.qdq(one), name="residual_conv")
    two = g.silu(two) if activation else two
    total = g.add(g.qdq(two) if branch else two, read if shortcut else x, name="residual_add")
    three = g.conv(g.qdq(total))
    return g.finish(g.add(g.silu(three), total) if both else g.silu(three))


def two_residuals(g: Drawing, *, first: bool, second: bool, kernel: int = 1) -> bytes:
    """An attention block's end: proj(a) + x, then mlp(of it) + it; ``first``, ``second``: that shortcut is INT8."""
    x, a = body(g), g.silu(g.conv(g.x, int8=False))
    one = g.add(g.conv(g.qdq(a), kernel=kernel, name="proj"), g.qdq(x) if first else x, name="first_add")
    read = g.qdq(one)
    mlp = g.conv(g.qdq(g.silu(g.conv(read, kernel=1))), kernel=1, name="mlp")
    two = g.add(mlp, read if second else one, name="second_add")
    return g.finish(g.silu(g.conv(g.qdq(two), kernel=1)))


def attention(g: Drawing, *, quantized: bool = True, depthwise: bool = True) -> bytes:
    """Area attention: qkv convolution, softmax(q k) v, a depthwise convolution of v added, projection, residual."""
    x = body(g)
    read = g.qdq(x) if quantized else x
    qkv = g.conv(read, kernel=1, outputs=96, int8=quantized)
    flat = g.node("Reshape", qkv, g.constant([1, 96, SIDE * SIDE], np.int64))
    q, k, v = g.parts("Split", 3, flat, g.constant([32, 32, 32], np.int64), axis=1)
    weights = g.node("Softmax", g.node("MatMul", g.node("Transpose", q, perm=[0, 2, 1]), k), axis=-1)
    mixed = g.node("MatMul", v, g.node("Transpose", weights, perm=[0, 2, 1]))
    image = g.constant([1, 32, SIDE, SIDE], np.int64)
    mixed, v = g.node("Reshape", mixed, image), g.node("Reshape", v, image)
    position = g.conv(g.qdq(v) if depthwise else v, kernel=7, groups=32, int8=depthwise)
    summed = g.add(mixed, position)
    projected = g.conv(g.qdq(summed) if quantized else summed, kernel=1, int8=quantized, name="proj")
    total = g.add(projected, x)
    return g.finish(g.add(g.silu(g.conv(g.qdq(total), kernel=1)), total))


def depthwise(g: Drawing, kernel: int = 3) -> bytes:
    return g.finish(g.silu(g.conv(g.qdq(body(g)), groups=CHANNELS, kernel=kernel)))


def concat(g: Drawing, *, scales: tuple[float, float], behind: bool = False) -> bytes:
    """Two maps joined: quantized each before the join with these scales, or once ``behind`` it."""
    one, two = body(g), g.silu(g.conv(g.x, int8=False))
    if behind:
        joined = g.qdq(g.node("Concat", one, two, axis=1))
    else:
        joined = g.node("Concat", g.qdq(one, scales[0]), g.qdq(two, scales[1]), axis=1)
    return g.finish(g.silu(g.conv(joined, inputs=64)))


def resize(g: Drawing, mode: str = "nearest") -> bytes:
    g.constants.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    large = g.node(
        "Resize", g.qdq(body(g)), "", "scales", mode=mode,
        coordinate_transformation_mode="asymmetric" if mode == "nearest" else "half_pixel", nearest_mode="floor",
    )  # fmt: skip
    return g.finish(g.silu(g.conv(g.qdq(large))))


def pool(g: Drawing, kind: str = "MaxPool") -> bytes:
    made = g.node(kind, g.qdq(body(g)), kernel_shape=[5, 5], pads=[2] * 4)
    return g.finish(g.silu(g.conv(g.qdq(made), kernel=1)))


def activations(g: Drawing, **how: Any) -> bytes:
    """A convolution whose input is quantized in an unusual way."""
    return g.finish(g.silu(g.conv(g.qdq(body(g), **how))))


def weights(g: Drawing, **how: Any) -> bytes:
    return g.finish(g.silu(g.conv(g.qdq(body(g)), **how)))


def int8_output(g: Drawing) -> bytes:
    return g.finish(g.q(g.conv(g.qdq(body(g)))), kind=TensorProto.INT8)


def only_q_of_activation(g: Drawing) -> bytes:
    """A Q/DQ pair between a convolution and its activation."""
    return g.finish(g.silu(g.qdq(g.conv(g.qdq(body(g))))))


def integer_conv(g: Drawing) -> bytes:
    read = g.q(body(g))
    w = g.constant(g.random.integers(-127, 128, (32, 32, 3, 3)), np.int8)
    zero = g.constant(np.zeros((), np.int8))
    made = g.node(
        "QLinearConv",
        read,
        g.scale(),
        zero,
        w,
        g.scale(0.001),
        zero,
        g.scale(),
        zero,
        kernel_shape=[3, 3],
        pads=[1] * 4,
    )
    return g.finish(g.dq(made))


def dynamic_scale(g: Drawing) -> bytes:
    """Scales worked out from each image."""
    read, scale, zero = g.parts("DynamicQuantizeLinear", 3, body(g))
    return g.finish(g.silu(g.conv(g.node("DequantizeLinear", read, scale, zero))))


def measured_scale(g: Drawing) -> bytes:
    x = body(g)
    most = g.node("ReduceMax", g.node("Abs", x), keepdims=0)
    scale = g.node("Div", most, g.constant(127.0, np.float32))
    zero = g.constant(np.zeros((), np.int8))
    read = g.node("DequantizeLinear", g.node("QuantizeLinear", x, scale, zero), scale, zero)
    return g.finish(g.silu(g.conv(read)))


def transposed(g: Drawing, axis: int = 1) -> bytes:
    weight = g.weight(CHANNELS, CHANNELS, 2, 2, axis=axis)
    return g.finish(g.node("ConvTranspose", g.qdq(body(g)), weight, kernel_shape=[2, 2], strides=[2, 2]))


def product(g: Drawing) -> bytes:
    flat = g.node("Reshape", body(g), g.constant([SIDE * SIDE, CHANNELS], np.int64))
    return g.finish(g.node("MatMul", g.qdq(flat), g.weight(CHANNELS, 64, axis=1)))


def int32_bias(g: Drawing) -> bytes:
    bias = g.dq(g.constant(np.arange(CHANNELS), np.int32), np.full(CHANNELS, 1e-4), kind=np.int32, axis=0)
    weight = g.weight(CHANNELS, CHANNELS, 3, 3)
    return g.finish(g.node("Conv", g.qdq(body(g)), weight, bias, kernel_shape=[3, 3], pads=[1] * 4))


def float_weight(g: Drawing) -> bytes:
    """INT8 activations and a weight that stays float."""
    return g.finish(g.silu(g.conv(g.qdq(body(g)), int8=False)))


def float_activation(g: Drawing) -> bytes:
    """An INT8 weight and activations that stay float."""
    return g.finish(g.silu(g.conv(body(g))))


def blocked_weight(g: Drawing) -> bytes:
    weight = g.constant(g.random.integers(-127, 128, (32, 64)), np.int8)
    scales, zeros = g.scale(np.full((2, 64), 0.001)), g.constant(np.zeros((2, 64), np.int8))
    flat = g.node("Reshape", body(g), g.constant([SIDE * SIDE, CHANNELS], np.int64))
    dq = g.node("DequantizeLinear", weight, scales, zeros, axis=0, block_size=16)
    return g.finish(g.node("MatMul", g.qdq(flat), dq))


def mixed_types(g: Drawing) -> bytes:
    """Activations in FP16 beside a weight that DequantizeLinear makes FP32: strong typing has no such product."""
    x = g.node("Cast", body(g), to=TensorProto.FLOAT16)
    return g.finish(g.node("Cast", g.conv(x), to=TensorProto.FLOAT))


def depthwise_to_int8(
    g: Drawing, *, kernel: int = 3, groups: int = CHANNELS, int8: bool = False, act: str = "silu", between: str = ""
) -> bytes:
    """A float depthwise convolution whose activation is quantized; ``between``: what may keep them from one kernel."""
    made = g.conv(g.qdq(g.x) if int8 else g.x, kernel=kernel, groups=groups, int8=int8)
    if between == "activation in FP32":
        made = g.node("Cast", made, to=TensorProto.FLOAT)
    made = g.silu(made) if act == "silu" else g.node("Relu", made)
    if between == "identity":
        made = g.node("Identity", made)
    elif between == "addition":
        made = g.add(made, g.constant(0.0, np.float32))
    elif between:
        g.half = False
        to = made if between == "activation in FP32" else g.node("Cast", made, to=TensorProto.FLOAT)
        quantized = g.q(to)
        g.half = True
        return g.finish(g.conv(g.dq(quantized), kernel=1))
    return g.finish(g.conv(g.qdq(made), kernel=1))


def float32_scale(g: Drawing) -> bytes:
    """FP16 data quantized with FP32 scales."""
    g.constants.append(numpy_helper.from_array(np.array(0.05, np.float32), "step"))
    zero = g.constant(np.zeros((), np.int8))
    read = g.node("QuantizeLinear", body(g), "step", zero)
    return g.finish(g.silu(g.conv(g.dq(read))))


Draw = Callable[[Drawing], bytes]


def _graphs() -> dict[str, tuple[Draw, dict[str, Any]]]:
    plain: dict[str, Draw] = {
        "chain": chain,
        "residual, shortcut int8": lambda g: residual(g, shortcut=True),
        "residual, shortcut float": lambda g: residual(g, shortcut=False),
        "residual, both int8": lambda g: residual(g, shortcut=True, branch=True),
        "residual, branch int8": lambda g: residual(g, shortcut=False, branch=True),
        "residual without activation, shortcut int8": lambda g: residual(g, shortcut=True, activation=False),
        "residual without activation, shortcut float": lambda g: residual(g, shortcut=False, activation=False),
        "residual without activation, shortcut float, sum read in float too": lambda g: residual(
            g, shortcut=False, activation=False, both=True
        ),
        "residual without activation, shortcut int8, sum read in float too": lambda g: residual(
            g, shortcut=True, activation=False, both=True
        ),
        "two residuals, float float": lambda g: two_residuals(g, first=False, second=False),
        "two residuals, float int8": lambda g: two_residuals(g, first=False, second=True),
        "two residuals, int8 float": lambda g: two_residuals(g, first=True, second=False),
        "two residuals, int8 int8": lambda g: two_residuals(g, first=True, second=True),
        "two residuals of 3x3, float int8": lambda g: two_residuals(g, first=False, second=True, kernel=3),
        "attention": attention,
        "attention, its layers float": lambda g: attention(g, quantized=False, depthwise=False),
        "attention, depthwise float": lambda g: attention(g, depthwise=False),
        "depthwise 3x3": depthwise,
        "depthwise 5x5": lambda g: depthwise(g, 5),
        "depthwise 7x7": lambda g: depthwise(g, 7),
        "concat, equal scales": lambda g: concat(g, scales=(0.05, 0.05)),
        "concat, other scales": lambda g: concat(g, scales=(0.05, 0.02)),
        "concat, quantized behind": lambda g: concat(g, scales=(0.05, 0.05), behind=True),
        "resize nearest": resize,
        "resize linear": lambda g: resize(g, "linear"),
        "max pool": pool,
        "average pool": lambda g: pool(g, "AveragePool"),
        "grouped convolution": lambda g: weights(g, groups=4),
        "dilated convolution": lambda g: weights(g, dilation=2),
        "weights by tensor": lambda g: weights(g, axis=None),
        "weights by input channel": lambda g: weights(g, axis=1),
        "weight float": float_weight,
        "activation float": float_activation,
        "activations by channel": lambda g: activations(g, scale=np.full(CHANNELS, 0.05), axis=1),
        "zero point 3": lambda g: activations(g, zero=3),
        "unsigned": lambda g: activations(g, kind=np.uint8),
        "unsigned with zero point 128": lambda g: activations(g, kind=np.uint8, zero=128),
        "scale 0": lambda g: activations(g, scale=0.0),
        "scale negative": lambda g: activations(g, scale=-0.05),
        "scale tiny": lambda g: activations(g, scale=1e-30),
        "scale not finite": lambda g: activations(g, scale=np.inf),
        "int8 output": int8_output,
        "pair between convolution and activation": only_q_of_activation,
        "QLinearConv": integer_conv,
        "dynamic quantization": dynamic_scale,
        "scale computed": measured_scale,
        "transposed convolution by output channel": transposed,
        "transposed convolution by input channel": lambda g: transposed(g, 0),
        "product": product,
        "int32 bias": int32_bias,
    }
    found: dict[str, tuple[Draw, dict[str, Any]]] = {name: (draw, {}) for name, draw in plain.items()}
    found["blocked weight"] = (blocked_weight, {"opset": 21})
    found["5 channels"] = (lambda g: g.finish(g.silu(g.conv(g.qdq(g.x), inputs=5, outputs=5))), {"channels": 5})
    found["3 channels"] = (lambda g: g.finish(g.silu(g.conv(g.qdq(g.x), inputs=3))), {"channels": 3})
    return found


PINNED = {
    "pinned: convolution that reads int8": ("residual, shortcut int8", ("residual_conv",)),
    "pinned: addition behind int8 convolution": ("residual, shortcut int8", ("residual_add",)),
    "pinned: addition of a float shortcut": ("residual without activation, shortcut float", ("residual_add",)),
    "pinned: both": ("residual, shortcut int8", ("residual_conv", "residual_add")),
}


DEPTHWISE: dict[str, dict[str, Any]] = {
    "FP16 depthwise, SiLU, quantizer": {},
    "FP16 depthwise 5x5, SiLU, quantizer": {"kernel": 5},
    "FP16 depthwise, SiLU, identity, quantizer": {"between": "identity"},
    "FP16 depthwise, SiLU, cast to FP32, quantizer": {"between": "cast"},
    "FP16 depthwise, SiLU in FP32, quantizer": {"between": "activation in FP32"},
    "FP16 depthwise, SiLU, addition, quantizer": {"between": "addition"},
    "FP16 depthwise, ReLU, quantizer": {"act": "relu"},
    "FP16 dense, SiLU, quantizer": {"groups": 1},
    "FP16 of 4 groups, SiLU, quantizer": {"groups": 4},
    "INT8 depthwise, SiLU, quantizer": {"int8": True},
}


def cases() -> Iterator[Case]:
    """All of them: each graph weakly and strongly typed, then those with pins, then those of types."""
    graphs = _graphs()
    for name, (draw, how) in graphs.items():
        yield Case(f"weak: {name}", draw(Drawing(**how)))
        yield Case(f"strong: {name}", draw(Drawing(half=True, **how)), strong=True)
    for name, (base, pins) in PINNED.items():
        draw, how = graphs[base]
        yield Case(f"weak: {name}", draw(Drawing(**how)), pins=pins)
    yield Case("strong: FP16 data beside an FP32 weight", mixed_types(Drawing()), strong=True)
    yield Case("strong: FP32 scale of FP16 data", float32_scale(Drawing(half=True)), strong=True)
    for name, how in DEPTHWISE.items():
        yield Case(f"strong: {name}", depthwise_to_int8(Drawing(half=True), **how), strong=True)
    yield Case("strong: FP32 depthwise, SiLU, quantizer", depthwise_to_int8(Drawing()), strong=True)
