"""Bytes to ONNX protobuf and back, with the limits that untrusted files get. The onnx library loads on first use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from vajra_edge.errors import GraphError

if TYPE_CHECKING:
    import onnx

MAX_ONNX_BYTES = 1 << 30
"""The largest VajraV1 in FP32 is below 300 MB; protobuf itself ends at 2 GiB."""
MAX_SUBGRAPH_DEPTH = 8


def parse(onnx_bytes: bytes) -> onnx.ModelProto:
    """Read a serialized ONNX file.

    Raises:
        GraphError: not ONNX, larger than 1 GiB, nested deeper than eight subgraphs, or with tensors in other files.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its types are a package of their own

    if len(onnx_bytes) > MAX_ONNX_BYTES:
        raise GraphError(
            f"the ONNX file has {len(onnx_bytes)} bytes, the limit is {MAX_ONNX_BYTES}",
            remedy="export a smaller network",
            size_bytes=len(onnx_bytes),
        )
    try:
        proto = onnx.load_model_from_string(onnx_bytes)
    except DecodeError as error:
        raise GraphError("the file is not ONNX, or it is cut short", remedy="export it again") from error
    if not proto.graph.node or not proto.graph.output:
        raise GraphError(f"the file of {len(onnx_bytes)} bytes holds no ONNX network", remedy="export it again")
    for tensor in _all_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise GraphError(
                f"tensor {tensor.name!r} lies in another file", remedy="export with all weights inside the .onnx file"
            )
    return proto


def serialize(proto: onnx.ModelProto) -> bytes:
    """The bytes of a network, equal for equal networks.

    Raises:
        GraphError: it became larger than 1 GiB.
    """
    if proto.ByteSize() > MAX_ONNX_BYTES:
        raise GraphError(f"the network grew to {proto.ByteSize()} bytes, the limit is {MAX_ONNX_BYTES}")
    return bytes(proto.SerializeToString(deterministic=True))


def check(proto: onnx.ModelProto, when: str) -> None:
    """Run ONNX's own checker with shape inference.

    Raises:
        GraphError: the network is not valid; ``when`` says at which stage.
    """
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise GraphError(f"the network is not valid ONNX {when}: {lines[0]}", remedy="export it again") from error


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Each dimension as its size, its name, or None; None for a tensor of unknown rank."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in value.type.tensor_type.shape.dim
    )


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the network uses.

    Raises:
        GraphError: it names none.
    """
    for opset in proto.opset_import:
        if opset.domain in {"", "ai.onnx"}:
            return int(opset.version)
    raise GraphError("the network names no opset of the ONNX domain", remedy="export it again")


def _all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph, MAX_SUBGRAPH_DEPTH)
    for function in proto.functions:
        yield from _node_tensors(function.node, MAX_SUBGRAPH_DEPTH)


def _graph_tensors(graph: onnx.GraphProto, depth: int) -> Iterator[onnx.TensorProto]:
    if depth == 0:
        raise GraphError(f"the network nests more than {MAX_SUBGRAPH_DEPTH} subgraphs", remedy="export it again")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node, depth)


def _node_tensors(nodes: Iterable[onnx.NodeProto], depth: int) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for subgraph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graph_tensors(subgraph, depth - 1)
