"""Messages: what subscribers receive, and how it becomes bytes.

``SCHEMA`` counts incompatible changes of any payload. ``schema.py`` makes models for validation from the records here,
and describes detection messages, which are made without one; nothing on the hot path imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Annotated, ClassVar, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import AwareDatetime, ConfigDict, Field, FiniteFloat

from vajra_edge.clock import is_synchronised
from vajra_edge.mqtt.figures import DlaFigures, Int8Figures, Refused
from vajra_edge.mqtt.one_of import OneOf
from vajra_edge.mqtt.topics import VERBS, camera_of
from vajra_edge.plans.audit_log import Happened
from vajra_edge.plans.report import Count, GateFigures, Ratio
from vajra_edge.types import Detections, Frame

SCHEMA = 2
Schema: TypeAlias = Annotated[int, OneOf((SCHEMA,))]
FINGERPRINT_CHARS = 12
SERVICE_STATES = ("starting", "preparing", "serving", "blocked", "stopping", "stopped", "failed", "lost")
CAMERA_STATES = ("opening", "streaming", "lost", "ended", "off")
_OPTIONS = orjson.OPT_UTC_Z
_STEPS = np.array([1e4, *[1e2] * 4, *[1e5] * 4])  # one over the rounding of confidence, pixels, ratios
_NUMBER_BYTES = 160
_LIVE, _REPLAYED = b'"replayed":false', b'"replayed":true'


@dataclass(frozen=True)
class EngineTag:
    """Which engine found the detections.

    Attributes:
        fingerprint: of its plan, cut to ``FINGERPRINT_CHARS`` in messages.
        precision: achieved, such as ``fp16``.
        target: such as ``gpu:0`` or ``cpu``.
        class_names: by class id.
    """

    fingerprint: str
    precision: str
    target: str
    class_names: Sequence[str]


@dataclass(frozen=True)
class Number:
    """The identity of one detection message; subscribers drop a key that they have seen.

    Attributes:
        device: the device's id.
        epoch: names the count: another begins at 0, and nothing is said about the rest of the old one.
        camera: the camera's id, or the name of the stream of its events.
        seq: counts the messages of that in this epoch, from 0; it goes on over restarts.
    """

    device: str
    epoch: str
    camera: str
    seq: int

    @property
    def key(self) -> str:
        """Unique among all messages of all devices."""
        return f"{self.device}/{self.epoch}/{self.camera}/{self.seq}"


@dataclass(frozen=True)
class Draft:
    """A message that has no number yet: the outbox gives it, in the order in which it keeps messages.

    Attributes:
        camera: the camera's id, or the name of the stream of its events.
        device: the device's id.
        rest: JSON of what follows the number, without its opening brace.
    """

    camera: str
    device: str
    rest: bytes

    @property
    def size_bytes(self) -> int:
        """About what the message will have."""
        return len(self.rest) + _NUMBER_BYTES

    def numbered(self, epoch: str, seq: int) -> bytes:
        """The message as it is sent; ids hold nothing that JSON escapes."""
        key = Number(self.device, epoch, self.camera, seq).key
        head = (
            f'{{"schema":{SCHEMA},"device":"{self.device}","camera":"{camera_of(self.camera)}",'
            f'"epoch":"{epoch}","seq":{seq},"key":"{key}",'
        )
        return head.encode() + self.rest


def encode_detections(
    frame: Frame,
    detections: Detections,
    tag: EngineTag,
    device: str,
    now_ns: int,
    tracks: NDArray[np.int64] | None = None,
) -> Draft:
    """One detection message, but for its number.

    Args:
        frame: the image that the detections belong to.
        detections: in pixels of that image.
        tag: the engine that found them.
        device: the device's id.
        now_ns: ``time.monotonic_ns()``; the frame's age is taken against it.
        tracks: (n,) of each detection, 0 where it has none; None: the camera's objects are not tracked.

    Returns:
        JSON. Pixels are rounded to 0.01, ratios to 1e-5, confidence to 1e-4. A row with a number that is not
        finite is left out: JSON has no such number.
    """
    width, height = frame.resolution_wh
    content = orjson.dumps(
        {
            "replayed": False,
            "taken_at": frame.taken_at,
            "clock_synchronised": frame.clock_synchronised,
            "frame_age_ms": round((now_ns - frame.captured_ns) / 1e6, 1),
            "frame_seq": frame.seq,
            "resolution_wh": (width, height),
            "engine": {
                "fingerprint": tag.fingerprint[:FINGERPRINT_CHARS],
                "precision": tag.precision,
                "target": tag.target,
            },
            "detections": _rows(detections, (width, height), tag.class_names, tracks),
        },
        option=_OPTIONS,
    )
    return Draft(frame.camera, device, content[1:])


def encode_gap(number: Number, last: int, why: str, now: datetime, *, clock_synchronised: bool) -> bytes:
    """A gap record: the camera's messages from ``number.seq`` to ``last``, both included, do not come.

    Args:
        number: of the first of them.
        last: ``seq`` of the last of them.
        why: see ``schema.GapRow``.
        now: when this is said.
        clock_synchronised: that clock is known to be right.
    """
    return orjson.dumps(
        {
            "schema": SCHEMA,
            "device": number.device,
            "camera": camera_of(number.camera),
            "epoch": number.epoch,
            "key": f"{number.key}-{last}",
            "gap": {"from": number.seq, "to": last, "why": why},
            "at": now,
            "clock_synchronised": clock_synchronised,
        },
        option=_OPTIONS,
    )


def _rows(
    detections: Detections, resolution_wh: tuple[int, int], names: Sequence[str], tracks: NDArray[np.int64] | None
) -> list[dict[str, object]]:
    """Whole arrays are rounded and turned into lists at once; per row there is one dict display."""
    table = np.empty((len(detections), 9))  # confidence, xyxy, xyxyn
    table[:, 0] = detections.confidence
    table[:, 1:5] = detections.xyxy
    np.divide(table[:, 1:5], resolution_wh * 2, out=table[:, 5:]).clip(0.0, 1.0, out=table[:, 5:])
    table = np.rint(table * _STEPS) / _STEPS
    class_id = detections.class_id
    finite = np.isfinite(table).all(1)
    if not finite.all():
        table, class_id = table[finite], class_id[finite]
    known = len(names)
    rows: list[dict[str, object]] = [
        {
            "class_id": index,
            "class": names[index] if 0 <= index < known else str(index),
            "confidence": confidence,
            "xyxy": xyxy,
            "xyxyn": xyxyn,
        }
        for index, confidence, xyxy, xyxyn in zip(
            class_id.tolist(), table[:, 0].tolist(), table[:, 1:5].tolist(), table[:, 5:].tolist(), strict=True
        )
    ]
    if tracks is not None:
        for row, track in zip(rows, tracks[finite].tolist(), strict=True):
            row["track_id"] = track or None
    return rows


def mark_replayed(payload: bytes) -> bytes:
    """A detection message that is sent later than live; only ids that cannot hold a quote come before the mark."""
    return payload.replace(_LIVE, _REPLAYED, 1)


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class ServiceStatus:
    """``status``, retained: the daemon as a whole.

    Attributes:
        device: the device's id.
        state: starting, preparing, serving, blocked, stopping, stopped, failed, or lost (said by the broker).
        reason: why, in one line; empty while all is well.
        version: of vajra-edge.
        progress: of a running build, 0..1, or None.
        engine: fingerprint of the plan that serves, cut as in detection messages; None while nothing serves.
        wanted: fingerprint of the plan that settings and weights ask for; None: not known yet.
        dropped: detection messages that were not sent, since the start, by reason; gap records say which.
        outbox: where messages wait: ``disk``, ``memory``, ``live`` (nowhere); and why, where that is not as set.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    state: Annotated[str, OneOf(SERVICE_STATES)]
    reason: str = ""
    version: str = ""
    progress: Ratio | None = None
    engine: str | None = None
    wanted: str | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    outbox: str = ""
    clock_synchronised: bool = field(default_factory=is_synchronised)
    at: AwareDatetime = field(default_factory=_now)
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class EngineStatus:
    """``engine``, retained: what serves, and what is being built.

    Attributes:
        device: the device's id.
        fingerprint: of the plan that serves, cut as in detection messages; None while nothing serves.
        backend: such as ``onnxruntime``.
        wanted_precision: what the settings ask for.
        precision: what the plan achieved.
        target: where it runs.
        resolution_hw: input height and width in pixels.
        weights: file name of the weights.
        weights_sha256: their digest.
        class_names: by class id.
        latency_ms: measured by the accuracy check on this device.
        verify: everything the accuracy check measured.
        int8: figures of the calibration; None of a plan without INT8.
        dla: the report card; None of a plan for another target.
        refused: what the accuracy check refused before this plan.
        built_at: when the plan was built.
        built_at_synchronised: the clock that says so was known to be right then; None where no plan
            serves, or an earlier release built it.
        path: what computes where: on the GPU from the frame to its boxes, or boxes on the CPU and why.
        building: fingerprint of the plan being built, or None.
        loading: fingerprint of the plan being loaded, to serve next, or None.
        why: what befell the stored plan, why another is built or loaded, why the last build failed, what INT8 waits
            for, what the accuracy check refused.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    fingerprint: str | None = None
    backend: str = ""
    wanted_precision: str = ""
    precision: str = ""
    target: str = ""
    resolution_hw: tuple[int, int] | None = None
    weights: str = ""
    weights_sha256: str = ""
    class_names: Sequence[str] = ()
    latency_ms: FiniteFloat | None = None
    verify: GateFigures | None = None
    int8: Int8Figures | None = None
    dla: DlaFigures | None = None
    refused: tuple[Refused, ...] = ()
    built_at: datetime | None = None
    built_at_synchronised: bool | None = None
    path: str = ""
    building: str | None = None
    loading: str | None = None
    why: str = ""
    clock_synchronised: bool = field(default_factory=is_synchronised)
    at: AwareDatetime = field(default_factory=_now)
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class CameraControls:
    """What may be changed of a camera while the daemon runs, as it is now.

    Attributes:
        enabled: false: it is off.
        confidence: lowest confidence published.
        classes: names of the classes that are published; None: all.
        snapshot_every_s: a picture is sent this often, in seconds; None: on request only.
        zones: names of its zones.
        lines: names of its lines.
        changed: which of these were changed by ``set``, and differ from the settings file until ``unset``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    enabled: bool
    confidence: Ratio
    classes: Sequence[str] | None
    snapshot_every_s: FiniteFloat | None
    zones: Sequence[str]
    lines: Sequence[str]
    changed: Sequence[str]


