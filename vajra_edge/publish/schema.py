"""Schema: the payloads as pydantic models, for subscribers in Python, for tests, and for a generated AsyncAPI document.

The daemon itself never imports this: ``messages.py`` writes the same fields without it, in a tenth of the time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class Payload(BaseModel):
    """Exactly these fields, of exactly these types."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DetectionRow(Payload):
    """One object: pixels of the camera's image, and the same as ratios of its sides."""

    class_id: int
    class_name: str = Field(alias="class")
    confidence: Ratio
    xyxy: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    xyxyn: tuple[Ratio, Ratio, Ratio, Ratio]


class EngineRow(Payload):
    """Which engine found the objects."""

    fingerprint: Annotated[str, Field(max_length=12)]
    precision: str
    target: str


class DetectionMessage(Payload):
    """``camera/<id>/detections``."""

    schema_: Literal[1] = Field(alias="schema")
    device: str
    camera: str
    seq: Annotated[int, Field(ge=0)]
    key: str
    replayed: bool
    taken_at: AwareDatetime
    frame_age_ms: FiniteFloat
    frame_seq: Annotated[int, Field(ge=0)]
    resolution_wh: tuple[int, int]
    engine: EngineRow
    detections: tuple[DetectionRow, ...]


class ServiceMessage(Payload):
    """``status``."""

    schema_: Literal[1] = Field(alias="schema")
    device: str
    state: Literal["starting", "preparing", "serving", "blocked", "stopping", "stopped", "failed", "lost"]
    reason: str
    version: str
    progress: Ratio | None
    dropped: dict[str, int]
    at: AwareDatetime


class GateRow(Payload):
    """How a plan compares with its FP32 reference, see ``figures.GateFigures``."""

    passed: bool
    judged: bool
    reason: str
    source: str
    frames: Count
    reference_boxes: Count
    recall: Ratio | None
    precision: Ratio | None
    mean_iou: Ratio | None
    score_drift: FiniteFloat | None
    latency_p50_ms: FiniteFloat | None
    latency_p99_ms: FiniteFloat | None
    int8_ms: FiniteFloat | None
    fp16_ms: FiniteFloat | None
    speed: str


class Int8Row(Payload):
    """Share of INT8 and the origin of its ranges, see ``figures.Int8Figures``."""

    macs_share: Ratio | None
    layers: Count | None
    layers_kept: Count | None
    score_drift: FiniteFloat | None
    box_drift: FiniteFloat | None
    ranges: str
    algorithm: str
    images: Count
    images_from: str
    collector: str


class DlaRow(Payload):
    """The DLA's report card, see ``figures.DlaFigures``."""

    macs_share: Ratio
    transitions: Count
    nodes_on_dla: Count
    nodes: Count
    left_on_gpu: dict[str, Count]
    loadables: Count | None


class RefusedRow(Payload):
    """A plan that the gate refused."""

    precision: str
    reason: str
    verify: GateRow | None
    int8: Int8Row | None


class EngineMessage(Payload):
    """``engine``."""

    schema_: Literal[1] = Field(alias="schema")
    device: str
    fingerprint: str | None
    backend: str
    wanted_precision: str
    precision: str
    target: str
    resolution_hw: tuple[int, int] | None
    weights: str
    weights_sha256: str
    class_names: tuple[str, ...]
    latency_ms: FiniteFloat | None
    verify: GateRow | None
    int8: Int8Row | None
    dla: DlaRow | None
    refused: tuple[RefusedRow, ...]
    built_at: datetime | None
    building: str | None
    loading: str | None
    why: str
    at: AwareDatetime


class CameraMessage(Payload):
    """``camera/<id>/status``."""

    schema_: Literal[1] = Field(alias="schema")
    device: str
    camera: str
    state: Literal["opening", "streaming", "lost", "ended", "off"]
    reason: str
    resolution_wh: tuple[int, int] | None
    fps: FiniteFloat | None
    frames: int
    dropped: int
    attempts: int
    at: AwareDatetime


class ResponseMessage(Payload):
    """``response/<verb>``."""

    schema_: Literal[1] = Field(alias="schema")
    device: str
    verb: Literal["rebuild", "status"]
    transaction: str | None
    status: Literal["ok", "error"]
    error: str
    content: dict[str, Any]
    at: AwareDatetime
