"""What the ONNX parser is given: a graph in the precision that the typing asks for, every node with its own name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vajra_edge.engine.spec import EngineSpec, Precision
from vajra_edge.errors import BuildError, UnsupportedSpec
from vajra_edge.graph.signature import Signature
from vajra_edge.wording import Setting, say


@dataclass(frozen=True)
class Prepared:
    """One graph, ready for the parser.

    Attributes:
        onnx_bytes: the serialized graph.
        keys: node name -> key (first output), for names come back from the builder and keys from our passes.
        float32: names of the nodes that stay FP32 under weak typing; empty under strong typing, where types say it.
        half: names of the layers that the library's calibrator must leave out of INT8; empty where Q/DQ nodes say it.
        ranges: tensor -> largest absolute value, for INT8 without Q/DQ (DLA); empty otherwise.
    """

    onnx_bytes: bytes
    keys: dict[str, str]
    float32: frozenset[str]
    half: frozenset[str]
    ranges: dict[str, float]


def prepare(onnx_bytes: bytes, signature: Signature, spec: EngineSpec, *, strong: bool) -> Prepared:
    """Bring a graph into the form one build needs.

    Args:
        onnx_bytes: FP32, FP16 or with Q/DQ, as the passes made it; FP32 is turned into FP16 here where types rule.
        signature: of the graph.
        spec: what is wanted.
        strong: the network's types rule, not the builder's flags.

    Raises:
        GraphError: the graph cannot be read.
        UnsupportedSpec: INT8 is asked for and the graph carries neither Q/DQ nor ranges.
        BuildError: the library is known to refuse how it is quantized.
    """
    from vajra_edge.graph import half, placement
    from vajra_edge.graph.wiring import Wiring, key, load

    if spec.target.kind == "dla":
        onnx_bytes = fixed(load(onnx_bytes), signature)
    ranges: dict[str, float] = {}
    calibrates = spec.precision is Precision.INT8 and spec.quantization == "calibrator"
    if spec.precision is Precision.INT8 and not calibrates:
        ranges = _ranges(onnx_bytes, spec, strong=strong)
    if strong and spec.precision is not Precision.FP32 and not _is_half(load(onnx_bytes)):
        onnx_bytes = half.to_half(onnx_bytes)
    wiring = Wiring(load(onnx_bytes))
    _name(wiring.nodes)
    high = half.float32_nodes(wiring) if not strong and spec.precision is not Precision.FP32 else frozenset()
    spared = placement.static_reasons(wiring) if calibrates else {}
    if spec.precision is Precision.INT8 and not calibrates and not ranges:
        _require_buildable(wiring, strong=strong)
    return Prepared(
        onnx_bytes=bytes(wiring.model.SerializeToString()),
        keys={node.name: key(node) for node in wiring.nodes},
        float32=frozenset(node.name for node in wiring.nodes if key(node) in high),
        half=frozenset(node.name for node in wiring.nodes if key(node) in spared and key(node) not in high),
        ranges=ranges,
    )


def _require_buildable(wiring: Any, *, strong: bool) -> None:
    """Say what the library would refuse before it takes minutes to say so itself.

    Raises:
        BuildError: with the layers at fault.
    """
    from vajra_edge.graph.quantization_rules import Build, refusals

    found = refusals(wiring, Build(strong=strong))
    if found:
        layers = tuple(name for refusal in found for name in refusal.nodes)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise BuildError(
            f"TensorRT cannot build this quantized graph at layer {layers[0]}{more}: {found[0].reason}",
            layer=layers[0],
            layers=layers,
        )


def _ranges(onnx_bytes: bytes, spec: EngineSpec, *, strong: bool) -> dict[str, float]:
    """Ranges for a DLA under weak typing, made equal where they must be; empty where Q/DQ nodes hold them."""
    from vajra_edge.graph import dla_ranges
    from vajra_edge.graph.wiring import load

    quantized = any(node.op_type == "DequantizeLinear" for node in load(onnx_bytes).graph.node)
    if spec.target.kind == "dla" and not strong:
        ranges = dla_ranges.attached(onnx_bytes)
        if quantized or not ranges:
            raise UnsupportedSpec(
                "INT8 on this library's DLA needs an unquantized graph with calibration ranges, "
                f"and this one has {'Q/DQ nodes' if quantized else 'no ranges'}",
                remedy=say("calibrate first, or ", Setting.PRECISION.to("fp16")),
            )
        return dla_ranges.equalised(onnx_bytes, ranges)
    if not quantized:
        raise UnsupportedSpec(
            "INT8 is asked for and the graph has no Q/DQ nodes",
            remedy=say("calibrate first, or ", Setting.PRECISION.to("fp16")),
        )
    return {}


def fixed(model: Any, signature: Signature) -> bytes:
    """The graph with every open side of its input set to the largest, as a DLA and a calibration engine take it."""
    for entry in model.graph.input:
        if entry.name == signature.input_name:
            sides = (signature.batch, 3, *signature.resolution_hw)
            for dim, side in zip(entry.type.tensor_type.shape.dim, sides, strict=False):
                dim.dim_value = dim.dim_value or side
    del model.graph.value_info[:]  # inferred again from the input
    return bytes(model.SerializeToString())


def _is_half(model: Any) -> bool:
    from onnx import TensorProto

    return any(constant.data_type == TensorProto.FLOAT16 for constant in model.graph.initializer)


def _name(nodes: list[Any]) -> None:
    """Give every node a name that no other has; the library's errors and layers are known by it."""
    taken: set[str] = set()
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}__{index}"
        taken.add(node.name)
