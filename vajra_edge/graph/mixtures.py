"""Mixtures: the graphs between an FP32 network and its quantized form, each with some of its layers in INT8.

Measuring what layers cost takes a graph for every set of them. Its quantized weights are computed once; a mixture only
chooses which of two tensors each changed input reads. One graph that could be switched from outside would compute
both and let ONNX Runtime fuse nothing: a run of it takes twice (trained nano) to five times (YOLOX-nano) as long, more
than making a session a mixture costs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from numpy.typing import NDArray

from vajra_edge.graph.proto import opset_of, serialize
from vajra_edge.graph.wiring import Wiring, key, load, raise_opset


class Mixtures:
    """All mixtures of two graphs.

    Args:
        onnx_bytes: the FP32 graph.
        quantized: the same graph after ``qdq.quantize``, and ``qlinear.to_qlinear`` if that is what will run.
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
