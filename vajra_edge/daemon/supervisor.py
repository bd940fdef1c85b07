"""Supervisor: takes events from one inbox, lets the machine decide, and has its actions performed. Nobody else decides.

Whatever happens to the daemon arrives in the inbox: signals, the build child's news, finished loads, changed files,
requests, lost cameras. Whatever takes long is done elsewhere, so that one turn of this loop takes milliseconds. It
looks at everything when it is due, however much waits, and gives all who ask between two looks one document.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from typing_extensions import assert_never

from vajra_edge.build.request import weights_digest
from vajra_edge.bundles.shelf import Adopted
from vajra_edge.capture.camera import CameraChanged
from vajra_edge.config.overrides import laid_over, turned_off
from vajra_edge.config.settings import Settings
from vajra_edge.daemon import build_outcomes, build_process, events, state_machine
from vajra_edge.daemon import file_watcher as reload_
from vajra_edge.daemon.adoption import Chosen, Settled
from vajra_edge.daemon.app import Parts
from vajra_edge.daemon.background import TaskFailed, TaskMended
from vajra_edge.daemon.calibration_images import ImagesMoved
from vajra_edge.daemon.control.callers import (
    Caller,
    MqttCaller,
    Preview,
    RebuildAsked,
    ReloadAsked,
    SocketCaller,
    Waiting,
)
from vajra_edge.daemon.control.server import Asked
from vajra_edge.daemon.deployment import Served
from vajra_edge.daemon.file_watcher import FileChanged
from vajra_edge.daemon.inbox import Heard
from vajra_edge.daemon.missed_precisions import MissedSeen
from vajra_edge.daemon.override_desk import Overridden
from vajra_edge.daemon.override_views import answer_of, views_of
from vajra_edge.daemon.overview import Observed, overview
from vajra_edge.daemon.reconciler import DesiredPlan, Reconciled, Reconciler
from vajra_edge.daemon.recorder import MachineStep
from vajra_edge.daemon.request_gate import SignatureChecked
from vajra_edge.daemon.sample_collector import ImagesChanged
from vajra_edge.daemon.state_machine import Phase, State, advance
from vajra_edge.daemon.watchdog import WATCH, Late
from vajra_edge.errors import ControlError, VajraError
from vajra_edge.inference import pipeline
from vajra_edge.mqtt.commands import Requested
from vajra_edge.mqtt.picture import SnapshotSent
from vajra_edge.mqtt.publisher import BrokerChanged
from vajra_edge.mqtt.topics import INSTALL
from vajra_edge.plans.audit_log import AuditEntry, Happened
from vajra_edge.telemetry.plan_view import PlanView
from vajra_edge.telemetry.status import BuildView, SettingsView, Status

log = logging.getLogger(__name__)

TICK_S = 0.5
"""Time between two looks at everything that sends no events."""

SETTINGS_FILE = "the settings file"
"""Asks for plans, where it was changed; it is read at each start too."""

LEAVE_S = 2.0
"""Drain time of a process that must go because its library may be spoilt."""


class Supervisor:
    """The daemon's main loop.

    Args:
        parts: made by ``wiring.assemble`` for the same settings.
        settings: the operator's.
        path: the settings file, read again on changes; None: there is none.
        given: values over the file's, as at the start.
    """

    def __init__(
        self, parts: Parts, settings: Settings, path: Path | None, given: Mapping[str, Any] | None = None
    ) -> None:
        self._parts, self._path, self._given = parts, path, given
        self._s = State()
        overrides = parts.overrides.kept
        view = SettingsView(str(path or ""), overrides=views_of(overrides, settings))
        self._known = Observed(laid_over(settings, overrides), settings, overrides, view=view)
        self._reconciler = Reconciler(parts.desired_plans, parts.images, parts.background)
        self._waiting = Waiting()
        self._leaving: list[events.Job] = []
        self._next_tick_s = 0.0
        self._told: orjson.Fragment | None = None
        self._unseen = False
        self._keys_known = False
        self._exit_code: int | None = None
        self._shut = False
        self._late: tuple[str, ...] = ()
        self._noting: threading.Thread | None = None
        self._wanted_line = ""

    def run(self) -> int:
        """Serve until a signal or the end of what was asked for; returns the exit code."""
        try:
            death = self._parts.start(self._known.settings, self._path)
            self._known = replace(self._known, before=death.line if death else "")
            self._parts.recorder.start(death)
            self._parts.adoption.start()
            self._parts.notify.ready(self.status().line())
            while self._exit_code is None:
                self._turn()
        finally:
            self._stop_all(LEAVE_S)
        return self._exit_code

    def status(self) -> Status:
        """Everything about the daemon, now."""
        return overview(self._parts, self._s, self._known, time.monotonic())

    def _document(self) -> orjson.Fragment:
        """``status`` as JSON, put together once for all who ask before anything happens or a tick is due."""
        if self._told is None:
            plain = self.status().to_json()
            self._told = orjson.Fragment(orjson.dumps(plain, default=str, option=orjson.OPT_SERIALIZE_NUMPY))
        return self._told

    def _turn(self) -> None:
        if (now_s := time.monotonic()) >= self._next_tick_s:
            self._told = None
            self._tick(now_s)
            self._next_tick_s = time.monotonic() + TICK_S
        heard = self._parts.inbox.get(self._next_tick_s - time.monotonic())
        if heard is None:
            return
        if not isinstance(heard, Asked | Requested):
            self._told = None
        self._take(heard)
        self._tell_waiting()

    def _take(self, heard: Heard) -> None:
        match heard:
            case FileChanged():
                self._file_changed(heard)
            case ReloadAsked() | Asked() | Requested() | SignatureChecked():
                self._requested(heard)
            case CameraChanged() | BrokerChanged() | SnapshotSent():
                self._outside_told(heard)
            case Reconciled() | ImagesChanged() | ImagesMoved() | MissedSeen() | Chosen() | Settled() | Overridden():
                self._desk_told(heard)
            case TaskFailed() | TaskMended():
                self._task_told(heard)
            case build_process.BuildProgressed() | build_process.BuildSucceeded() | build_process.ChildFailed():
                self._builder_told(heard)
            case pipeline.Swapped():
                self._swapped(heard)
            case pipeline.LoopFailed():
                self._infer_failed(heard)
            case pipeline.Exhausted():
                self._advance(events.Stop())
            case _:
                self._advance(heard)

    def _outside_told(self, told: CameraChanged | BrokerChanged | SnapshotSent) -> None:
        match told:
            case CameraChanged():
                self._parts.cameras.changed(told)
                self._parts.trackers.changed(told)
                self._parts.watches.changed(told)
            case BrokerChanged():
                self._known = replace(self._known, broker=told)
            case SnapshotSent():
                self._parts.asked_pictures.sent(told)
            case _:
                assert_never(told)

    def _requested(self, asked: ReloadAsked | Asked | Requested | SignatureChecked) -> None:
        match asked:
            case ReloadAsked():
                self._reload(asked)
            case Asked(_, verb, fields):
                self._answer(SocketCaller(self._parts.control, asked), verb, fields)
            case Requested():
                self._let_in(self._parts.gate.take(asked, self._known.settings))
            case SignatureChecked():
                self._let_in(self._parts.gate.checked(asked))
            case _:
                assert_never(asked)

    def _let_in(self, caller: MqttCaller | None) -> None:
        if caller is not None:
            self._answer(caller, caller.request.verb, caller.request.payload)

    def _desk_told(
        self, told: Reconciled | ImagesChanged | ImagesMoved | MissedSeen | Chosen | Settled | Overridden
    ) -> None:
        match told:
            case Overridden():
                self._overridden(told)
            case Reconciled():
                self._reconciled(told)
            case ImagesChanged():
                self._work_out()
            case ImagesMoved():
                self._reconciler.moved(self._known.settings, self._known.weights_sha256)
            case MissedSeen():
                self._missed_seen(told)
            case Chosen() | Settled():
                self._adoption_told(told)
            case _:
                assert_never(told)

    def _task_told(self, told: TaskFailed | TaskMended) -> None:
        trouble = {task: reason for task, reason in self._known.trouble.items() if task != told.name}
        if isinstance(told, TaskFailed):
            trouble[told.name] = told.reason
        self._known = replace(self._known, trouble=trouble)

    def _adoption_told(self, told: Chosen | Settled) -> None:
        if isinstance(told, Chosen):
            if self._parts.adoption.chosen(told):
                self._parts.recorder.because(told.caller.who if told.caller else "start")
                self._work_out()
            return
        outcome = told.outcome
        if outcome.bundle and (outcome.adopted is not Adopted.SERVING or told.caller is None):
            happened = {Adopted.SERVING: Happened.ADOPTED, Adopted.REFUSED: Happened.REFUSED}
            reason = f"bundle {outcome.bundle[:12]}, serial {outcome.serial}: {outcome.reason or 'it serves'}"
            who = told.caller.who if told.caller else ""
            entry = AuditEntry(happened.get(outcome.adopted, Happened.ROLLED_BACK), self._s.wanted or "", reason, who)
            self._parts.recorder.note(entry)
        self._parts.adoption.settled(told)
        if told.changed:
            self._work_out()

    def _builder_told(self, told: build_process.BuildEvent) -> None:
        match told:
            case build_process.BuildProgressed():
                self._progressed(told)
            case build_process.BuildSucceeded() | build_process.ChildFailed():
                self._build_ended(told)
            case _:
                assert_never(told)

    def _tick(self, now_s: float) -> None:
        self._advance(events.Tick(now_s))
        self._look_after_threads(now_s)
        for told in self._parts.clock_watch.look():
            log.warning("%s: %s", told.happened.value, told.reason)
            self._parts.recorder.note(told)
        self._parts.plans.tick(self._s.serving, now_s)
        if self._s.probation_until_s is not None and (reason := self._parts.serving.unfit()):
            self._advance(events.Unfit(reason))
        off = turned_off(self._known.settings, self._known.overrides)
        if not off and self._parts.cameras.exhausted(self._parts.serving.published()):
            log.info("every camera is a file that has ended")
            self._advance(events.Stop())
        if self._waits_for_images():
            self._parts.images.tick(self._known.settings, now_s)
        self._look_for_missed(now_s)
        self._announce(now_s)
        self._parts.watches.tick(now_s)
        self._parts.adoption.look(self._s, self._known.desired, now_s)
        self._parts.asked_pictures.look(self._s, lambda: self._parts.cameras.views({}), now_s)
        self._parts.announcements.tell_history(self._parts.recorder.newest(), now_s)
        self._tell_waiting()

    def _announce(self, now_s: float) -> None:
        status = self.status()
        self._parts.announcements.say(status, now_s)
        self._parts.told_cameras.tell()
        self._parts.home_assistant.tell(status)
        self._parts.outputs.tell(status)

    def _look_after_threads(self, now_s: float) -> None:
        """Who is late, what follows from it, and whether all stood still."""
        serving, published = self._s.serving is not None, self._parts.serving.published()
        self._parts.background.tick()
        self._parts.pictures.tick()
        read = sum(camera.frames for camera in self._parts.cameras.views(published))
        self._parts.flow.tick(read, sum(published.values()), serving=serving)
        late = self._parts.watchdog.tick(now_s, serving=serving)
        self._note_late(late, serving=serving)
        self._note_stalls()
        self._do_without_weights(any(one.name == WATCH.name for one in late))

    def _note_late(self, late: tuple[Late, ...], *, serving: bool) -> None:
        """The next process wants to know who kept the watchdog from its food, should this be the end.

        In a thread of its own, one at a time: the desk may be the one that is late, and the disk may be stuck.
        """
        names = tuple(sorted(one.name for one in late if one.starves(serving=serving)))
        if names != self._late and (self._noting is None or not self._noting.is_alive()):
            self._late, note = names, self._parts.crash_log.late
            self._noting = threading.Thread(target=note, args=(names,), name="crash log", daemon=True)
            self._noting.start()
        self._known = replace(self._known, late=tuple(str(one) for one in late))

    def _note_stalls(self) -> None:
        stalls = self._parts.beats.stalls()
        for stall in stalls:
            if stall not in self._known.stalls:
                log.warning("%s; no loop is late for that", stall.line)
        self._known = replace(self._known, stalls=stalls)

    def _do_without_weights(self, hidden: bool) -> None:
        """A disk that hangs under the weights must not keep the last good plan from serving."""
        if hidden and not self._unseen and self._known.desired is None and self._s.serving is None:
            path = self._known.settings.weights.path
            self._reconciler.unseen(f"weights {path} cannot be looked at: the disk does not answer; check its mount")
        self._unseen = hidden

    def _advance(self, event: events.Event) -> None:
        self._told = None
        before = self._s
        self._s, actions = advance(self._s, event)
        build_outcomes.note(self._parts.history, event, before, self._s)
        self._parts.adoption.heard(actions, self._s.wanted)
        self._parts.recorder.advanced(MachineStep(event, before, self._s, actions), self._parts.serving.compared())
        news = (before.phase, before.why) != (self._s.phase, self._s.why)
        if news and self._s.phase is not Phase.STOPPED:  # the last word is that of ``Parts.stop``
            log.info("%s%s", self._s.phase.value, f": {self._s.why}" if self._s.why else "")
        for action in actions:
            self._perform(action)
        if self._s.building is None and self._known.building is not None:
            self._known = replace(self._known, building=None)

    def _perform(self, action: events.Action) -> None:
        plans = self._parts.plans
        match action:
            case events.Build(job, quick):
                self._known = replace(self._known, building=BuildView(job.fingerprint, quick))
                plans.build(action, self._known.desired)
            case events.CancelBuild():
                plans.cancel()
            case events.Load(job):
                plans.load(job)
            case events.Swap(job):
                self._swap(job)
            case events.Retire(job):
                self._leaving.append(job)
                self._let_go()
            case events.Reconsider(without):
                self._reconciler.again(self._known.settings, self._known.weights_sha256, without)
            case events.StopAll():
                self._stop_all(self._known.settings.service.drain_s)
                self._parts.inbox.put(events.Drained())
            case events.Exit(code):
                self._exit_code = code
            case events.MarkGood() | events.Discard() | events.Strike() | events.Reject():
                plans.remember(action, keep=self._s.wanted)
            case _:
                assert_never(action)

    def _swap(self, job: events.Job) -> None:
        """Ask the frame loop, which ends with the old plan first; ``_swapped`` hears when it is done.

        A crash meanwhile is charged to the new plan already: charged too early, a plan has one strike too many; too
        late, a plan that crashes on its first frame would have the old one rejected in its place.
        """
        self._parts.crash_log.serving(job.fingerprint)
        self._parts.serving.swap(job, self._parts.plans.ready(job))

    def _swapped(self, event: pipeline.Swapped[Served]) -> None:
        if self._shut:
            return
        served, desired = self._parts.serving.swapped(event), self._known.desired
        if desired is None or not desired.interim(served.job.fingerprint):
            self._known = replace(self._known, served=served.ready.manifest.fingerprint)
        self._parts.cameras.release()
        log.info("plan %s serves", served.job.fingerprint[:12])
        instead = self._s.why if served.job.fingerprint != self._s.wanted else ""
        why = instead or "; ".join(self._known.why)
        self._parts.recorder.note(
            AuditEntry(Happened.SWAPPED, served.job.fingerprint, why, figures=served.ready.figures)
        )
        self._let_go()

    def _let_go(self) -> None:
        """Close the detectors that the frame loop has no use for (any more)."""
        leaving, self._leaving = self._leaving, []
        for job in leaving:
            if self._parts.serving.holds(job):
                self._leaving.append(job)
            else:
                self._parts.plans.retire(job)

    def _waits_for_images(self) -> bool:
        """INT8 is asked for, is not what serves, and nothing is being done about it."""
        served = self._s.serving is not None and self._s.serving.fingerprint == self._s.wanted
        lowered = self._known.desired is not None and bool(self._known.desired.calibration)
        return self._s.step is state_machine.Step.IDLE and self._s.building is None and (lowered or not served)

    def _look_for_missed(self, now_s: float) -> None:
        """Where a plan of a lower precision than was asked for serves and nothing is under way."""
        ready, desired = self._parts.serving.ready, self._known.desired
        lower = ready is not None and ready.manifest.precision is not ready.manifest.wanted.precision
        if lower and desired is not None and self._s.rests:
            self._parts.missed.tick(desired.request, desired.fingerprint.digest, now_s)
        elif self._known.missed and not self._s.missed:
            self._parts.missed.soon()
            self._known = replace(self._known, missed="")

    def _missed_seen(self, seen: MissedSeen) -> None:
        if seen.fingerprint != self._s.wanted:
            return
        self._known = replace(self._known, missed=seen.line)
        if seen.due:
            self._parts.missed.soon()
            self._advance(events.TryMissed(seen.fingerprint))

    def _file_changed(self, changed: FileChanged) -> None:
        if changed.name == "settings":
            if changed.digest is not None and reload_.moved_on(changed):
                return  # it is being written again; the watch tells once it has settled
            self._reload(ReloadAsked(look=False))
            return
        if changed.name == "keys":
            self._keys_changed(changed)
            return
        if self._known.weights_sha256 is not None:
            self._parts.recorder.because("the weights file")
        self._known = replace(self._known, weights_sha256=changed.digest)
        if changed.digest is None:
            log.warning("%s", changed.reason)
        self._work_out()

    def _keys_changed(self, changed: FileChanged) -> None:
        """Whom to trust; the first look comes before anything is worked out."""
        first, self._keys_known = not self._keys_known, True
        if not first:
            log.warning("the trusted keys are others now%s", f": {changed.reason}" if changed.reason else "")
            self._parts.recorder.because("the trusted keys")
            self._work_out()

    def _work_out(self, asked: RebuildAsked | None = None) -> None:
        self._reconciler.work_out(self._known.settings, self._known.weights_sha256, asked)

    def _reconciled(self, reconciled: Reconciled) -> None:
        desired, asked, now_s = reconciled.desired, reconciled.asked, time.monotonic()
        if not (reconciled.held or (asked and asked.dry_run)):
            self._parts.images.used(reconciled.looked, now_s)
        if isinstance(desired, events.Unknown):
            if not (asked and asked.dry_run):
                self._advance(reconciled.event(now_s))
                self._parts.adoption.unknown(desired.reason)
            if asked:
                asked.caller.error(desired.reason)
            return
        if asked and not asked.dry_run:
            self._parts.recorder.because(asked.caller.who)
        serving = self._s.serving.fingerprint if self._s.serving else None
        if asked and asked.dry_run:
            asked.caller.done(desired.preview(serving, self._known.served, force=asked.force).answer())
            return
        self._known = replace(self._known, desired=desired, why=desired.why(self._known.served))
        before = self._s
        self._advance(reconciled.event(now_s))
        if self._s.building or self._s.loading:
            self._say_wanted(desired, anew=(before.building, before.loading) != (self._s.building, self._s.loading))
        if asked:
            self._obey(asked, desired, reconciled.refused, serving)

    def _say_wanted(self, desired: DesiredPlan, *, anew: bool) -> None:
        """What is on its way and why; what is only worked out again meanwhile, and comes to the same, is no news."""
        why = "; ".join(self._known.why) or "it served last"
        line = f"plan {desired.fingerprint.short} is wanted ({desired.backend_reason}): {why}"
        if anew or line != self._wanted_line:
            log.info("%s", line)
        self._wanted_line = line

    def _obey(self, asked: RebuildAsked, desired: DesiredPlan, refused: str, serving: str | None) -> None:
        """Do what was asked for, or say why not; what is wanted is known to the machine already."""
        if refused:
            self._parts.recorder.note(AuditEntry(Happened.REFUSED, reason=f"rollback: {refused}"))
            asked.caller.error(refused)
        elif asked.rollback:
            self._parts.recorder.note(
                AuditEntry(Happened.ROLLED_BACK, serving or "", "somebody asked for the plan before")
            )
            self._rebuild(asked, desired.preview(serving, self._known.served))
        elif desired.pinned:
            asked.caller.error(f"plan {desired.fingerprint.short} serves, for {desired.why()[0]}")
        elif desired.rejected and not asked.force:
            asked.caller.error(desired.rejected)
        else:
            self._rebuild(asked, desired.preview(serving, self._known.served, force=asked.force))

    def _rebuild(self, asked: RebuildAsked, preview: Preview) -> None:
        serving = self._serving()
        self._advance(events.Rebuild(asked.force))
        if asked.wait:
            self._waiting.add(asked.caller, preview, serving)
        else:
            asked.caller.done(preview.answer(started=self._s.building is not None))

    def _answer(self, caller: Caller, verb: str, fields: Mapping[str, Any]) -> None:
        try:
            if verb == "status":
                caller.done({"status": self._document()})
            elif verb == "reload":
                self._parts.recorder.because(caller.who)
                self._reload(ReloadAsked(caller))
            elif verb == "adopt":
                self._adopt(caller, fields)
            elif verb == "snapshot":
                self._parts.asked_pictures.add(caller, fields, self._known.settings, time.monotonic())
            elif verb == "set":
                ready = self._parts.serving.ready
                names = ready.manifest.signature.class_names if ready else ()
                self._parts.overrides.set(caller, fields, self._known.settings, names)
            elif verb == "unset":
                self._parts.overrides.unset(caller, fields)
            elif verb == INSTALL:
                force = self._s.serving is None or self._s.serving.fingerprint != self._s.wanted
                self._work_out(RebuildAsked(caller, force=force, wait=False))
            elif verb == "rollback":
                self._work_out(RebuildAsked.of(caller, {**fields, "rollback": True}))
            else:
                self._work_out(RebuildAsked.of(caller, fields))
        except VajraError as error:
            caller.error(str(error))

    def _adopt(self, caller: Caller, fields: Mapping[str, Any]) -> None:
        keys = self._known.settings.weights.keys
        if isinstance(caller, MqttCaller):
            self._parts.adoption.ask_by_name(caller, fields, keys)
            return
        if not caller.may_adopt:
            raise ControlError("new weights are given by root or the service's own user", remedy="use sudo")
        self._parts.adoption.ask(caller, fields, keys)

    def _reload(self, asked: ReloadAsked) -> None:
        """Take new settings if they are valid; a request also looks at the weights file at once."""
        self._parts.notify.reloading()
        error = ""
        try:
            reloaded = reload_.reload(self._known.settings, self._path, self._given, self._known.overrides)
        except VajraError as refused:
            error = str(refused)
            log.warning("settings stay as they are: %s", error)
            refusal = f"settings stay as they are: {error}"
            self._parts.recorder.note(AuditEntry(Happened.REFUSED, reason=refusal, asked_by=SETTINGS_FILE))
        else:
            views = views_of(self._known.overrides, reloaded.beneath)
            view = replace(self._known.view, restart=reloaded.restart, overrides=views)
            self._known = replace(self._known, settings=reloaded.settings, beneath=reloaded.beneath, view=view)
            error = self._apply(reloaded, look=asked.look)
        self._known = replace(self._known, view=replace(self._known.view, error=error))
        self._parts.notify.ready(self.status().line())
        if asked.caller and error:
            asked.caller.error(error)
        elif asked.caller:
            self._told = None
            asked.caller.done({"status": self._document()})

    def _apply(self, reloaded: reload_.Reloaded, *, look: bool) -> str:
        """Do what new settings ask for; returns why a part of them could not be done, or an empty text."""
        try:
            if self._parts.apply(reloaded):
                self._parts.recorder.because(SETTINGS_FILE)
                self._work_out()
            elif look:
                self._parts.watch.follow("weights", reloaded.settings.weights.path, weights_digest)
        except VajraError as failed:
            log.error("settings are taken in part: %s", failed)  # noqa: TRY400  the line says all
            return f"settings are taken in part: {failed}"
        return ""

    def _overridden(self, told: Overridden) -> None:
        """Run with what somebody changed, once it is on disk; the settings file is not looked at for that."""
        if told.overrides is None:
            told.caller.error(str(told.refusal))
            return
        log.info("%s changed %s", told.caller.who, ", ".join(told.changed))
        reloaded = reload_.changed(self._known.settings, self._known.beneath, told.overrides)
        views = views_of(told.overrides, reloaded.beneath)
        view = replace(self._known.view, overrides=views)
        self._known = replace(self._known, settings=reloaded.settings, overrides=told.overrides, view=view)
        if error := self._apply(reloaded, look=False):
            told.caller.error(error)
            return
        self._told = None
        told.caller.done(answer_of(told.changed, reloaded.settings, views))

    def _progressed(self, event: build_process.BuildProgressed) -> None:
        if self._parts.plans.is_current(event.job_id) and self._known.building is not None:
            self._known = replace(self._known, building=self._known.building.after(event.progress))

    def _build_ended(self, event: build_process.BuildSucceeded | build_process.ChildFailed) -> None:
        ended = self._parts.plans.ended(event)
        if isinstance(ended, events.BuildFailed):
            ended = build_outcomes.weighed(event, ended, self._s, self._known, self._reconciler)
        if ended is not None:
            self._advance(ended)

    def _infer_failed(self, event: pipeline.LoopFailed[Served]) -> None:
        if not self._parts.serving.lost(event):
            log.warning("plan %s failed on its last frames: %s", event.plan.job.fingerprint[:12], event.reason)
            return
        log.error("inference failed: %s", event.reason)
        self._advance(events.InferFailed(event.reason))

    def _tell_waiting(self) -> None:
        if not self._waiting:
            return
        swapping = self._parts.serving.awaited is not None
        self._waiting.look(self._s, self._serving(), self._known.building, time.monotonic(), swapping=swapping)

    def _serving(self) -> PlanView | None:
        ready = self._parts.serving.ready
        return PlanView.of(ready.manifest, ready.detector.path) if ready else None

    def _stop_all(self, drain_s: float) -> None:
        if self._shut:
            return
        self._shut = True
        self._parts.notify.stopping(self.status().line())
        self._parts.notify.extend(drain_s + LEAVE_S)
        self._tell_waiting()
        self._announce(time.monotonic())
        self._parts.stop(drain_s)
