"""Schema: the payloads as pydantic models, for subscribers in Python, for tests, and for a generated AsyncAPI document.

The daemon itself never imports this: ``messages.py`` writes the same fields without it, in a tenth of the time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from vajra_edge.mqtt.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.plans.report import GateFigures, Ratio


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
    track_id: Annotated[int, Field(ge=1)] | None = Field(
        None, description="the same object has the same; `null`: none yet; left out where the camera does not `track`"
    )


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
    clock_synchronised: bool = Field(description="the clock was known to be right then, see [Time](#time)")
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
    """``camera/<id>/detections`` and ``camera/<id>/events``, in the place of messages that do not come."""

    schema_: Literal[2] = Field(alias="schema")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str = Field(description="of the messages that do not come")
    key: str = Field(description="device/epoch/camera/from-to, unique")
    gap: GapRow = Field(description="which messages, and why; no detection message has this field")
    at: AwareDatetime = Field(description="when this was said")
    clock_synchronised: bool = Field(description="the clock that says so was known to be right")


class SnapshotComment(Payload):
    """``camera/<id>/snapshot``, in the JPEG's comment: which detection message is of this very frame."""

    schema_: Literal[2] = Field(alias="schema")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str | None = Field(description="of the detection message; `null` like `seq`")
    seq: Annotated[int, Field(ge=0)] | None = Field(
        description="of the detection message, which comes or is in a gap record; `null`: lost before it had a number"
    )
    key: str | None = Field(description="of the detection message; `null` like `seq`")
    taken_at: AwareDatetime = Field(description="when the frame was captured, UTC, as in the detection message")
    frame_seq: Annotated[int, Field(ge=0)] = Field(description="of the frame, as in the detection message")


class ServiceMessage(Payload):
    """``status``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    state: Literal["starting", "preparing", "serving", "blocked", "stopping", "stopped", "failed", "lost"]
    reason: str
    version: str
    progress: Ratio | None
    dropped: dict[str, int]
    outbox: str
    at: AwareDatetime
    clock_synchronised: bool


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
    built_at_synchronised: bool | None
    building: str | None
    loading: str | None
    why: str
    at: AwareDatetime
    clock_synchronised: bool


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
    clock_synchronised: bool


class HistoryRow(Payload):
    """One thing that happened on the device."""

    number: Annotated[int, Field(ge=1)] = Field(description="counts the device's entries from 1 on, over restarts")
    at: AwareDatetime | None = Field(description="when, by the device's clock")
    clock_synchronised: bool = Field(description="that clock was known to be right")
    happened: Literal[
        "built",
        "failed",
        "refused",
        "swapped",
        "kept",
        "rolled back",
        "strike",
        "crash",
        "adopted",
        "clock jumped",
        "clock synchronised",
        "clock unsynchronised",
    ] = Field(description="what")
    fingerprint: str | None = Field(description="first 12 digits of the plan that it happened to")
    reason: str = Field(description="why, in one line")
    asked_by: str = Field(
        description="who caused it: a person, `MQTT` and the transaction, a file, the settings, `probation`, `start`, "
        "`the clock`"
    )
    duration_s: FiniteFloat | None = Field(description="how long it took")
    figures: dict[str, FiniteFloat] = Field(description="what was measured, by name, with units")


class HistoryMessage(Payload):
    """``history``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    entries: tuple[HistoryRow, ...]
    at: AwareDatetime
    clock_synchronised: bool


class EventMessage(Payload):
    """``camera/<id>/events``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    camera: str
    epoch: str = Field(description="names the count of `seq`; another epoch counts from 0")
    seq: Annotated[int, Field(ge=0)] = Field(
        description="counts the camera's events, on over restarts; each one comes or is in a gap record"
    )
    key: str = Field(description="device/epoch/camera/events/seq, unique")
    replayed: bool
    at: AwareDatetime = Field(
        description="when the frame was captured in which it was seen, or nobody could see any more"
    )
    event: Literal["enter", "dwell", "leave", "cross"] = Field(description="what happened")
    place: str = Field(description="name of the zone or line")
    way: Literal["in", "out"] | None = Field(
        description="of a crossing: `in` is to the right of who goes from start to end"
    )
    track_id: Annotated[int, Field(ge=1)] = Field(description="of the object, as in detection messages")
    class_name: str = Field(alias="class", description="of the object")
    dwell_s: FiniteFloat | None = Field(description="how long it was in the zone, in seconds")
    reason: Literal["", "down", "camera", "frames"] = Field(
        description="of a `leave`: empty where it was seen to go, or was not seen any more; else why nobody could see"
    )


class ZoneRow(Payload):
    """A zone now."""

    name: str
    present: bool | None
    count: dict[str, int]
    entered: dict[str, int]


class LineRow(Payload):
    """A line."""

    name: str
    crossed_in: dict[str, int]
    crossed_out: dict[str, int]


class PlacesMessage(Payload):
    """``camera/<id>/places``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    camera: str
    blind: Literal["", "down", "camera", "frames"]
    zones: tuple[ZoneRow, ...]
    lines: tuple[LineRow, ...]
    since: AwareDatetime
    at: AwareDatetime


class HourRow(Payload):
    """What happened in an hour, or in a part of it."""

    hour: AwareDatetime
    clock_synchronised: bool
    seen_s: FiniteFloat
    entered: dict[str, dict[str, int]]
    crossed_in: dict[str, dict[str, int]]
    crossed_out: dict[str, dict[str, int]]


class BlindRow(Payload):
    """An interval in which nobody could see."""

    begin: AwareDatetime
    end: AwareDatetime
    length_s: FiniteFloat | None
    why: Literal["down", "camera", "frames", "several"]


class TotalsMessage(Payload):
    """``camera/<id>/totals``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    camera: str
    since: AwareDatetime
    hours: tuple[HourRow, ...]
    blind: tuple[BlindRow, ...]
    at: AwareDatetime


class ResponseMessage(Payload):
    """``response/<verb>``."""

    schema_: Literal[2] = Field(alias="schema")
    device: str
    verb: Literal["rebuild", "reload", "rollback", "snapshot", "status", "adopt"]
    transaction: str | None
    status: Literal["accepted", "ok", "error"]
    error: str
    content: dict[str, Any]
    at: AwareDatetime
    clock_synchronised: bool
