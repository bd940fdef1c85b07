"""Overview: puts the status document together from what the supervisor knows and what its parts count."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone

from vajra_edge.clock import is_synchronised
from vajra_edge.config.overrides import Overrides
from vajra_edge.config.settings import MqttSettings, Settings
from vajra_edge.daemon.app import Parts
from vajra_edge.daemon.override_views import controls_of
from vajra_edge.daemon.reconciler import DesiredPlan
from vajra_edge.daemon.stall import Stall
from vajra_edge.daemon.state_machine import State
from vajra_edge.mqtt import events
from vajra_edge.mqtt.publisher import BrokerChanged, PublishCounts
from vajra_edge.plans.fingerprint import Fingerprint
from vajra_edge.plans.spec import Precision
from vajra_edge.telemetry.plan_view import PlanView
from vajra_edge.telemetry.status import BrokerView, BuildView, EngineView, FailureView, SettingsView, StallView, Status

STALL_TOLD_S = 600.0
"""After a stall its line is part of the reason for this long; the status has the last ones."""


@dataclass(frozen=True)
class Observed:
    """What the supervisor was told lately.

    Attributes:
        settings: what it runs with.
        beneath: the same without what people changed while it ran.
        overrides: what they changed.
        desired: the newest one.
        why: the reason for it, from when it was worked out.
        served: fingerprint of the plan that serves or served last since the start; an interim plan does not count.
        weights_sha256: of the weights file, as the watch saw it last; None: it could not be read, or was not looked at.
        building: the build in flight.
        missed: a precision above that of the plan that serves, why it was missed and when it is tried again.
        broker: the newest event.
        view: of the settings file.
        trouble: the newest failure of each task in the background, by task, until the same task succeeds.
        late: loops that are silent for too long.
        stalls: times in which everything stood still, the newest last.
        before: how the process before this one ended; empty where it did in order.
        started_s: monotonic time of the start.
    """

    settings: Settings
    beneath: Settings
    overrides: Overrides = field(default_factory=dict)
    desired: DesiredPlan | None = None
    why: tuple[str, ...] = ()
    served: Fingerprint | None = None
    weights_sha256: str | None = None
    building: BuildView | None = None
    missed: str = ""
    broker: BrokerChanged = field(default_factory=lambda: BrokerChanged(connected=False))
    view: SettingsView = field(default_factory=SettingsView)
    trouble: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    stalls: tuple[Stall, ...] = ()
    before: str = ""
    started_s: float = field(default_factory=time.monotonic)


def overview(parts: Parts, s: State, known: Observed, now_s: float) -> Status:
    """Everything about the daemon, now.

    Args:
        parts: are asked for their counters.
        s: the machine's.
        known: by the supervisor.
        now_s: monotonic.
    """
    warning = _joined((parts.serving.unknown_classes(), parts.watches.doubts))
    calibration = known.desired.calibration if known.desired else ""
    instead = known.desired.backend_reason if known.desired and known.desired.instead else ""
    troubles = (f"{task}: {reason}" for task, reason in known.trouble.items())
    published, counts, synchronised = parts.serving.published(), parts.publisher.counters(), is_synchronised()
    return Status(
        device=parts.topics.device,
        phase=s.phase.value,
        reason=_joined(
            (
                *(_damage(s, known), s.why, instead, calibration, known.missed, known.view.error, warning),
                *(parts.overrides.damage, *troubles, *known.late, *_stalled(known, now_s)),
            )
        ),
        started_at=_utc(now_s - known.started_s),
        uptime_s=round(now_s - known.started_s, 1),
        pid=os.getpid(),
        engine=_engine(parts, s, known, now_s),
        cameras=tuple(
            replace(view, settings=controls_of(view.id, known.settings, known.overrides))
            for view in parts.cameras.views(published)
        ),
        stuck=parts.cameras.stuck(),
        broker=_broker(known.settings.mqtt, known.broker, counts, parts.outputs.troubles()),
        settings=replace(known.view, warning=warning),
        pipeline={**asdict(parts.serving.counters()), "published": published},
        late=known.late,
        stalls=tuple(_stall_view(stall, now_s) for stall in known.stalls),
        before=known.before,
        clock_synchronised=synchronised,
        requests_refused=parts.control.refused + counts.requests_refused + parts.gate.refused,
    )


def _stalled(known: Observed, now_s: float) -> list[str]:
    return [stall.line for stall in known.stalls[-1:] if now_s - stall.until_s <= STALL_TOLD_S]


def _stall_view(stall: Stall, now_s: float) -> StallView:
    until = _utc(now_s - stall.until_s).isoformat(timespec="seconds")
    return StallView(until, round(stall.seconds, 1), stall.line)


def _utc(ago_s: float) -> datetime:
    """So long ago, by what the wall clock says now: it may have been set since."""
    return datetime.fromtimestamp(time.time() - ago_s, timezone.utc)


def _engine(parts: Parts, s: State, known: Observed, now_s: float) -> EngineView:
    ready = parts.serving.ready
    calibration = (known.desired.calibration if known.desired else "") or _calibration(parts)
    serving = PlanView.of(ready.manifest, ready.detector.path) if ready else None
    tries_at_s, loading = s.tries_at_s, s.loading.fingerprint if s.loading else parts.serving.awaited
    if serving and calibration:  # what serves until then was asked for by us, INT8 by the operator
        serving = replace(serving, wanted_precision=Precision.INT8.value)
    return EngineView(
        wanted=s.wanted,
        serving=serving,
        calibration=calibration,
        backend_reason=known.desired.backend_reason if known.desired else "",
        instead=known.desired is not None and known.desired.instead,
        on_probation=s.probation_until_s is not None and parts.serving.awaited is None,
        building=known.building,
        loading=loading,
        damage=_damage(s, known),
        why=(known.missed,) if s.missed else known.why,
        last_error=s.why,
        retry_in_s=None if tries_at_s is None else round(tries_at_s - now_s, 1),
        failures=tuple(FailureView.of(one) for one in parts.history.failures()),
    )


def _damage(s: State, known: Observed) -> str:
    """What befell the stored plan, until the wanted one serves."""
    served = s.serving is not None and s.serving.fingerprint == s.wanted
    return known.desired.damage if known.desired and not served else ""


def _calibration(parts: Parts) -> str:
    collected = parts.pictures.collected
    if collected is None or collected.frozen:
        return ""
    return collected.line()


def _broker(mqtt: MqttSettings, told: BrokerChanged, counts: PublishCounts, of_outputs: tuple[str, ...]) -> BrokerView:
    host, port = events.address(mqtt)
    return BrokerView(
        address=f"{host}:{port}",
        connected=told.connected,
        protocol=told.protocol,
        reason=told.reason,
        connections=counts.connections,
        outbox=asdict(counts.outbox),
        troubles=(*counts.troubles, *(of_outputs if told.connected else ())),
    )


def _joined(reasons: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