@dataclass(frozen=True)
class CameraStatus:
    """``camera/<id>/status``, retained.

    Attributes:
        device: the device's id.
        camera: the camera's id.
        state: opening, streaming, lost, ended, or off.
        reason: why it is lost; of its address scheme and host alone.
        resolution_wh: of its frames in pixels, once known.
        fps: frames a second delivered lately, or None.
        frames: delivered since the daemon's start.
        dropped: of those, replaced by a newer one before inference.
        attempts: failed openings in a row.
        settings: what may be changed of it, as it is now; None of a daemon that has not said yet.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    camera: str
    state: Annotated[str, OneOf(CAMERA_STATES)]
    reason: str = ""
    resolution_wh: tuple[int, int] | None = None
    fps: FiniteFloat | None = None
    frames: int = 0
    dropped: int = 0
    attempts: int = 0
    settings: CameraControls | None = None
    clock_synchronised: bool = field(default_factory=is_synchronised)
    at: AwareDatetime = field(default_factory=_now)
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class ObjectsStatus:
    """``camera/<id>/objects``, retained: what the newest frame that was inferred shows.

    Attributes:
        device: the device's id.
        camera: the camera's id.
        total: objects; None: not known, since the camera does not stream, or no engine sees its frames.
        counts: the same by class; a class that is not named has none.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    camera: str
    total: Count | None = None
    counts: Mapping[str, Count] | None = None
    clock_synchronised: bool = field(default_factory=is_synchronised)
    at: AwareDatetime = field(default_factory=_now)
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class HistoryEntry:
    """One thing that happened on the device.

    Attributes:
        number: counts the device's entries from 1 on, over restarts.
        at: when, by the device's clock.
        clock_synchronised: whether that clock was known to be right.
        happened: built, failed, refused, swapped, kept, rolled back, strike, crash, adopted, clock jumped, clock
            synchronised or clock unsynchronised.
        fingerprint: first 12 digits of the plan that it happened to, or None.
        reason: why, in one line.
        asked_by: who caused it: a person, ``MQTT`` and the transaction, a file, the settings, ``probation``, ``start``,
            ``the clock``.
        duration_s: how long it took, or None.
        figures: what was measured, by name, with units.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    number: Annotated[int, Field(ge=1)]
    at: AwareDatetime | None
    clock_synchronised: bool
    happened: Annotated[str, OneOf(tuple(one.value for one in Happened))]
    fingerprint: str | None
    reason: str
    asked_by: str
    duration_s: FiniteFloat | None
    figures: Mapping[str, FiniteFloat]


@dataclass(frozen=True)
class HistoryStatus:
    """``history``, retained: the newest entries of the device's history; each new one is another message.

    Attributes:
        device: the device's id.
        entries: the newest last.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    entries: Sequence[HistoryEntry]
    clock_synchronised: bool = field(default_factory=is_synchronised)
    at: AwareDatetime = field(default_factory=_now)
    schema: Schema = SCHEMA


