"""Signature: what the tensors of a network or a plan mean. Importing this loads no ONNX library."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Layout(str, Enum):
    """How the output is laid out.

    RAW is upstream's ``output0`` (N, 4 + classes, anchors): cx, cy, w, h in input pixels, then class scores 0..1.
    DETECTIONS is (N, max_det, 6): x1, y1, x2, y2 in input pixels, score, class; score 0 in empty rows.
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
        resolution_hw: H and W in pixels; the largest and the optimum when sizes are dynamic.
        dynamic_batch: N may be anything from 1 to ``batch``; otherwise N is exactly ``batch`` and runners pad.
        dynamic_size: H and W may be smaller multiples of the stride.
        stride: largest stride of the network in pixels.
        class_names: one name a class, in the order of class ids.
        nms_iou: what is baked into a DETECTIONS graph, else None.
        max_det: likewise, rows of the output.
        top_k: likewise, candidates that enter NMS.
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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``."""
        return {**asdict(self), "layout": self.layout.value}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Signature:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or of another type.
        """
        height, width = fields["resolution_hw"]
        known = {**fields, "layout": Layout(fields["layout"]), "resolution_hw": (int(height), int(width))}
        return cls(**{**known, "class_names": tuple(str(name) for name in fields["class_names"])})
