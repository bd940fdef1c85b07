"""Status: one frozen document that says everything about the daemon.

It answers the control socket's and MQTT's ``status``, fills the retained topics and systemd's STATUS= line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from vajra_edge.capture import reconnect
from vajra_edge.capture.camera import CameraChanged, CameraCounters
from vajra_edge.mqtt.messages import CameraControls, CameraStatus, EngineStatus, ServiceStatus
from vajra_edge.plans.fingerprint import SHORT
from vajra_edge.plans.history import Failure
from vajra_edge.plans.report_json import write_verify
from vajra_edge.progress import Progress
from vajra_edge.telemetry.plan_view import PlanView
from vajra_edge.version import VERSION

_SPANS = {
    "load": (0.0, 2.0),
    "export": (2.0, 10.0),
    "simplify": (10.0, 15.0),
    "calibrate": (15.0, 30.0),
    "build": (30.0, 92.0),
    "verify": (92.0, 99.0),
    "store": (99.0, 100.0),
}
"""Share of a build in percent that each stage begins and ends at; a rough guess, for one bar that never goes back."""

_STATES: Mapping[reconnect.CameraPhase, str] = {
    reconnect.CameraPhase.BACKOFF: "lost",
    reconnect.CameraPhase.CLOSED: "off",
}
"""What people call a phase, where that is another word."""


@dataclass(frozen=True)
class BuildView:
    """A build in flight; ``percent`` is of the whole build and never goes back, ``eta_s`` of the stage."""

    fingerprint: str
    quick: bool
    stage: str = "start"
    percent: float = 0.0
    eta_s: float | None = None
    message: str = ""

    def after(self, progress: Progress) -> BuildView:
        """The view once this was reported."""
        begin, end = _SPANS.get(progress.stage, (self.percent, self.percent))
        percent = begin + (end - begin) * (progress.percent or 0.0) / 100.0
        return BuildView(
            self.fingerprint,
            self.quick,
            progress.stage,
            round(max(self.percent, min(percent, 100.0)), 1),
            progress.eta_s,
            progress.message,
        )


@dataclass(frozen=True)
class FailureView:
    """A plan that failed, see ``history.Failure``.

    Attributes:
        at: when, UTC, ISO 8601, the newest last.
        follows: what comes of it, in words.
        retry_at: when it is tried again by itself; None: at no set time, or not at all.
        clock_synchronised: these times are all by a clock that was known to be right.
    """

    fingerprint: str
    cause: str
    reason: str
    at: tuple[str, ...]
    follows: str
    retry_at: str | None = None
    clock_synchronised: bool = True

    @classmethod
    def of(cls, failure: Failure) -> FailureView:
        """For people and programs."""
        at = tuple(_utc(at_s) for at_s in failure.times_s)
        retry_at = None if failure.retry_at_s is None else _utc(failure.retry_at_s)
        cause, follows = failure.cause.value, failure.follows.value
        return cls(failure.fingerprint, cause, failure.reason, at, follows, retry_at, not failure.unsure)


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class EngineView:
    """Plans: wanted, serving, being built, and why.

    Attributes:
        wanted: fingerprint that settings and weights ask for; None: not known yet.
        serving: the plan that takes the frames.
        on_probation: it replaced another lately and may still be taken back.
        building: the build in flight.
        loading: fingerprint of the plan that is being loaded and warmed up, to serve next.
        damage: what befell the stored plan that the wanted one follows; empty once that serves.
        calibration: what INT8 waits for: how many images the cameras gave, or why its images cannot be used; empty
            while it waits for nothing.
        backend_reason: why its library was taken, and how that reaches CUDA; empty while that is not known.
        instead: that library is second best: something on this machine keeps a faster one from it, see the reason.
        why: what befell the stored plan, and what differs between the wanted plan and the one that served when it was
            wanted, or had served last, one phrase a part; or which precision was missed and is tried again.
        last_error: why the newest build or load failed; empty once the wanted plan serves.
        retry_in_s: time until it is tried again by itself.
        failures: plans that failed on this device, the newest last.
    """

    wanted: str | None = None
    serving: PlanView | None = None
    on_probation: bool = False
    building: BuildView | None = None
    loading: str | None = None
    damage: str = ""
    calibration: str = ""
    backend_reason: str = ""
    instead: bool = False
    why: tuple[str, ...] = ()
    last_error: str = ""
    retry_in_s: float | None = None
    failures: tuple[FailureView, ...] = ()


@dataclass(frozen=True)
class CameraView:
    """One camera; see ``CameraStatus`` and ``CameraCounters`` for the meaning of each field."""

    id: str
    state: str
    reason: str = ""
    attempts: int = 0
    retry_in_s: float | None = None
    frames: int = 0
    dropped: int = 0
    decode_errors: int = 0
    losses: int = 0
    fps: float = 0.0
    published: int = 0
    resolution_wh: tuple[int, int] | None = None
    pid: int | None = None
    starts: int = 0
    memory_bytes: int = 0
    settings: CameraControls | None = None

    @classmethod
    def of(cls, told: CameraChanged, counters: CameraCounters, published: int) -> CameraView:
        """From what its grabber told last and counts."""
        return cls(
            told.camera,
            _STATES.get(told.phase, told.phase.value),
            told.reason,
            told.attempts,
            told.retry_in_s,
            frames=counters.frames_read,
            dropped=counters.frames_dropped,
            decode_errors=counters.decode_errors,
            losses=counters.losses,
            fps=round(counters.fps, 2),
            published=published,
            resolution_wh=counters.resolution_wh,
            pid=counters.pid,
            starts=counters.starts,
            memory_bytes=counters.memory_bytes,
        )


@dataclass(frozen=True)
class StuckView:
    """A camera's process that was killed and sleeps in the kernel; ``pid`` is 0 where it never told its own."""

    camera: str
    pid: int


