"""Instrument: variants of a graph that measure its tensors, and mixtures of it and its quantized form.

Of a tensor a few numbers are returned, never an activation.

Measuring what layers cost takes a graph for every set of them. Its quantized weights are computed once; a mixture only
chooses which of two tensors each changed input reads. One graph that could be switched from outside would compute
both and let ONNX Runtime fuse nothing: a run of it takes twice (trained nano) to five times (YOLOX-nano) as long, more
than making a session a mixture costs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.graph.passes.fp16 import float_tensors
from vajra_edge.graph.topology import Wiring, key, load, opset_of, raise_opset, serialize

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


class Mixtures:
    """All mixtures of two graphs.

    Args:
        onnx_bytes: the FP32 graph.
        quantized: the same graph after ``qdq.quantize``, and ``qoperator.to_qlinear`` if that is what will run.
        units: keys of the nodes that compute in INT8 or not, at least one.
        output: the tensor that becomes the only output; what does not lead to it goes.

    Attributes:
        places: where each unit first changes something, as a position among the nodes of the quantized graph.
        length: the number of those nodes.
    """

    def __init__(self, onnx_bytes: bytes, quantized: bytes, units: Sequence[str], output: str) -> None:
        mixed = Wiring(load(quantized))
        plain = Wiring(raise_opset(load(onnx_bytes), opset_of(mixed.model)))
        self._nodes = mixed.nodes
        self._constants = {**plain.tensors, **mixed.tensors}
        self._plain_inputs = _plain_inputs(mixed, plain, units)
        self._output = output
        self._frame = _frame(mixed.model)
        self.length = len(self._nodes)
        self.places = dict.fromkeys(units, self.length)
        for at, node in reversed(list(enumerate(self._nodes))):
            self.places |= {unit: at for _, _, unit in self._plain_inputs.get(key(node), ())}

    def graph(
        self,
        on: AbstractSet[str],
        known: Mapping[str, NDArray[Any]] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> bytes:
        """The network with some units in INT8 and all else in FP32.

        Args:
            on: the units in INT8; changed inputs of other nodes go with the nearest unit.
            known: values of tensors that become inputs, so that nothing before them is computed.
            outputs: tensors to give instead of the usual output.
        """
        known, outputs = known or {}, outputs or [self._output]
        nodes = _leading_to(outputs, [self._mixed(node, on) for node in self._nodes], known)
        read = dict.fromkeys(name for node in nodes for name in node.input)
        made = type(self._frame)()
        made.CopyFrom(self._frame)
        made.graph.node.extend(nodes)
        made.graph.initializer.extend(self._constants[name] for name in read if name in self._constants)
        made.graph.input.extend(_described(name, value) for name, value in known.items())
        for name in outputs:
            made.graph.output.add(name=name)
        return serialize(made)

    def crossing(self, place: int) -> list[str]:
        """The tensors that the FP32 network makes before a position of ``places`` and reads from there on."""
        at = {key(node): position for position, node in enumerate(self._nodes)}
        nodes = _leading_to([self._output], [self._mixed(node, frozenset()) for node in self._nodes])
        later = {name for node in nodes if at[key(node)] >= place for name in node.input} | {self._output}
        return [name for node in nodes if at[key(node)] < place for name in node.output if name in later]

    def _mixed(self, node: Any, on: AbstractSet[str]) -> Any:
        changed = [(slot, name) for slot, name, unit in self._plain_inputs.get(key(node), ()) if unit not in on]
        if not changed:
            return node
        made = type(node)()
        made.CopyFrom(node)
        for slot, name in changed:
            made.input[slot] = name
        return made


def _plain_inputs(mixed: Wiring, plain: Wiring, units: Sequence[str]) -> dict[str, list[tuple[int, str, str]]]:
    """By node: each input in which the two graphs differ, what it reads in FP32, and the unit that decides."""
    before = {key(node): node for node in plain.nodes}
    owners = _Owners(plain, units)
    return {
        key(node): [
            (slot, then, owners.of(node, then))
            for slot, (now, then) in enumerate(zip(node.input, before[key(node)].input, strict=True))
            if now != then
        ]
        for node in mixed.nodes
        if key(node) in before
    }


def _frame(model: Any) -> Any:
    """The model without nodes, constants and outputs."""
    frame = type(model)()
    frame.CopyFrom(model)
    for part in (frame.graph.node, frame.graph.initializer, frame.graph.output):
        del part[:]
    return frame


def _described(name: str, value: NDArray[Any]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


class _Owners:
    """Which unit decides about an input: its own, else the nearest unit before it, else the nearest behind it."""

    def __init__(self, wiring: Wiring, units: Sequence[str]) -> None:
        self.wiring = wiring
        self.units = units
        self.known = frozenset(units)

    def of(self, node: Any, tensor: str) -> str:
        if key(node) in self.known:
            return key(node)
        for behind in (False, True):
            pending, seen = [tensor], {tensor}
            for name in pending:
                makers = [self.wiring.producer[name]] if name in self.wiring.producer else []
                for near in self.wiring.readers[name] if behind else makers:
                    if key(near) in self.known:
                        return key(near)
                    further = near.output if behind else self.wiring.activations(near)
                    pending += [found for found in further if found not in seen]
                    seen.update(further)
        return self.units[0]


def _leading_to(outputs: Sequence[str], nodes: Sequence[Any], known: Container[str] = ()) -> list[Any]:
    """The nodes that ``outputs`` depend on beside what is ``known``, in the order they had."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name not in known)
            kept.append(node)
    return kept[::-1]
