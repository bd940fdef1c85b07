"""EngineSpec: what is wanted of an engine; made from settings or export arguments, hashed into the fingerprint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from vajra_edge.errors import UnsupportedSpec


class Precision(str, Enum):
    """Arithmetic of the bulk of the network; boxes and NMS stay FP32 in every one.

    TF32 is FP32 in memory, and what is multiplied is rounded to 10 bits of mantissa on the way: a GPU's tensor cores
    take it from compute capability 8.0 on.
    """

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def is_single(self) -> bool:
        """Weights and tensors are FP32, whatever is done with them."""
        return self in (Precision.FP32, Precision.TF32)

    @property
    def fallbacks(self) -> tuple[Precision, ...]:
        """The ladder below this precision when a plan fails its accuracy check: int8 -> fp16 -> fp32, tf32 -> fp32."""
        order = (Precision.INT8, Precision.FP16, Precision.FP32)
        return order[order.index(self) + 1 :] if self in order else (Precision.FP32,)


@dataclass(frozen=True)
class Target:
    """Where a plan runs: ``cpu``, ``gpu:<index>`` or ``dla:<core>``."""

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``cpu``, ``gpu:0`` or ``dla:1``.

        Raises:
            UnsupportedSpec: the text is none of these.
        """
        match = re.fullmatch(r"(cpu)|(gpu|dla):(\d+)", text)
        if match is None:
            raise UnsupportedSpec(f"unknown target {text!r}", remedy="use cpu, gpu:0, dla:0 or dla:1", target=text)
        return cls("cpu") if match[1] else cls(match[2], int(match[3]))

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


QUANTIZATIONS = ("auto", "qdq", "calibrator")
"""Routes to INT8: Q/DQ nodes that we place, TensorRT's own calibrator (up to 10.x); auto: the first, else the other."""


@dataclass(frozen=True)
class NmsSpec:
    """Non-maximum suppression; in the graph it is baked in, hence part of the fingerprint.

    Attributes:
        iou: boxes of one class that overlap more than this are one object.
        max_det: most boxes of an image; in the graph the rows of the output.
        top_k: candidates by best class score that enter it.
    """

    iou: float = 0.7
    max_det: int = 300
    top_k: int = 500


@dataclass(frozen=True)
class EngineSpec:
    """What is wanted.

    Attributes:
        target: where the plan runs.
        precision: what is asked for; the manifest says what was achieved.
        resolution_hw: input height and width in pixels, multiples of the stride; None: what the weights were made for.
        batch: the largest number of images in one call; None: what the weights are fixed to, else 1.
        dynamic: batch and size may be others at run time.
        nms: in-graph NMS, or None for the upstream ``output0`` layout.
        simplify: run onnxslim.
        opset: ONNX opset of our own export; None: the backend's choice.
        workspace_gib: builder scratch memory in GiB; None: from the memory that is free.
        typing: TensorRT network typing: auto, strong or weak.
        optimization_level: TensorRT builder effort, 0 to 5.
        quantization: route to INT8, one of ``QUANTIZATIONS``.
        allow_lower_precision: the accuracy check may fall to a higher-fidelity precision instead of failing.
        largest_hw: most pixels of dynamic sizes; None: ``resolution_hw``, which stays the optimum.
    """

    target: Target = Target("cpu")
    precision: Precision = Precision.FP32
    resolution_hw: tuple[int, int] | None = None
    batch: int | None = None
    dynamic: bool = False
    nms: NmsSpec | None = NmsSpec()
    simplify: bool = True
    opset: int | None = None
    workspace_gib: float | None = None
    typing: str = "auto"
    optimization_level: int = 3
    quantization: str = "auto"
    allow_lower_precision: bool = True
    largest_hw: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, read back by ``from_json``; kept in requests and manifests."""
        return {**asdict(self), "target": str(self.target), "precision": self.precision.value}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> EngineSpec:
        """The inverse of ``to_json``; a field that this version does not know is passed over.

        Raises:
            KeyError, TypeError, ValueError, UnsupportedSpec: a field is missing or of another type.
        """
        size, largest, nms = fields["resolution_hw"], fields.get("largest_hw"), fields["nms"]
        known = {
            "target": Target.parse(fields["target"]),
            "precision": Precision(fields["precision"]),
            "resolution_hw": None if size is None else (int(size[0]), int(size[1])),
            "largest_hw": None if largest is None else (int(largest[0]), int(largest[1])),
            "nms": None if nms is None else NmsSpec(float(nms["iou"]), int(nms["max_det"]), int(nms["top_k"])),
        }
        return cls(**{**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields}, **known})
