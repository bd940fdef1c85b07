"""Signature: what the tensors of a network or a plan mean. Importing this loads no ONNX library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from vajra_edge.errors import GraphError
from vajra_edge.wording import Setting, say

if TYPE_CHECKING:
    import onnx

BOX_ROWS = 4
"""Rows of a RAW output before the class scores: cx, cy, w, h."""
DETECTION_COLUMNS = 6
"""Columns of a DETECTIONS output: x1, y1, x2, y2, score, class."""
_IMAGE_RANK, _CHANNELS, _OUTPUT_RANK = 4, 3, 3


LAYOUT, END_TO_END = "output_layout", "end to end"
"""Metadata of a network whose objects, (N, rows, 6), were chosen by itself and not by NMS that was added here."""


class Layout(str, Enum):
    """How the output is laid out.

    RAW is upstream's ``output0`` (N, 4 + classes, anchors): cx, cy, w, h in input pixels, then class scores 0..1.
    DETECTIONS is (N, max_det, 6): x1, y1, x2, y2 in input pixels, score, class; score 0 in empty rows. With NMS
    that was added here its figures are known; a network that is end to end has none.
    """

    RAW = "raw"
    DETECTIONS = "detections"


@dataclass(frozen=True)
class Signature:
    """The contract of one network.

    Attributes:
        input_name: the image tensor, (N, 3, H, W), RGB, 0..1, float32 (float16 graphs cast inside).
        output_name: the tensor that holds the result.
        layout: how the result is laid out.
        batch: largest N.
        resolution_hw: H and W in pixels; the optimum when sizes are dynamic.
        dynamic_batch: N may be anything from 1 to ``batch``; otherwise N is exactly ``batch`` and runners pad.
        dynamic_size: H and W may be other multiples of the stride, up to ``most_hw``.
        stride: largest stride of the network in pixels.
        class_names: one name a class, in the order of class ids.
        nms_iou: what is baked into a DETECTIONS graph, else None.
        max_det: rows of a DETECTIONS output.
        top_k: candidates that enter the NMS of ``nms_iou``.
        largest_hw: largest H and W of a network with dynamic sizes; None: ``resolution_hw``.
    """

    input_name: str
    output_name: str
    layout: Layout
    batch: int
    resolution_hw: tuple[int, int]
    dynamic_batch: bool
    dynamic_size: bool
    stride: int
    class_names: tuple[str, ...]
    nms_iou: float | None = None
    max_det: int | None = None
    top_k: int | None = None
    largest_hw: tuple[int, int] | None = None

    @property
    def most_hw(self) -> tuple[int, int]:
        """Largest height and width that may be asked of it, in pixels."""
        return self.largest_hw or self.resolution_hw

    @property
    def has_nms(self) -> bool:
        """NMS is in the network, with figures that are known and that nobody changes."""
        return self.nms_iou is not None

    @property
    def end_to_end(self) -> bool:
        """The network chooses its objects itself: without NMS, or with another exporter's."""
        return self.layout is Layout.DETECTIONS and self.nms_iou is None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "layout": self.layout.value}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Signature:
        """The inverse of ``to_json``; a field that this version does not know is passed over.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        height, width = fields["resolution_hw"]
        largest = fields.get("largest_hw")  # absent in older manifests
        known = {
            **{name: fields[name] for name in cls.__dataclass_fields__ if name in fields},
            "layout": Layout(fields["layout"]),
            "resolution_hw": (int(height), int(width)),
            "largest_hw": None if largest is None else (int(largest[0]), int(largest[1])),
        }
        return cls(**{**known, "class_names": tuple(str(name) for name in fields["class_names"])})


def read(
    onnx_bytes: bytes,
    *,
    class_names: tuple[str, ...] | None = None,
    stride: int | None = None,
    resolution_hw: tuple[int, int] | None = None,
) -> Signature:
    """Recognise a network by its tensors and metadata.

    Args:
        onnx_bytes: a serialized ONNX file.
        class_names: ``[weights] class_names``; overrides the names in the metadata.
        stride: ``[weights] stride``; supplies what the metadata lacks.
        resolution_hw: ``[engine] img_size`` as height and width; chooses the size of a network with dynamic sizes.

    Raises:
        GraphError: not ONNX, not a detection network of a known layout, or names, stride or size are missing; the
            message names the setting that supplies them.
    """
    from vajra_edge.graph import metadata, topology

    network = topology.parse(onnx_bytes)
    fields = metadata.fields_of(network)
    check_task(fields)
    names = class_names if class_names is not None else metadata.class_names_of(fields)
    if not names:
        raise GraphError("the network's metadata has no class names", remedy=say(Setting.CLASS_NAMES.given()))
    image = _image_input(network)
    known_stride = metadata.positive_int_of(fields, "stride") or stride
    if known_stride is None:
        remedy = say(Setting.STRIDE.given(), ", for VajraV1 32")
        raise GraphError("the network's metadata has no stride", remedy=remedy)
    size = _resolution_hw(image, fields, resolution_hw, known_stride)
    batch = _dimensions(image)[0]
    dynamic_size = not all(isinstance(side, int) for side in _dimensions(image)[2:])
    return Signature(
        input_name=image.name,
        batch=batch if isinstance(batch, int) else metadata.positive_int_of(fields, "batch") or 1,
        resolution_hw=size,
        dynamic_batch=not isinstance(batch, int),
        dynamic_size=dynamic_size,
        largest_hw=metadata.resolution_hw_of(fields, metadata.LARGEST) if dynamic_size else None,
        stride=known_stride,
        class_names=tuple(names),
        **_output(network, fields, len(names)),
    )


def check_task(fields: Mapping[str, str]) -> None:
    """Refuse a network that says itself that it does something else.

    Raises:
        GraphError: it does.
    """
    task = fields.get("task", "detect")
    if task != "detect":
        raise GraphError(f"the network's task is {task[:60]!r}", remedy="give the weights of a detection network")


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...]:
    from vajra_edge.graph.topology import shape_of

    return shape_of(value) or ()


def _image_input(network: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The only input that is not a constant, if it is (N, 3, H, W) float32."""
    constants = {tensor.name for tensor in network.graph.initializer}
    inputs = [value for value in network.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(_dimensions(inputs[0])) != _IMAGE_RANK or _dimensions(inputs[0])[1] != _CHANNELS:
        raise GraphError(
            f"the network has no image input: expected one input (N, 3, H, W), found {_listed(inputs)}",
            remedy="give a detection network exported to ONNX",
        )
    _check_float32(inputs[0])
    return inputs[0]


def _check_float32(value: onnx.ValueInfoProto) -> None:
    import onnx

    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise GraphError(
            f"{value.name!r} is {kind}, expected FLOAT",
            remedy="export without half; vajra-edge lowers the precision itself",
        )


def _resolution_hw(
    image: onnx.ValueInfoProto, fields: Mapping[str, str], wanted: tuple[int, int] | None, stride: int
) -> tuple[int, int]:
    """What the network is fixed to; of a side that it leaves open, what is wanted, else what its metadata records."""
    from vajra_edge.graph import metadata

    height, width = _dimensions(image)[2:]
    if not (isinstance(height, int) and isinstance(width, int)):
        chosen = wanted or metadata.resolution_hw_of(fields) or (None, None)
        height, width = (
            side if isinstance(side, int) else free for side, free in zip((height, width), chosen, strict=True)
        )
    if height is None or width is None:
        raise GraphError("the network takes any size and its metadata has none", remedy=say(Setting.IMG_SIZE.given()))
    if height % stride or width % stride:
        raise GraphError(
            f"input size {height}x{width} (height x width) is not a multiple of stride {stride}",
            remedy=say(Setting.STRIDE.given(), ", or export with another size"),
        )
    return height, width


def _output(network: onnx.ModelProto, fields: Mapping[str, str], classes: int) -> dict[str, Any]:
    """Name, layout and NMS figures of the one output that has a known layout."""
    outputs = inferred_outputs(network)
    layouts = [(value, _layout(_dimensions(value), fields, classes)) for value in outputs]
    known = [(value, layout) for value, layout in layouts if layout is not None]
    if len(known) != 1:
        raise _unknown_output(outputs, classes)
    value, layout = known[0]
    _check_float32(value)
    return {"output_name": value.name, **layout}


def inferred_outputs(network: onnx.ModelProto) -> Sequence[onnx.ValueInfoProto]:
    """The outputs, with shapes from ONNX's inference where the file leaves them open."""
    import onnx

    outputs: Sequence[onnx.ValueInfoProto] = network.graph.output
    if all(isinstance(size, int) for value in outputs for size in _dimensions(value) or (None,)):
        return outputs
    inferred: Sequence[onnx.ValueInfoProto] = onnx.shape_inference.infer_shapes(network).graph.output
    return inferred


def _layout(shape: tuple[int | str | None, ...], fields: Mapping[str, str], classes: int) -> dict[str, Any] | None:
    if len(shape) != _OUTPUT_RANK:
        return None
    if fields.get(LAYOUT) == END_TO_END:
        rows = shape[1] if shape[2] == DETECTION_COLUMNS else None
        return {"layout": Layout.DETECTIONS, "max_det": rows} if isinstance(rows, int) else None
    if "nms_iou" in fields:
        nms = _nms_figures(fields)
        return {"layout": Layout.DETECTIONS, **nms} if shape[1:] == (nms["max_det"], DETECTION_COLUMNS) else None
    return {"layout": Layout.RAW} if shape[1] == BOX_ROWS + classes else None


def _nms_figures(fields: Mapping[str, str]) -> dict[str, Any]:
    from vajra_edge.graph import metadata

    iou = metadata.parse("nms_iou", fields["nms_iou"])
    figures = {key: metadata.positive_int_of(fields, key) for key in ("max_det", "top_k")}
    if not isinstance(iou, (int, float)) or not 0 <= iou <= 1 or None in figures.values():
        raise GraphError(
            "the network's NMS metadata is incomplete (nms_iou, max_det, top_k)", remedy="export the network again"
        )
    return {"nms_iou": float(iou), **figures}


def _unknown_output(outputs: Sequence[onnx.ValueInfoProto], classes: int) -> GraphError:
    """What is wrong with outputs of which none, or more than one, has a known layout."""
    expected = f"expected one output (N, {BOX_ROWS + classes}, anchors) for {classes} classes"
    return GraphError(f"{expected}, found {_listed(outputs)}", remedy="export it again as upstream does, without nms")


def _listed(values: Sequence[onnx.ValueInfoProto]) -> str:
    """Names and shapes of at most four tensors, for a message."""
    texts = [f"{value.name} ({', '.join(str(side or '?') for side in _dimensions(value))})" for value in values[:4]]
    more = f" and {len(values) - 4} more" if len(values) > 4 else ""  # noqa: PLR2004  a message stays one line
    return (", ".join(texts) or "none") + more
