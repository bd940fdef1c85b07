"""Schema: the payloads as pydantic models, for subscribers in Python, for tests, and for a generated AsyncAPI document.

The daemon itself never imports this. Detection messages and gap records are described here alone, for ``messages.py``
writes them without a record, in a tenth of the time; the others are made from the records that they are written from.
"""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, create_model

from vajra_edge.mqtt import messages, place_messages
from vajra_edge.plans.report import Ratio


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
    precision: str = Field(description="achieved: `fp32`, `tf32`, `fp16` or `int8`")
    target: str = Field(description="where it runs: `cpu`, `gpu:0`, `dla:0` …")


class DetectionMessage(Payload):
    """``camera/<id>/detections``."""

    schema_: messages.Schema = Field(alias="schema", description="counts incompatible changes of any message")
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

    schema_: messages.Schema = Field(alias="schema", description="counts incompatible changes of any message")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str = Field(description="of the messages that do not come")
    key: str = Field(description="device/epoch/camera/from-to, unique")
    gap: GapRow = Field(description="which messages, and why; no detection message has this field")
    at: AwareDatetime = Field(description="when this was said")
    clock_synchronised: bool = Field(description="the clock that says so was known to be right")


class SnapshotComment(Payload):
    """``camera/<id>/snapshot``, in the JPEG's comment: which detection message is of this very frame."""

    schema_: messages.Schema = Field(alias="schema", description="counts incompatible changes of any message")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str | None = Field(description="of the detection message; `null` like `seq`")
    seq: Annotated[int, Field(ge=0)] | None = Field(
        description="of the detection message, which comes or is in a gap record; `null`: lost before it had a number"
    )
    key: str | None = Field(description="of the detection message; `null` like `seq`")
    taken_at: AwareDatetime = Field(description="when the frame was captured, UTC, as in the detection message")
    clock_synchronised: bool = Field(description="the clock was known to be right then, see [Time](#time)")
    frame_seq: Annotated[int, Field(ge=0)] = Field(description="of the frame, as in the detection message")


class EventMessage(Payload):
    """``camera/<id>/events``."""

    schema_: messages.Schema = Field(alias="schema", description="counts incompatible changes of any message")
    device: str = Field(description="the device's id")
    camera: str = Field(description="the camera's id")
    epoch: str = Field(description="names the count of `seq`; another epoch counts from 0")
    seq: Annotated[int, Field(ge=0)] = Field(
        description="counts the camera's events, on over restarts; each one comes or is in a gap record"
    )
    key: str = Field(description="device/epoch/camera/events/seq, unique")
    replayed: bool = Field(description="the message had to wait for the broker")
    at: AwareDatetime = Field(
        description="when the frame was captured in which it was seen, or nobody could see any more"
    )
    clock_synchronised: bool = Field(description="the clock that says so was known to be right")
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


def meanings(record: type) -> dict[str, str]:
    """What the ``Attributes:`` section of a docstring says, by name."""
    _, _, section = (inspect.getdoc(record) or "").partition("Attributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: _in_json(" ".join(words.split())) for name, words in found}


def _in_json(words: str) -> str:
    """A docstring's words about an attribute, as words about the JSON field."""
    return re.sub(r"\bNone\b", "`null`", words.replace("``", "`")).removesuffix(".")


def _written_from(name: str, record: type) -> type[Payload]:
    """The model of a message that is written from a record: its fields, each of which is always there."""
    told, shared = meanings(record), {key: info.description for key, info in DetectionMessage.model_fields.items()}
    fields: dict[str, Any] = {"schema_": (messages.Schema, Field(alias="schema", description=shared["schema_"]))}
    for key, kind in get_type_hints(record, include_extras=True).items():
        if key != "schema":
            fields[key] = (kind, Field(description=told.get(key) or shared.get(key)))
    summary = (inspect.getdoc(record) or "").partition("\n")[0]
    return create_model(name, __base__=Payload, __doc__=summary, __module__=__name__, **fields)


ServiceMessage = _written_from("ServiceMessage", messages.ServiceStatus)
EngineMessage = _written_from("EngineMessage", messages.EngineStatus)
CameraMessage = _written_from("CameraMessage", messages.CameraStatus)
ObjectsMessage = _written_from("ObjectsMessage", messages.ObjectsStatus)
HistoryMessage = _written_from("HistoryMessage", messages.HistoryStatus)
PlacesMessage = _written_from("PlacesMessage", place_messages.PlacesStatus)
TotalsMessage = _written_from("TotalsMessage", place_messages.TotalsStatus)
ResponseMessage = _written_from("ResponseMessage", messages.Response)
