"""Form: an ONNX file as other tools and other times write it, brought into the form that everything here works on.

That is: weights that are no inputs, an IR version that allows it, open dimensions that have a name, FP32 throughout,
and one image input (N, 3, H, W) float32 RGB 0..1. Values stay what they are: nothing here changes what is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vajra_edge.errors import GraphError
from vajra_edge.graph.topology import inner_graphs, inner_tensors, shape_of

if TYPE_CHECKING:
    import onnx

IR_VERSIONS = (4, 10)
"""From 4 on weights need not be inputs; ONNX Runtime 1.19, the oldest that is allowed, reads up to 10."""
CHANNELS = 3
_IMAGE_RANK = 4
_OPEN_NAMES = ("batch", "channels", "height", "width")
_RUNTIMES_OWN = frozenset({"com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml"})
"""Domains of operators that ONNX Runtime brings itself."""


def mend(network: onnx.ModelProto) -> bool:
    """Bring a network into form, in place.

    Returns:
        Whether anything was changed.

    Raises:
        GraphError: it has operators that only another runtime has, or no image input that can be brought into form.
    """
    before = network.SerializeToString(deterministic=True)
    _refuse_foreign_operators(network)
    _drop_constant_inputs(network)
    _put_in_order(network)
    low, high = IR_VERSIONS
    network.ir_version = min(max(network.ir_version, low), high)
    _name_open_dimensions(network)
    image = _image_input(network)
    if any(_is_half(value) for value in (image, *network.graph.output)):
        _to_float(network)
    if image.type.tensor_type.elem_type != _float():
        _feed_bytes(network, image)
    if _dims(image)[1].dim_value != CHANNELS:
        _put_channels_first(network, image)
    return bool(network.SerializeToString(deterministic=True) != before)


def _refuse_foreign_operators(network: onnx.ModelProto) -> None:
    import onnx

    own = {(function.domain, function.name) for function in network.functions}
    for graph in inner_graphs(network):
        for node in graph.node:
            domain = "" if node.domain == "ai.onnx" else node.domain
            known = domain in _RUNTIMES_OWN or (node.domain, node.op_type) in own or onnx.defs.has(node.op_type, domain)
            if not known:
                where = f" of {node.domain!r}" if node.domain else ""
                raise GraphError(
                    f"the network uses the operator {node.op_type}{where}, which only its own runtime has",
                    remedy="export it without plugins (NMS and the like): vajra-edge adds its own",
                )


def _drop_constant_inputs(network: onnx.ModelProto) -> None:
    constants = {tensor.name for tensor in network.graph.initializer}
    kept = [value for value in network.graph.input if value.name not in constants]
    if len(kept) < len(network.graph.input):
        del network.graph.input[:]
        network.graph.input.extend(kept)


def _put_in_order(network: onnx.ModelProto) -> None:
    """Every node after those that it reads from, as ONNX wants it; FP16 converters put their casts at the end."""
    graph = network.graph
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    order: dict[int, None] = {}
    for first in range(len(graph.node)):
        pending = [first]
        while pending:
            before = [makers[name] for name in graph.node[pending[-1]].input if name in makers]
            missing = [at for at in before if at not in order and at not in pending]
            if missing:
                pending += missing[:1]
            else:
                order[pending.pop()] = None
    if list(order) != list(range(len(graph.node))):
        nodes = [graph.node[at] for at in order]
        kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)


def _name_open_dimensions(network: onnx.ModelProto) -> None:
    """Sizes of -1 and 0 are how other tools write an open one."""
    unsure = [value for value in network.graph.value_info if any(_is_open(dim) for dim in _dims(value))]
    for value in unsure:  # inference finds them again
        network.graph.value_info.remove(value)
    for value in network.graph.input:
        for dim, name in zip(_dims(value), _OPEN_NAMES, strict=False):
            if _is_open(dim):
                dim.dim_param = name
    for value in network.graph.output:
        for at, dim in enumerate(_dims(value)):
            if _is_open(dim):
                dim.dim_param = f"{value.name}_{at}" if at else _OPEN_NAMES[0]


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return bool(dim.HasField("dim_value") and dim.dim_value <= 0)


def _image_input(network: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input, if it can be an image.

    Raises:
        GraphError: it cannot, or there are more.
    """
    inputs = list(network.graph.input)
    images = [value for value in inputs if len(shape_of(value) or ()) == _IMAGE_RANK]
    if len(inputs) > 1 and images:
        raise _several_inputs(inputs)
    if len(inputs) == 1 and images:
        channels, last = (_dims(images[0])[axis] for axis in (1, 3))
        if not channels.HasField("dim_value") and last.dim_value != CHANNELS:
            channels.dim_value = CHANNELS
    if len(inputs) != 1 or not images or CHANNELS not in {channels.dim_value, last.dim_value}:
        raise GraphError(
            f"the network has no image input: expected one input (N, 3, H, W), found {listed(inputs)}",
            remedy="give a detection network for colour images, exported to ONNX",
        )
    return images[0]