@dataclass(frozen=True)
class Response:
    """``response/<verb>``.

    Attributes:
        device: the device's id.
        verb: what was asked.
        transaction: the caller's own, echoed; None where it gave none.
        status: ``accepted``: it is being done, and another answer follows; ``ok`` or ``error``: the last one.
        error: one line, empty unless it failed.
        content: the verb's answer; of a request that was refused, what another try needs.
        at: when this was said.
        clock_synchronised: the clock that says so was known to be right.
    """

    device: str
    verb: Annotated[str, OneOf(VERBS)]
    transaction: str | None
    status: Annotated[str, OneOf(("accepted", "ok", "error"))]
    error: str = ""
    content: Mapping[str, object] = field(default_factory=dict)
    clock_synchronised: bool = field(default_factory=is_synchronised)
    at: AwareDatetime = field(default_factory=_now)
    schema: Schema = SCHEMA


def encode(
    message: ServiceStatus | EngineStatus | CameraStatus | ObjectsStatus | HistoryStatus | Response,
) -> bytes:
    """JSON of a status or a response; a number that is not finite becomes null."""
    return orjson.dumps(message, option=_OPTIONS | orjson.OPT_SERIALIZE_NUMPY, default=_plain)


def _plain(value: object) -> object:
    """Mappings that are not dicts, and paths."""
    return dict(value) if isinstance(value, Mapping) else str(value)
