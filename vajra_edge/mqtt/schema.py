"""Schema: the payloads as pydantic models, for subscribers in Python, for tests, and for a generated AsyncAPI document.

The daemon itself never imports this: ``messages.py`` writes the same fields without it, in a tenth of the time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from vajra_edge.mqtt.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.plans.report import Count, GateFigures, Ratio


class Payload(BaseModel):
    """Exactly these fields, of exactly these types."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DetectionRow(Payload):
    """One object: pixels of the camera's image, and the same as ratios of its sides."""

    class_id: int = Field(description="number of the class in the network")
    class_name: str = Field(alias="class", description="its name, or the number as text where it has none")
    confidence: Ratio = Field(description="of the network, rounded to 0.0001")
    xyxy: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] = Field(
        description="left, top, right, bottom in pixels of the camera's image, rounded to 0.01"
    )
    xyxyn: tuple[Ratio, Ratio, Ratio, Ratio] = Field(description="the same as shares of the image's width and height")


class EngineRow(Payload):
    """Which engine found the objects."""

    fingerprint: Annotated[str, Field(max_length=12)] = Field(description="first 12 digits of its plan's fingerprint")
    precision: str = Field(description="achieved: `fp32`, `fp16` or `int8`")
    target: str = Field(description="where it runs: `cpu`, `gpu:0`, `dla:0` …")


class DetectionMessage(Payload):
    """``camera/<id>/detections``."""

    schema_: Literal[2] = Field(alias="schema", description="counts incompatible changes of any message")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str = Field(description="names the count of `seq`; another epoch counts from 0")
    seq: Annotated[int, Field(ge=0)] = Field(
        description="counts the camera's detection messages, on over restarts; each one comes or is in a gap record"
    )
    key: str = Field(description="device/epoch/camera/seq, unique")
    replayed: bool = Field(description="the message had to wait for the broker")
    taken_at: AwareDatetime = Field(description="when the frame was captured, UTC")
    frame_age_ms: FiniteFloat = Field(description="from the capture of the frame to this message, in milliseconds")
    frame_seq: Annotated[int, Field(ge=0)] = Field(description="counts the camera's frames; a gap is dropped frames")
    resolution_wh: tuple[int, int] = Field(description="width and height of the camera's image in pixels")
    engine: EngineRow = Field(description="which engine found the objects")
    detections: tuple[DetectionRow, ...] = Field(description="the objects; an empty list is an empty scene")


class GapRow(Payload):
    """Which messages of the camera do not come."""

    first: Annotated[int, Field(ge=0)] = Field(alias="from", description="`seq` of the first")
    last: Annotated[int, Field(ge=0)] = Field(alias="to", description="`seq` of the last, included")
    why: Literal["bytes", "age", "live", "refused", "too_large", "died", "disk", "damaged", "moved", "several"] = Field(
        description="see below"
    )


class GapMessage(Payload):
    """``camera/<id>/detections``, in the place of messages that do not come."""

    schema_: Literal[2] = Field(alias="schema")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str = Field(description="of the messages that do not come")
    key: str = Field(description="device/epoch/camera/from-to, unique")
    gap: GapRow = Field(description="which messages, and why; no detection message has this field")
    at: AwareDatetime = Field(description="when this was said")


class ServiceMessage(Payload):
    """``status``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    state: Literal["starting", "preparing", "serving", "blocked", "stopping", "stopped", "failed", "lost"]
    reason: str
    version: str
    progress: Ratio | None
    engine: str | None
    wanted: str | None
    dropped: dict[str, int]
    outbox: str
    at: AwareDatetime


class EngineMessage(Payload):
    """``engine``."""

    schema_: Literal[2] = Field(alias="schema")
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
    verify: GateFigures | None
    int8: Int8Figures | None
    dla: DlaFigures | None
    refused: tuple[Refused, ...]
    built_at: datetime | None
    building: str | None
    loading: str | None
    why: str
    at: AwareDatetime


class CameraMessage(Payload):
    """``camera/<id>/status``."""

    schema_: Literal[2] = Field(alias="schema")
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


class ObjectsMessage(Payload):
    """``camera/<id>/objects``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    camera: str
    total: Count | None
    counts: dict[str, Count] | None
    at: AwareDatetime


class HistoryRow(Payload):
    """One thing that happened on the device."""

    number: Annotated[int, Field(ge=1)] = Field(description="counts the device's entries from 1 on, over restarts")
    at: AwareDatetime | None = Field(description="when, by the device's clock")
    clock_synchronised: bool = Field(description="that clock was known to be right")
    happened: Literal["built", "failed", "refused", "swapped", "kept", "rolled back", "strike", "crash", "adopted"] = (
        Field(description="what")
    )
    fingerprint: str | None = Field(description="first 12 digits of the plan that it happened to")
    reason: str = Field(description="why, in one line")
    asked_by: str = Field(description="who caused it: a person, a file, the settings, `probation`, `start`")
    duration_s: FiniteFloat | None = Field(description="how long it took")
    figures: dict[str, FiniteFloat] = Field(description="what was measured, by name, with units")


class HistoryMessage(Payload):
    """``history``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    entries: tuple[HistoryRow, ...]
    at: AwareDatetime


class ResponseMessage(Payload):
    """``response/<verb>``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    verb: Literal["rebuild", "status"]
    transaction: str | None
    status: Literal["ok", "error"]
    error: str
    content: dict[str, Any]
    at: AwareDatetime