def _several_inputs(inputs: list[onnx.ValueInfoProto]) -> GraphError:
    names = {value.name for value in inputs}
    told = ""
    if "orig_target_sizes" in names:
        told = "; it looks like RT-DETR or D-FINE as their authors export them"
    elif names & {"im_shape", "scale_factor"}:
        told = "; it looks like a network of PaddleDetection"
    return GraphError(
        f"the network wants more than images: {listed(inputs)}{told}",
        remedy="export it again without its post-processing, so that images are all it takes",
    )


def listed(values: list[onnx.ValueInfoProto]) -> str:
    """Names and shapes of at most four tensors, for a message."""
    texts = [f"{value.name} ({', '.join(str(side or '?') for side in shape_of(value) or ())})" for value in values[:4]]
    more = f" and {len(values) - 4} more" if len(values) > 4 else ""  # noqa: PLR2004  a message stays one line
    return (", ".join(texts) or "none") + more


def _float() -> int:
    import onnx

    return int(onnx.TensorProto.FLOAT)


def _is_half(value: onnx.ValueInfoProto) -> bool:
    import onnx

    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16)


def _to_float(network: onnx.ModelProto) -> None:
    """Every FP16 tensor as FP32, of the same value; the precision is lowered here, where that is wanted."""
    import onnx

    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    for tensor in inner_tensors(network):
        if tensor.data_type == half:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for graph in inner_graphs(network):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in {"to", "dtype"} and attribute.i == half:
                    attribute.i = full
        for value in (*graph.input, *graph.output):
            if _is_half(value):
                value.type.tensor_type.elem_type = full
        del graph.value_info[:]


def _feed_bytes(network: onnx.ModelProto, image: onnx.ValueInfoProto) -> None:
    """An input of bytes 0..255: what casts them to floats inside casts floats then.

    Raises:
        GraphError: another kind of number, or bytes that are not cast to floats at once.
    """
    import onnx

    kind = image.type.tensor_type.elem_type
    if kind not in {onnx.TensorProto.UINT8, onnx.TensorProto.DOUBLE}:
        name = onnx.TensorProto.DataType.Name(kind)
        raise GraphError(f"{image.name!r} is {name}, expected FLOAT", remedy="export it with a float input")
    image.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del network.graph.value_info[:]
    if kind == onnx.TensorProto.UINT8:
        scale_input(network, image.name, [255.0])
    try:
        onnx.shape_inference.infer_shapes(network, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise GraphError(
            f"{image.name!r} is {onnx.TensorProto.DataType.Name(kind)}, and more than a cast to floats is done with it",
            remedy="export it with a float input",
        ) from error


def scale_input(network: onnx.ModelProto, name: str, factors: list[float], *, reverse: bool = False) -> None:
    """Multiply what the readers of an input get; ``reverse``: and give them BGR.

    Args:
        network: changed in place.
        name: of the input, (N, 3, H, W), or (N, H, W, 3) with one factor.
        factors: one, or one a channel.
        reverse: turn the channels round.
    """
    import onnx

    made, source = [], name
    if reverse:
        network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "/input/bgr"))
        made.append(onnx.helper.make_node("Gather", [source, "/input/bgr"], ["/input/turned"], "/input/turned", axis=1))
        source = "/input/turned"
    value = np.array(factors, np.float32).reshape(1, -1, 1, 1) if len(factors) > 1 else np.array(factors, np.float32)
    network.graph.initializer.append(onnx.numpy_helper.from_array(value, "/input/factor"))
    made.append(onnx.helper.make_node("Mul", [source, "/input/factor"], ["/input/scaled"], "/input/scaled"))
    _read_instead(network, name, "/input/scaled", made)


def _put_channels_first(network: onnx.ModelProto, image: onnx.ValueInfoProto) -> None:
    """An input (N, H, W, 3) becomes (N, 3, H, W)."""
    import onnx

    sides = [onnx.TensorShapeProto.Dimension() for _ in _dims(image)]
    for at, dim in zip((0, 3, 1, 2), sides, strict=True):
        dim.CopyFrom(_dims(image)[at])
    del image.type.tensor_type.shape.dim[:]
    image.type.tensor_type.shape.dim.extend(sides)
    turn = onnx.helper.make_node(
        "Transpose", [image.name], ["/input/channels_last"], "/input/channels_last", perm=[0, 2, 3, 1]
    )
    _read_instead(network, image.name, "/input/channels_last", [turn])


def _read_instead(network: onnx.ModelProto, name: str, instead: str, made: list[onnx.NodeProto]) -> None:
    """Put new nodes in front; all others that read ``name`` read ``instead``."""
    for graph in inner_graphs(network):
        for node in graph.node:
            for at, source in enumerate(node.input):
                if source == name:
                    node.input[at] = instead
    nodes = [*made, *network.graph.node]
    del network.graph.node[:]
    network.graph.node.extend(nodes)
