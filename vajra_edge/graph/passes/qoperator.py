"""Quantized operators: the INT8 graph in the form that ONNX Runtime's CPU kernels fuse.

TensorRT wants Q/DQ on inputs of layers only. ONNX Runtime computes a convolution in INT8 only where its output is
quantized too and its bias is INT32, and computes SiLU in INT8 where its parts are; anything else runs in FP32 between
conversions, slower than FP32 itself (measured on one Xeon with VNNI, trained nano at 640, 4 threads: FP32 65 ms,
inputs only 111 ms, this form 41 ms). In exchange activations are unsigned with a zero point, so that the short
negative tail of SiLU takes a few levels instead of half of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.graph.passes.qdq import BIASED
from vajra_edge.graph.topology import Wiring, drop_unread, key, load, serialize

STEPS = 255
"""Of unsigned 8 bits."""

SILU_FLOOR = -8.0
"""What is below it before SiLU may be clipped to it: SiLU(-8) is -0.003, and layers reach -50 where nothing is seen.
Without this most of the 255 steps would be spent where SiLU gives 0, and few where its values differ."""

ClipLimits = Mapping[str, tuple[float, float]]


def to_qlinear(onnx_bytes: bytes, limits: ClipLimits) -> bytes:
    """Quantize what lies between INT8 layers too.

    Args:
        onnx_bytes: a graph made by ``qdq.quantize``.
        limits: smallest and largest value by tensor; at least of every layer's inputs and outputs.

    Returns:
        The serialized graph. Layers that ``qdq`` left in FP32 read what they read before.
    """
    wiring = Wiring(load(onnx_bytes))
    layers = [node for node in wiring.nodes if node.op_type == "Conv" and _is_int8(wiring, node)]
    grids = _existing(wiring, limits)
    for name, grid in grids.items():
        _write(wiring, name, grid)
    wanted: dict[str, tuple[float, float]] = {}
    for node in layers:
        wanted |= _behind(wiring, node, limits)
    fresh = {name: span for name, span in wanted.items() if name not in grids}
    _read_quantized(wiring, grids)
    nodes: list[Any] = []
    for node in wiring.nodes:
        if node in layers:
            nodes += _integer_bias(wiring, node, grids)
        nodes.append(node)
        for name in node.output:
            if name in fresh:
                nodes += _pair(wiring, name, _grid(*fresh[name]))
    del wiring.model.graph.node[:]
    wiring.model.graph.node.extend(nodes)
    drop_unread(wiring.model.graph)
    return serialize(wiring.model)


def _is_int8(wiring: Wiring, node: Any) -> bool:
    maker = wiring.producer.get(node.input[1])
    return maker is not None and maker.op_type == "DequantizeLinear"


def _grid(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point that hold ``low`` to ``high`` and hold 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / STEPS, float(np.finfo(np.float32).tiny)))
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, STEPS))


def _existing(wiring: Wiring, limits: ClipLimits) -> dict[str, tuple[np.float32, np.uint8]]:
    """The new grid of each activation that is quantized already: what was clipped stays clipped."""
    grids = {}
    for node in wiring.nodes:
        if node.op_type == "QuantizeLinear":
            name = node.input[0]
            scale = wiring.array(node.input[1])
            amax = float(np.asarray(scale) * 127)
            low, high = limits.get(name, (-amax, amax))
            grids[name] = _grid(max(low, -amax), min(high, amax))
    return grids


def _behind(wiring: Wiring, node: Any, limits: ClipLimits) -> dict[str, tuple[float, float]]:
    """What a layer's output goes through on its way to other INT8 layers: itself, and SiLU where that follows."""
    made = node.output[0]
    found = {made: limits[made]} if made in limits else {}
    readers = wiring.readers[made]
    gate = next((reader for reader in readers if reader.op_type == "Sigmoid"), None)
    product = next((reader for reader in readers if reader.op_type == "Mul"), None)
    if not found or gate is None or product is None or set(product.input) != {made, gate.output[0]}:
        return found
    if len(readers) == len((gate, product)):
        found[made] = (max(limits[made][0], SILU_FLOOR), limits[made][1])
    found[gate.output[0]] = (0.0, 1.0)
    ended = product.output[0]
    if ended in limits and not any(_is_float_layer(wiring, reader) for reader in wiring.readers[ended]):
        found[ended] = limits[ended]
    return found


def _is_float_layer(wiring: Wiring, node: Any) -> bool:
    return wiring.weight(node) is not None and not _is_int8(wiring, node)


def _read_quantized(wiring: Wiring, names: Iterable[str]) -> None:
    """Every reader of a quantized tensor but FP32 layers reads its INT8 form, so that the float one is never made."""
    for name in names:
        readers = [reader for reader in wiring.readers[name] if reader.op_type != "QuantizeLinear"]
        if any(_is_float_layer(wiring, reader) for reader in readers):
            continue
        for reader in readers:
            reader.input[:] = [f"{name}_dq" if used == name else used for used in reader.input]


def _integer_bias(wiring: Wiring, node: Any, grids: Mapping[str, tuple[np.float32, np.uint8]]) -> Iterable[Any]:
    """INT32 in steps of input scale times weight scale, which is what the sums are counted in."""
    from onnx import helper

    weight_scale = wiring.array(wiring.producer[node.input[1]].input[1])
    bias = wiring.array(node.input[2]) if len(node.input) == BIASED else None
    source = node.input[0].removesuffix("_dq")
    if bias is None or weight_scale is None or source not in grids:
        return
    step = (weight_scale * grids[source][0]).astype(np.float32)
    most = np.iinfo(np.int32).max // 2
    name = f"{key(node)}_bias"
    _constant(wiring, f"{name}_int32", np.clip(np.rint(bias / step), -most, most).astype(np.int32))
    _constant(wiring, f"{name}_scale", step)
    _constant(wiring, f"{name}_zero", np.zeros(step.shape, np.int32))
    parts = [f"{name}_{part}" for part in ("int32", "scale", "zero")]
    node.input[2] = f"{name}_dq"
    yield helper.make_node("DequantizeLinear", parts, [f"{name}_dq"], name=f"{name}_dq", axis=0)


def _pair(wiring: Wiring, name: str, grid: tuple[np.float32, np.uint8]) -> Iterable[Any]:
    """A new Q/DQ pair; every reader of ``name`` reads it."""
    from onnx import helper

    if name in wiring.outputs:
        return
    for reader in wiring.readers[name]:
        reader.input[:] = [f"{name}_dq" if used == name else used for used in reader.input]
    _write(wiring, name, grid)
    parts = [f"{name}_scale", f"{name}_zero"]
    yield helper.make_node("QuantizeLinear", [name, *parts], [f"{name}_q"], name=f"{name}_q")
    yield helper.make_node("DequantizeLinear", [f"{name}_q", *parts], [f"{name}_dq"], name=f"{name}_dq")


def _write(wiring: Wiring, name: str, grid: tuple[np.float32, np.uint8]) -> None:
    _constant(wiring, f"{name}_scale", np.array(grid[0], np.float32))
    _constant(wiring, f"{name}_zero", np.array(grid[1], np.uint8))


def _constant(wiring: Wiring, name: str, value: NDArray[Any]) -> None:
    from onnx import numpy_helper

    tensor = numpy_helper.from_array(value, name)
    if name in wiring.tensors:
        wiring.tensors[name].CopyFrom(tensor)
    else:
        wiring.model.graph.initializer.append(tensor)
        wiring.tensors[name] = wiring.model.graph.initializer[-1]
