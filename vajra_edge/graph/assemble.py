"""Assemble: any ONNX network of a known layout to the FP32 graph that a backend builds from, and its signature.

onnxslim runs between two runs of ONNX's checker, with proof that the network's contract came through.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vajra_edge.errors import GraphError
from vajra_edge.graph import intake, metadata, signature
from vajra_edge.graph.passes import nms
from vajra_edge.graph.signature import Layout, Signature
from vajra_edge.graph.topology import check, parse, serialize, shape_of
from vajra_edge.wording import Setting, say, several

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


if TYPE_CHECKING:
    from vajra_edge.plans.spec import EngineSpec


def assemble(
    onnx_bytes: bytes, spec: EngineSpec, *, class_names: tuple[str, ...] | None = None, stride: int | None = None
) -> tuple[bytes, Signature]:
    """Take a network in, add NMS and simplify, as the specification asks.

    Args:
        onnx_bytes: as exported by us, by upstream, or by a family that ``intake`` knows.
        spec: size, batch, NMS and simplify are heeded.
        class_names: ``[weights] class_names``; written into the metadata.
        stride: ``[weights] stride``; supplies what the metadata lacks.

    Raises:
        GraphError: the network is not of a known layout, or is fixed to another size, batch or NMS than asked for.
    """
    wanted: dict[str, Any] = {"class_names": class_names, "stride": stride, "resolution_hw": spec.resolution_hw}
    onnx_bytes = intake.take_in(onnx_bytes, **wanted)
    found = signature.read(onnx_bytes, **wanted)
    _require_size(found, spec)
    if spec.nms is None and found.has_nms:  # whoever runs the plan does it, by the settings
        onnx_bytes = nms.without_nms(onnx_bytes)
    graph = _annotated(onnx_bytes, found)
    if spec.nms is not None and found.layout is Layout.RAW:
        graph = nms.add_nms(graph, spec.nms, spec.largest_hw or found.resolution_hw)
    if spec.simplify:
        graph = simplify(graph)
    made = signature.read(graph, resolution_hw=found.resolution_hw)
    _require_nms(made, spec)
    return graph, replace(made, batch=_batch(found, spec), largest_hw=spec.largest_hw if made.dynamic_size else None)


def _annotated(onnx_bytes: bytes, found: Signature) -> bytes:
    """The network with what was settled on beside its shapes, so that every later reader finds the same."""
    network = parse(onnx_bytes)
    settled: dict[str, object] = {"names": str(dict(enumerate(found.class_names))), "stride": found.stride}
    if found.dynamic_size:
        settled[metadata.SIZES[0]] = list(found.resolution_hw)
    metadata.put(network, settled)
    return serialize(network)


def _require_size(found: Signature, spec: EngineSpec) -> None:
    """A file with fixed shapes runs as it was exported, or not at all."""
    height, width = spec.resolution_hw or found.resolution_hw
    if not found.dynamic_size and found.resolution_hw != (height, width):
        fixed = f"{found.resolution_hw[0]}x{found.resolution_hw[1]}"
        raise GraphError(
            f"the ONNX file is fixed to {fixed} (height x width), {height}x{width} is asked for",
            remedy=say(Setting.IMG_SIZE.left_out(), ", export it with dynamic sizes, or give the .pt file"),
        )
    if not found.dynamic_batch and spec.batch not in (None, found.batch):
        raise GraphError(
            f"the ONNX file is fixed to batch {found.batch}, {spec.batch} is asked for",
            remedy=say(Setting.BATCH.to(found.batch), ", export it with a dynamic batch, or give the .pt file"),
        )


def _batch(found: Signature, spec: EngineSpec) -> int:
    """Most images of one call: as asked for, else as the file is fixed."""
    if spec.batch is not None:
        return spec.batch
    return 1 if found.dynamic_batch else found.batch


def _require_nms(made: Signature, spec: EngineSpec) -> None:
    if made.end_to_end:  # it needs none
        return
    wanted = (spec.nms.iou, spec.nms.max_det, spec.nms.top_k) if spec.nms else (None, None, None)
    inside = (made.nms_iou, made.max_det, made.top_k)
    if inside == wanted:
        return
    raise GraphError(
        f"the ONNX file holds NMS with iou, max_det, top_k = {inside}, asked for is {wanted}",
        remedy=say(
            "give a file exported without nms, or the figures that it has as ",
            several(Setting.NMS_IOU, Setting.MAX_DET, Setting.NMS_TOP_K),
        ),
    )
