"""App: every part of the daemon made once, around one inbox. Nothing runs yet when ``assemble`` returns."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vajra_edge import clock
from vajra_edge.build.request import weights_digest
from vajra_edge.bundles.keyring import Keyring
from vajra_edge.bundles.shelf import Shelf
from vajra_edge.bundles.spool import Spool
from vajra_edge.config.changes import Action
from vajra_edge.config.overrides import laid_over
from vajra_edge.config.settings import Settings
from vajra_edge.daemon import aborts, file_watcher, last_broker
from vajra_edge.daemon import systemd as daemon_systemd
from vajra_edge.daemon.adoption import Adoption
from vajra_edge.daemon.announcements import Announcements
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.calibration_images import ImageWatch
from vajra_edge.daemon.cameras import Cameras
from vajra_edge.daemon.clock_watch import ClockWatch
from vajra_edge.daemon.control.server import Control
from vajra_edge.daemon.crash_log import CrashLog
from vajra_edge.daemon.death import Death, judge
from vajra_edge.daemon.deployment import CHILD_GRACE_S, Plans, Served, Serving
from vajra_edge.daemon.file_watcher import FileWatch
from vajra_edge.daemon.frigate_labels import FrigateLabels
from vajra_edge.daemon.home_assistant import HomeAssistant
from vajra_edge.daemon.inbox import BackgroundEvent, Inbox
from vajra_edge.daemon.missed_precisions import MissedWatch
from vajra_edge.daemon.outputs import Outputs
from vajra_edge.daemon.override_desk import OverrideDesk
from vajra_edge.daemon.picture_requests import PictureRequests
from vajra_edge.daemon.reconciler import DesiredPlans
from vajra_edge.daemon.recorder import Recorder
from vajra_edge.daemon.request_gate import RequestGate
from vajra_edge.daemon.sample_collector import Collector
from vajra_edge.daemon.snapshots import Pictures, Snapshots
from vajra_edge.daemon.stall import STILL_S
from vajra_edge.daemon.systemd import Notify
from vajra_edge.daemon.told_cameras import ToldCameras
from vajra_edge.daemon.totals_files import TotalsFiles
from vajra_edge.daemon.trackers import Trackers
from vajra_edge.daemon.watchdog import CONTROL, FRAMES, MQTT, WATCH, Beats, Flow, Watchdog
from vajra_edge.daemon.watches import Watches
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.inference.pipeline import FrameResult
from vajra_edge.mqtt.picture import Snapshot
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topics, events_of, topics_of
from vajra_edge.plans.audit_log import AuditLog
from vajra_edge.plans.history import History
from vajra_edge.plans.store import OUTBOX, EngineStore

log = logging.getLogger(__name__)

CAMERAS_SHARE = LOOP_SHARE = 0.25
"""Of the drain time, for each of the first two steps; half of it is left to publish what was seen."""

LEAVE_S = 1.0
"""Kept of the drain time for each of the last steps."""


@dataclass(frozen=True)
class Parts:
    """What the supervisor conducts."""

    inbox: Inbox
    notify: Notify
    beats: Beats
    watchdog: Watchdog
    flow: Flow
    background: Background[BackgroundEvent]
    store: EngineStore
    history: History
    recorder: Recorder
    overrides: OverrideDesk
    adoption: Adoption
    gate: RequestGate
    desired_plans: DesiredPlans
    plans: Plans
    mailboxes: Mailboxes
    cameras: Cameras
    publisher: Publisher
    topics: Topics
    pictures: Pictures
    asked_pictures: PictureRequests
    trackers: Trackers
    watches: Watches
    images: ImageWatch
    missed: MissedWatch
    serving: Serving
    watch: FileWatch
    control: Control
    announcements: Announcements
    told_cameras: ToldCameras
    home_assistant: HomeAssistant
    outputs: Outputs
    crash_log: CrashLog
    clock_watch: ClockWatch
    bystanders: frozenset[threading.Thread]

    def start(self, settings: Settings, path: Path | None) -> Death | None:
        """Let everything run.

        Args:
            settings: those that the parts were made for.
            path: the settings file, to be watched; None: there is none.

        Returns:
            How the process before this one ended; None where nothing tells.

        Raises:
            ControlError: another daemon runs, or its socket cannot be made; nothing was started then.
        """
        self.control.open()
        aborts.block()
        aborts.start()
        death = self._account()
        self.background.do("keep the broker's place", lambda: last_broker.keep(settings))
        self.background.start()
        self.home_assistant.open(settings)  # what reads states goes before them, and is not left with an empty one
        self.told_cameras.open(settings)
        self.publisher.expect(streams_in_use(settings))
        self.publisher.start()
        self.outputs.apply(settings)
        self.pictures.start()
        self.serving.start()
        self.watch.follow("keys", settings.weights.keys, _keys_digest)  # before what is wanted is worked out
        self.watch.follow("weights", settings.weights.path, weights_digest)
        if path is not None:
            self.watch.follow("settings", path, file_watcher.digest)
        self.watch.start()
        self.cameras.open(settings)
        return death

    def _account(self) -> Death | None:
        """Read what the last process left, and charge the plan that took it down, if one did."""
        left = self.crash_log.open()
        if left is None:
            return None
        death = judge(left)
        if death.line:
            log.log(logging.ERROR if left.dump else logging.WARNING, "%s", death.line)
        if left.dump:
            log.error("its last traceback:\n%s", left.dump)
        if (plan := death.fingerprint) is not None:
            at = left.now if left.now.boot == left.marker.at.boot else left.marker.at
            self.background.do("charge plan", lambda: self.history.charge(plan, death.charged, death.line, at))
        return death

    def apply(self, reloaded: file_watcher.Reloaded) -> bool:
        """Do what changed settings ask for, and nothing else.

        Returns:
            Whether what is wanted is to be worked out again; the watch posts an event where the weights' path moved.
        """
        new, changes = reloaded.settings, reloaded.changes
        if changes.fields or changes.added or changes.removed:
            log.info("settings changed: %s", ", ".join((*changes.fields, *changes.added, *changes.removed)))
            self.publisher.expect(streams_in_use(new))
        if changes.added or changes.removed or changes.reopened:
            self.cameras.change(new, changes)
        self.pictures.apply(new)
        self.trackers.apply(new)
        if Action.RECONNECT in changes.actions:
            topics = topics_of(new)
            self.publisher.reconnect(new.mqtt, topics)
            self.announcements.move(topics)
            self.background.do("keep the broker's place", lambda: last_broker.keep(new))
        self.outputs.apply(new)
        self.home_assistant.apply(new)  # what can be pressed appears where it is heard, and goes before its states
        self.watches.apply(new)
        for name in changes.removed:
            self.announcements.forget(name)
        self.told_cameras.apply(new)
        if changes.actions & {Action.APPLY, Action.APPLY_OR_REBUILD} or changes.added:
            self.serving.apply(new)
            self.watch.pace(new.service.settle_s, new.service.poll_s)
            self.store.max_bytes = new.store.max_bytes
            daemon_systemd.set_up(new.service.log_level)
        if "weights.keys" in changes.fields:
            self.watch.follow("keys", new.weights.keys, _keys_digest)
        if "weights.path" in changes.fields:
            self.watch.follow("weights", new.weights.path, weights_digest)
            return False
        return bool(changes.actions & {Action.REBUILD, Action.APPLY_OR_REBUILD})

    def stop(self, drain_s: float) -> None:
        """Stop everything within ``drain_s``: cameras first, so that what was seen is still published.

        Whatever does not end in its time is named and left behind; nothing here waits for it.
        """
        began_s = time.monotonic()
        until_s = began_s + drain_s
        self.watch.close()
        self.cameras.stop(CAMERAS_SHARE * drain_s)
        self.serving.stop(LOOP_SHARE * drain_s)
        self.mailboxes.close()
        children = self.plans.close(CHILD_GRACE_S + LEAVE_S)
        self.pictures.close(LEAVE_S)
        self.watches.close()
        self.outputs.close()
        self.publisher.close(max(until_s - time.monotonic() - LEAVE_S, LEAVE_S))
        self.background.close(LEAVE_S)
        self.control.close()
        self._note_end()
        left = (*children, *sorted(self._stuck()))
        took_s = time.monotonic() - began_s
        if left:
            log.warning("stopped after %.1f s; left behind, for they did not end: %s", took_s, ", ".join(left))
        else:
            log.info("stopped after %.1f s", took_s)

    def _note_end(self) -> None:
        """In a thread of its own, for a disk that is stuck would keep this one for good."""
        noting = threading.Thread(target=self.crash_log.close, name="crash log", daemon=True)
        noting.start()
        noting.join(LEAVE_S)

    def _stuck(self) -> set[str]:
        """Names of our threads that have not ended, after a last moment for those that are about to."""
        until_s = time.monotonic() + LEAVE_S
        ours = set(threading.enumerate()) - self.bystanders - {threading.current_thread(), threading.main_thread()}
        waited_for = [one for one in ours if one.name != aborts.THREAD]
        for thread in waited_for:
            thread.join(max(until_s - time.monotonic(), 0.0))
        return {thread.name for thread in waited_for if thread.is_alive()}


def streams_in_use(settings: Settings) -> tuple[str, ...]:
    """Streams of the outbox: the detections of each camera, and the events of those that have places."""
    cameras = [camera for camera in settings.cameras if camera.enabled]
    watched = [events_of(camera.id) for camera in cameras if camera.zones or camera.lines]
    return (*(camera.id for camera in cameras), *watched)


def _keys_digest(folder: Path, _beat: Callable[[], None]) -> str:
    """For the watch.

    Raises:
        BundleError: nobody knows whom to trust.
    """
    return Keyring.load(folder).digest


def assemble(settings: Settings, max_frames: int | None, environ: Mapping[str, str] = os.environ) -> Parts:
    """Make every part.

    Args:
        settings: the operator's; what was changed while an earlier process ran is laid over them.
        max_frames: end after this many detection messages; None: never.
        environ: where systemd says that it listens.

    Raises:
        VajraError: a secret file cannot be read, or the like.
    """
    service, state_dir = settings.service, settings.store.state_dir.absolute()
    systemd, crash_log = daemon_systemd.connect(environ), CrashLog(state_dir / "running")
    inbox, beats = Inbox(), Beats(still_s=STILL_S, moves=crash_log.moves)
    background: Background[BackgroundEvent] = Background(inbox.put, beats)
    overrides = OverrideDesk(state_dir, background.do)
    overrides.open()
    settings = laid_over(settings, overrides.kept)
    store, history = EngineStore(state_dir, settings.store.max_bytes), History(state_dir)
    topics, mailboxes = topics_of(settings), Mailboxes()
    outbox = state_dir / OUTBOX
    publisher = Publisher(settings.mqtt, topics, inbox.put, beats.expect(*MQTT), folder=outbox)
    trackers, files = Trackers(settings), TotalsFiles(state_dir, background.look)
    watches = Watches(publisher, topics, files, settings)
    outputs = Outputs(watches.inside, FrigateLabels(state_dir, background.do))

    def picture(snapshot: Snapshot) -> None:
        publisher.snapshot(snapshot)
        outputs.picture(snapshot)

    pictures = Pictures(Collector(state_dir), Snapshots(picture), inbox.put, settings, beats)

    home_assistant = HomeAssistant(publisher, state_dir, background.do)

    def sink(result: FrameResult[Served]) -> None:
        tracks = trackers.see(result.frame, result.found)
        receipt = publisher.detections(result.frame, result.found, result.plan.tag, tracks)
        watches.see(result.frame, result.found, tracks, result.plan.tag.class_names)
        outputs.see(result.frame, result.found, tracks, result.plan.tag.class_names)
        pictures.see(result.frame, result.unfiltered, receipt)
        home_assistant.see(result.frame.camera, result.found, result.plan.tag.class_names)

    return Parts(
        inbox=inbox,
        notify=systemd,
        beats=beats,
        watchdog=Watchdog(systemd, beats),
        flow=Flow(beats.expect(*FRAMES)),
        background=background,
        store=store,
        history=history,
        adoption=Adoption(Shelf(state_dir), Spool(state_dir), background.do),
        gate=RequestGate(publisher, background.do),
        recorder=Recorder(AuditLog(state_dir), background.do),
        overrides=overrides,
        desired_plans=DesiredPlans(store, history),
        plans=Plans(store, history, background, inbox.put, service.threads, crash_log, beats),
        mailboxes=mailboxes,
        cameras=Cameras(mailboxes, inbox.put, beats),
        publisher=publisher,
        topics=topics,
        pictures=pictures,
        asked_pictures=PictureRequests(pictures),
        trackers=trackers,
        watches=watches,
        images=ImageWatch(background, state_dir),
        missed=MissedWatch(background),
        serving=Serving(mailboxes, sink, inbox.put, beats, settings, max_frames),
        watch=FileWatch(inbox.put, beats.expect(*WATCH), settle_s=service.settle_s, poll_s=service.poll_s),
        control=Control(service.control_socket, inbox.put, beats.expect(*CONTROL)),
        announcements=Announcements(publisher, topics, systemd),
        told_cameras=ToldCameras(publisher, state_dir, background.do),
        home_assistant=home_assistant,
        outputs=outputs,
        crash_log=crash_log,
        clock_watch=ClockWatch(clock.now),
        bystanders=frozenset(threading.enumerate()),
    )