@dataclass(frozen=True)
class BrokerView:
    """The MQTT side.

    Attributes:
        outbox: the counts of ``mqtt.outbox``.
        troubles: what was refused, dropped or taken away lately, a line each, be it connected or not.
    """

    address: str
    connected: bool = False
    protocol: str = ""
    reason: str = ""
    connections: int = 0
    outbox: Mapping[str, Any] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True)
class OverrideView:
    """A setting that somebody changed while the daemon ran.

    Attributes:
        setting: its name.
        value: what it was changed to.
        by: who did.
        at: when, UTC, ISO 8601.
        clock_synchronised: the clock that says so was known to be right.
        beneath: what it would be without that; None too where it is not set.
        origin: what that is from: ``file``, ``environment`` or ``default``; empty where the change has no effect.
        idle: why it has none; empty where it has.
    """

    setting: str
    value: object
    by: str
    at: str
    clock_synchronised: bool
    beneath: object = None
    origin: str = ""
    idle: str = ""


@dataclass(frozen=True)
class SettingsView:
    """The settings file; ``error`` says why a newer one was not taken, ``restart`` which changes wait for a restart.

    ``overrides`` lie over the file and the environment.
    """

    path: str = ""
    error: str = ""
    warning: str = ""
    restart: tuple[str, ...] = ()
    overrides: tuple[OverrideView, ...] = ()


@dataclass(frozen=True)
class StallView:
    """The whole daemon stood still: until when (UTC, ISO 8601), for how long, and what that looks like."""

    until: str
    seconds: float
    line: str


