"""Simplify: onnxslim between two runs of ONNX's checker, and proof that the network's contract came through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vajra_edge.errors import GraphError
from vajra_edge.graph import metadata
from vajra_edge.graph.proto import check, parse, serialize, shape_of
from vajra_edge.wording import Setting, say

if TYPE_CHECKING:
    import onnx

REMEDY = say(Setting.SIMPLIFY.to(False))


def simplify(onnx_bytes: bytes) -> bytes:
    """Fold constants and remove what does nothing.

    Args:
        onnx_bytes: a serialized ONNX file; its metadata comes through.

    Raises:
        GraphError: the network is not valid before or after, onnxslim fails, or it would change inputs or outputs.
    """
    import onnxslim

    network = parse(onnx_bytes)
    check(network, "before it is simplified")
    before, fields = _contract(network), metadata.fields_of(network)
    try:
        slim = onnxslim.slim(network)
    except _ONNXSLIM_RAISES as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(f"onnxslim failed: {reason}", remedy=REMEDY) from error
    metadata.put(slim, fields)
    check(slim, "after it was simplified")
    if _contract(slim) != before:
        raise GraphError(f"onnxslim changed {_difference(before, _contract(slim))}", remedy=REMEDY)
    return serialize(slim)


_ONNXSLIM_RAISES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""onnxslim has no exception of its own; it lets those of its parsers and of numpy through."""

_Contract = dict[str, tuple[int, tuple[int | str | None, ...] | None]]


def _contract(network: onnx.ModelProto) -> _Contract:
    """Element type and shape of each input that is not a constant, and of each output, by ``kind name``."""
    constants = {tensor.name for tensor in network.graph.initializer}
    ends = [("input", value) for value in network.graph.input if value.name not in constants]
    ends += [("output", value) for value in network.graph.output]
    return {f"{kind} {value.name!r}": (value.type.tensor_type.elem_type, shape_of(value)) for kind, value in ends}


def _difference(before: _Contract, after: _Contract) -> str:
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} from {before.get(name)} to {after.get(name)}" for name in changed)
