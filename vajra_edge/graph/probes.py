"""Probes: variants of a graph that measure its tensors and return a few numbers of each, never an activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.graph.half import float_tensors
from vajra_edge.graph.proto import serialize
from vajra_edge.graph.wiring import Wiring, load, raise_opset

SCATTER_OPSET = 16
"""First operator set whose ScatterElements adds, which is how values are counted into bins."""

PREFIX = "/probe/"
LOW, HIGH, MEAN, COUNTS = (f"{PREFIX}{name}" for name in ("low", "high", "mean/", "bins/"))
"""Names of the outputs; the last two are followed by the tensor's name."""

FLOAT = np.dtype(np.float32)


def measurable(onnx_bytes: bytes) -> list[str]:
    """Every float32 tensor that the graph computes or is given, in graph order."""
    wiring = Wiring(load(onnx_bytes))
    floats = float_tensors(wiring)
    made = [*wiring.inputs, *wiring.producer]
    return [name for name in made if name in floats]


def channelled(onnx_bytes: bytes) -> list[str]:
    """The tensors that convolutions read: (N, C, H, W), of which the mean of each channel is worth knowing."""
    wiring = Wiring(load(onnx_bytes))
    return sorted({node.input[0] for node in wiring.layers() if node.op_type == "Conv"})


def extremes(onnx_bytes: bytes, tensors: Sequence[str], means: Sequence[str]) -> bytes:
    """A graph with the outputs ``/probe/low``, ``/probe/high`` (one float a tensor) and ``/probe/mean/<tensor>``.

    Args:
        onnx_bytes: the graph to measure.
        tensors: whose smallest and largest value are wanted.
        means: (N, C, H, W) tensors whose mean of each channel is wanted.
    """
    probe = _Probe(onnx_bytes)
    for kind, name in (("ReduceMin", "low"), ("ReduceMax", "high")):
        parts = [probe.node(kind, f"{name}/{tensor}", tensor, keepdims=0) for tensor in tensors]
        rows = [probe.node("Reshape", f"{part}_row", part, probe.constant("one", np.array([1]))) for part in parts]
        probe.output(probe.node("Concat", name, *rows, axis=0))
    for tensor in means:
        pooled = probe.node("GlobalAveragePool", f"pooled/{tensor}", tensor)
        probe.output(probe.node("Flatten", f"mean/{tensor}", pooled))
    return probe.finish()


def outputs(onnx_bytes: bytes, tensors: Sequence[str]) -> bytes:
    """The graph with nothing but ``tensors`` as outputs, whole: for a library that cannot compile the reductions.

    Args:
        onnx_bytes: the graph to measure.
        tensors: made by nodes, float32.
    """
    probe = _Probe(onnx_bytes)
    for tensor in tensors:
        probe.output(tensor)
    return probe.finish()


def histograms(onnx_bytes: bytes, amax: Mapping[str, float], bins: int) -> bytes:
    """A graph with one output (bins,) int32 a tensor, ``/probe/bins/<tensor>``: counts of |x| from 0 to its amax.

    Args:
        onnx_bytes: the graph to measure.
        amax: largest magnitude by tensor; all above 0.
        bins: equal bins.
    """
    probe = _Probe(onnx_bytes, SCATTER_OPSET)
    empty = probe.constant("empty", np.zeros(bins, np.int32))
    last = probe.constant("last", np.array(bins - 1, np.int64))
    flat = probe.constant("flat", np.array([-1]))
    for tensor, most in amax.items():
        factor = probe.constant(f"factor/{tensor}", np.array(bins / most, np.float32))
        scaled = probe.node("Mul", f"scaled/{tensor}", probe.node("Abs", f"abs/{tensor}", tensor), factor)
        index = probe.node("Min", f"index/{tensor}", probe.to_int64(f"floor/{tensor}", scaled), last)
        row = probe.node("Reshape", f"row/{tensor}", index, flat)
        ones = probe.ones(f"ones/{tensor}", row)
        counts = probe.node("ScatterElements", f"bins/{tensor}", empty, row, ones, axis=0, reduction="add")
        probe.output(counts, np.dtype(np.int32))
    return probe.finish()


class _Probe:
    """Appends nodes to a copy of a graph and makes their results its only outputs."""

    def __init__(self, onnx_bytes: bytes, least_opset: int = 0) -> None:
        self.model = raise_opset(load(onnx_bytes), least_opset)
        self.constants: set[str] = set()
        del self.model.graph.output[:]

    def constant(self, name: str, value: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants.add(name)
            self.model.graph.initializer.append(numpy_helper.from_array(value, PREFIX + name))
        return PREFIX + name

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        made = name if name.startswith(PREFIX) else PREFIX + name
        self.model.graph.node.append(helper.make_node(kind, inputs, [made], made, **attributes))
        return made

    def to_int64(self, name: str, value: str) -> str:
        from onnx import TensorProto

        return self.node("Cast", name, value, to=TensorProto.INT64)

    def ones(self, name: str, like: str) -> str:
        from onnx import numpy_helper

        shape = self.node("Shape", f"{name}_shape", like)
        return self.node("ConstantOfShape", name, shape, value=numpy_helper.from_array(np.array([1], np.int32)))

    def output(self, name: str, kind: np.dtype[Any] = FLOAT) -> None:
        """Make a tensor an output, with its type, without which TensorRT's parser refuses it."""
        from onnx import helper

        typed = helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), None)
        self.model.graph.output.append(typed)

    def finish(self) -> bytes:
        self._settle()
        return serialize(self.model)

    def _settle(self) -> None:
        """Move each node right behind the last one that it reads, so that a tensor need not wait for its probe."""
        nodes = self.model.graph.node
        place: dict[str, int] = {}
        order = []
        for number, node in enumerate(nodes):
            probes = node.output[0].startswith(PREFIX)
            at = max((place.get(name, -1) for name in node.input), default=-1) if probes else number
            place.update(dict.fromkeys(node.output, at))
            order.append((at, number))
        settled = [nodes[number] for _, number in sorted(order)]
        del nodes[:]
        nodes.extend(settled)