@dataclass(frozen=True)
class Status:
    """Everything.

    Attributes:
        phase: of the service, see ``state_machine.Phase``.
        reason: why all is not well, in one line; empty while it is.
        late: loops that are silent for too long; what follows from that is in ``daemon.watchdog``.
        stuck: processes of cameras that cannot be ended.
        stalls: the last times in which everything stood still, which is no loop's fault and no plan's.
        before: how the process before this one ended and whom that is charged to; empty where it did in order.
        pipeline: ``PipelineCounters`` as a mapping.
        clock_synchronised: the clock that ``started_at`` and the times of ``stalls`` are by is known to be right.
        requests_refused: those that came too often, over the control socket and MQTT, and over MQTT those that were not
            of now, not for the first time or not signed, since the start.
    """

    device: str
    phase: str
    reason: str
    started_at: datetime
    uptime_s: float
    pid: int
    engine: EngineView = EngineView()
    cameras: tuple[CameraView, ...] = ()
    broker: BrokerView = BrokerView("")
    settings: SettingsView = SettingsView()
    pipeline: Mapping[str, Any] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    stuck: tuple[StuckView, ...] = ()
    stalls: tuple[StallView, ...] = ()
    before: str = ""
    requests_refused: int = 0
    clock_synchronised: bool = False
    version: str = VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        if (serving := self.engine.serving) is not None:
            plain["engine"]["serving"]["verify"] = write_verify(serving.verify)
        return plain

    def line(self) -> str:
        """One line for ``systemctl status``."""
        parts = [self.phase]
        if (serving := self.engine.serving) is not None:
            parts = [f"{self.phase} {serving.fingerprint[:SHORT]} ({serving.precision} on {serving.target})"]
        if (building := self.engine.building) is not None:
            eta = f", {building.eta_s:.0f} s left" if building.eta_s is not None else ""
            parts.append(f"building {building.fingerprint[:SHORT]} {building.percent:.0f}% ({building.stage}{eta})")
        if self.engine.loading is not None:
            parts.append(f"loading {self.engine.loading[:SHORT]}")
        if self.engine.calibration and self.engine.calibration not in self.reason:
            parts.append(self.engine.calibration)
        if self.cameras:
            streaming = sum(camera.state == "streaming" for camera in self.cameras)
            parts.append(f"{streaming} of {len(self.cameras)} cameras")
        if not self.broker.connected:
            parts.append("no broker")
        return "; ".join([*parts, *((self.reason,) if self.reason else ())])

    def service_message(self) -> ServiceStatus:
        """For the topic ``status``."""
        building = self.engine.building
        return ServiceStatus(
            device=self.device,
            state=self.phase,
            reason=self.reason,
            version=self.version,
            progress=None if building is None else round(building.percent / 100.0, 2),
            engine=None if self.engine.serving is None else self.engine.serving.fingerprint[:SHORT],
            wanted=None if self.engine.wanted is None else self.engine.wanted[:SHORT],
            dropped=dict(self.broker.outbox.get("dropped", {})),
            outbox=": ".join(filter(None, (self.broker.outbox.get(name, "") for name in ("kept", "trouble")))),
        )

    def engine_message(self) -> EngineStatus:
        """For the topic ``engine``."""
        building, loading, serving = self.engine.building, self.engine.loading, self.engine.serving
        known = EngineStatus(
            self.device,
            building=None if building is None else building.fingerprint[:SHORT],
            loading=None if loading is None else loading[:SHORT],
            why="; ".join(dict.fromkeys(self._why())),
        )
        if serving is None:
            return known
        figures = serving.verify.figures if serving.verify is not None else None
        return EngineStatus(
            device=self.device,
            fingerprint=serving.fingerprint[:SHORT],
            backend=serving.backend,
            wanted_precision=serving.wanted_precision,
            precision=serving.precision,
            target=serving.target,
            resolution_hw=serving.resolution_hw,
            weights=serving.weights,
            weights_sha256=serving.weights_sha256,
            class_names=serving.class_names,
            latency_ms=figures.latency_p50_ms if figures is not None else None,
            verify=figures,
            int8=serving.int8,
            dla=serving.dla,
            refused=serving.refused,
            built_at=datetime.fromisoformat(serving.built_at.replace("Z", "+00:00")),  # Python 3.10 reads no Z
            built_at_synchronised=serving.built_at_synchronised,
            path=serving.path,
            building=known.building,
            loading=known.loading,
            why=known.why,
        )

    def _why(self) -> Iterator[str]:
        """Why the engine is not what the settings ask for, or is about to change."""
        if self.engine.damage:
            yield self.engine.damage
        if self.engine.last_error:
            yield self.engine.last_error
        elif self.engine.building or self.engine.loading:
            yield from self.engine.why
        if self.engine.instead:
            yield self.engine.backend_reason
        if self.engine.calibration:
            yield self.engine.calibration
        if self.engine.serving:
            yield from self.engine.serving.rejected

    def camera_messages(self) -> tuple[CameraStatus, ...]:
        """For the topics ``camera/<id>/status``."""
        return tuple(
            CameraStatus(
                device=self.device,
                camera=camera.id,
                state=camera.state,
                reason=camera.reason,
                resolution_wh=camera.resolution_wh,
                fps=camera.fps,
                frames=camera.frames,
                dropped=camera.dropped,
                attempts=camera.attempts,
                settings=camera.settings,
            )
            for camera in self.cameras
        )
