"""Intake: any ONNX file of a detector that users bring -> a network of one of the layouts that everything here reads.

The file is brought into form, its output is recognised by its shape and by what it gives for one picture, and where
that is another family's, a few nodes turn it into ours. A network that is ours already comes back as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vajra_edge.errors import GraphError, WeightsError
from vajra_edge.graph import families, form, metadata, probe, signature, topology
from vajra_edge.graph.anchors import largest_stride
from vajra_edge.graph.families import FamilyKind, Reading
from vajra_edge.graph.passes import layouts

if TYPE_CHECKING:
    import onnx

USUAL_HW = (640, 640)
"""At which a network of open sizes is looked at, where it says nothing itself."""
USUAL_STRIDES = (64, 32, 16, 8)


def read_file(path: Path) -> bytes:
    """An ONNX file with all its weights in it.

    Raises:
        WeightsError: it cannot be read, or is too large.
        GraphError: it is not ONNX, or has weights in files that are not beside it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(topology.MAX_ONNX_BYTES + 1)
    except OSError as error:
        raise WeightsError(
            f"weights {path} cannot be read: {error.strerror}", remedy="copy the file again", path=path
        ) from error
    return embedded(content, path)


def embedded(content: bytes, path: Path) -> bytes:
    """The content of an ONNX file, with what lies in files beside it.

    For export, val and predict alone: the daemon knows weights by the digest of one file, and would not notice others.

    Raises:
        WeightsError: it is too large.
        GraphError: it is not ONNX, or has weights in files that are not beside it.
    """
    if len(content) > topology.MAX_ONNX_BYTES:
        raise WeightsError(f"weights {path} are larger than 1 GiB", remedy="export a smaller network", path=path)
    if _LOCATION not in content:
        return content
    return topology.serialize(topology.parse(content, path=path))


_LOCATION = b"location"
"""Key of every tensor that lies elsewhere."""


def take_in(
    onnx_bytes: bytes,
    *,
    class_names: tuple[str, ...] | None = None,
    stride: int | None = None,
    resolution_hw: tuple[int, int] | None = None,
) -> bytes:
    """Bring a network into a layout that ``signature.read`` knows.

    Args:
        onnx_bytes: a serialized ONNX file.
        class_names: what the user calls the classes; overrides the names in the metadata.
        stride: supplies what the metadata lacks.
        resolution_hw: height and width that are asked for, where the network leaves them open.

    Returns:
        The same bytes, or those of an equal network in our form, with names and stride in its metadata.

    Raises:
        GraphError: it is not a detector of a family that is known; says what it looks like instead.
    """
    network = topology.parse(onnx_bytes)
    fields = metadata.fields_of(network)
    signature.check_task(fields)
    names = class_names if class_names is not None else metadata.class_names_of(fields)
    mended = form.mend(network)
    known_stride = metadata.positive_int_of(fields, "stride") or stride
    if names and known_stride and _is_ours(network, fields, len(names)):
        return topology.serialize(network) if mended else onnx_bytes
    size_hw = _size(network, fields, resolution_hw)
    outputs = probe.look(topology.serialize(network), network.graph.input[0].name, _batch(network), size_hw)
    reading = families.recognise(outputs, len(names) if names else None, size_hw)
    if not names:
        raise GraphError("the network's metadata has no class names")
    return _ours(network, reading, outputs[reading.output].shape, tuple(names), known_stride, size_hw)


def _is_ours(network: onnx.ModelProto, fields: Mapping[str, str], classes: int) -> bool:
    """A layout of our own, named as such: nothing has to be looked at."""
    if "nms_iou" in fields or signature.LAYOUT in fields:
        return True
    shapes = [topology.shape_of(value) or () for value in signature.inferred_outputs(network)]
    known = [shape for shape in shapes if len(shape) == 3 and shape[1] == signature.BOX_ROWS + classes]  # noqa: PLR2004
    three = [shape for shape in shapes if len(shape) == 3]  # noqa: PLR2004  (N, rows, anchors)
    return len(known) == len(three) == 1


def _size(network: onnx.ModelProto, fields: Mapping[str, str], wanted: tuple[int, int] | None) -> tuple[int, int]:
    height, width = (topology.shape_of(network.graph.input[0]) or ())[2:]
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    chosen = wanted or metadata.resolution_hw_of(fields) or USUAL_HW
    return height if isinstance(height, int) else chosen[0], width if isinstance(width, int) else chosen[1]


def _batch(network: onnx.ModelProto) -> int:
    batch = (topology.shape_of(network.graph.input[0]) or (1,))[0]
    return batch if isinstance(batch, int) else 1


def _ours(
    network: onnx.ModelProto,
    reading: Reading,
    shape: tuple[int, ...],
    names: tuple[str, ...],
    stride: int | None,
    size_hw: tuple[int, int],
) -> bytes:
    """The network in our layout, with what was found out about it."""
    rows = shape[1] if reading.rows_first else shape[2]
    as_it_is = (
        reading.kind is FamilyKind.ANCHOR and reading == families.plain(reading) and len(network.graph.output) == 1
    )
    if not as_it_is:
        network = layouts.rewrite(network, reading, rows, len(names), size_hw)
    strides = reading.grid.strides if reading.grid else USUAL_STRIDES
    fields = {"names": str(dict(enumerate(names))), "stride": stride or largest_stride(strides, size_hw)}
    metadata.put(network, fields)
    return topology.serialize(network)
