"""Nodes: appends named nodes and constants to a network, for the passes that add arithmetic to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vajra_edge.graph.topology import opset_of

if TYPE_CHECKING:
    import onnx

_REDUCE_AXES_AS_INPUT = 18


class Nodes:
    """Appends to one network; every method returns the name of what it made.

    Args:
        network: changed in place.
        prefix: of all names that are made, like ``/nms/``.
        kept: names that get no prefix, for they are outputs.
    """

    def __init__(self, network: onnx.ModelProto, prefix: str, kept: Sequence[str] = ()) -> None:
        self._graph = network.graph
        self._prefix = prefix
        self._kept = frozenset(kept)
        self.opset = opset_of(network)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """A constant tensor."""
        import onnx

        self._graph.initializer.append(onnx.numpy_helper.from_array(value, self._prefix + name))
        return self._prefix + name

    def integers(self, name: str, *values: int) -> str:
        """A constant (n,) int64."""
        return self.constant(name, np.array(values, np.int64))

    def floats(self, name: str, *values: float) -> str:
        """A constant (n,) float32."""
        return self.constant(name, np.array(values, np.float32))

    def nodes(self, kind: str, names: Sequence[str], *inputs: str, **attributes: Any) -> list[str]:
        """A node with as many outputs as ``names``."""
        import onnx

        outputs = [name if name in self._kept else self._prefix + name for name in names]
        self._graph.node.append(onnx.helper.make_node(kind, inputs, outputs, self._prefix + names[0], **attributes))
        return outputs

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        return self.nodes(kind, [name], *inputs, **attributes)[0]

    def part(self, name: str, source: str, first: int, end: int, axis: int) -> str:
        """``source[first:end]`` along one axis."""
        limits = (self.integers(f"{name}_first", first), self.integers(f"{name}_end", end))
        return self.node("Slice", name, source, *limits, self.integers(f"{name}_axis", axis))

    def largest(self, name: str, source: str, axis: int) -> str:
        """The maximum along one axis, which stays with length 1."""
        if self.opset < _REDUCE_AXES_AS_INPUT:
            return self.node("ReduceMax", name, source, axes=[axis], keepdims=1)
        return self.node("ReduceMax", name, source, self.integers(f"{name}_axis", axis), keepdims=1)

    def column(self, row: str) -> str:
        """(N, 1, K) to (N, K, 1)."""
        return self.node("Transpose", row.removeprefix(self._prefix) + "_column", row, perm=[0, 2, 1])

    def to_float(self, name: str, value: str) -> str:
        """The same as float32."""
        import onnx

        return self.node("Cast", name, value, to=onnx.TensorProto.FLOAT)
