"""App: every part of the daemon made once, around one inbox. Nothing runs yet when ``assemble`` returns."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vajra_edge.build.request import weights_digest
from vajra_edge.config.changes import Action
from vajra_edge.config.settings import Settings
from vajra_edge.daemon import file_watcher, last_broker
from vajra_edge.daemon import systemd as daemon_systemd
from vajra_edge.daemon.announcements import Announcements
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.calibration_images import ImageWatch
from vajra_edge.daemon.cameras import Cameras
from vajra_edge.daemon.control.server import Control
from vajra_edge.daemon.crash_log import CrashLog
from vajra_edge.daemon.deployment import Plans, Served, Serving
from vajra_edge.daemon.file_watcher import FileWatch
from vajra_edge.daemon.inbox import BackgroundEvent, Inbox
from vajra_edge.daemon.missed_precisions import MissedWatch
from vajra_edge.daemon.reconciler import DesiredPlans
from vajra_edge.daemon.sample_collector import Collector
from vajra_edge.daemon.snapshots import Pictures, Snapshots
from vajra_edge.daemon.systemd import Notify
from vajra_edge.daemon.watchdog import CONTROL, FRAMES, MQTT, WATCH, Beats, Flow, Watchdog
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.inference.pipeline import FrameResult
from vajra_edge.mqtt.publisher import Publisher
from vajra_edge.mqtt.topics import Topics, topics_of
from vajra_edge.plans.history import History
from vajra_edge.plans.store import EngineStore

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
    desired_plans: DesiredPlans
    plans: Plans
    mailboxes: Mailboxes
    cameras: Cameras
    publisher: Publisher
    topics: Topics
    pictures: Pictures
    images: ImageWatch
    missed: MissedWatch
    serving: Serving
    watch: FileWatch
    control: Control
    announcements: Announcements
    crash_log: CrashLog

    def start(self, settings: Settings, path: Path | None) -> None:
        """Let everything run.

        Args:
            settings: those that the parts were made for.
            path: the settings file, to be watched; None: there is none.

        Raises:
            ControlError: another daemon runs, or its socket cannot be made; nothing was started then.
        """
        self.control.open()
        crash = self.crash_log.open()
        if crash is not None:
            self.background.do("count crash", lambda: self.history.crashed(crash.fingerprint, crash.reason))
        self.background.do("keep the broker's place", lambda: last_broker.keep(settings))
        self.background.start()
        self.publisher.start()
        self.pictures.start()
        self.serving.start()
        self.watch.follow("weights", settings.weights.path, weights_digest)
        if path is not None:
            self.watch.follow("settings", path, file_watcher.digest)
        self.watch.start()
        self.cameras.open(settings)

    def apply(self, reloaded: file_watcher.Reloaded) -> bool:
        """Do what changed settings ask for, and nothing else.

        Returns:
            Whether what is wanted is to be worked out again; the watch posts an event where the weights' path moved.
        """
        new, changes = reloaded.settings, reloaded.changes
        if changes.fields or changes.added or changes.removed:
            log.info("settings changed: %s", ", ".join((*changes.fields, *changes.added, *changes.removed)))
        if changes.added or changes.removed or changes.reopened:
            self.cameras.change(new, changes)
        for name in changes.removed:
            self.announcements.forget(name)
        self.pictures.apply(new)
        if Action.RECONNECT in changes.actions:
            topics = topics_of(new)
            self.publisher.reconnect(new.mqtt, topics)
            self.announcements.move(topics)
            self.background.do("keep the broker's place", lambda: last_broker.keep(new))
        if changes.actions & {Action.APPLY, Action.APPLY_OR_REBUILD} or changes.added:
            self.serving.apply(new)
            self.watch.pace(new.service.settle_s, new.service.poll_s)
            self.store.max_bytes = new.store.max_bytes
            daemon_systemd.set_up(new.service.log_level)
        if "weights.path" in changes.fields:
            self.watch.follow("weights", new.weights.path, weights_digest)
            return False
        return bool(changes.actions & {Action.REBUILD, Action.APPLY_OR_REBUILD})

    def stop(self, drain_s: float) -> None:
        """Stop everything within ``drain_s``: cameras first, so that what was seen is still published."""
        until_s = time.monotonic() + drain_s
        self.watch.close()
        stopped = self.cameras.stop(CAMERAS_SHARE * drain_s)
        stopped = self.serving.stop(LOOP_SHARE * drain_s) and stopped
        self.mailboxes.close()
        self.plans.close()
        stopped = self.pictures.close(LEAVE_S) and stopped
        self.publisher.close(max(until_s - time.monotonic() - LEAVE_S, LEAVE_S))
        stopped = self.background.close(LEAVE_S) and stopped
        self.control.close()
        self.crash_log.close()
        if not stopped:
            log.warning("some threads did not end within %.0f s and are left behind", drain_s)


def assemble(settings: Settings, max_frames: int | None, environ: Mapping[str, str] = os.environ) -> Parts:
    """Make every part.

    Args:
        settings: the operator's.
        max_frames: end after this many detection messages; None: never.
        environ: where systemd says that it listens.

    Raises:
        VajraError: a secret file cannot be read, or the like.
    """
    inbox, beats = Inbox(), Beats()
    background: Background[BackgroundEvent] = Background(inbox.put, beats)
    service, state_dir = settings.service, settings.store.state_dir.absolute()
    systemd = daemon_systemd.connect(environ)
    store, history = EngineStore(state_dir, settings.store.max_bytes), History(state_dir)
    topics, mailboxes = topics_of(settings), Mailboxes()
    publisher = Publisher(settings.mqtt, topics, inbox.put, beats.expect(*MQTT))
    pictures = Pictures(Collector(state_dir), Snapshots(publisher.snapshot), inbox.put, settings, beats)

    def sink(result: FrameResult[Served]) -> None:
        publisher.detections(result.frame, result.found, result.plan.tag)
        pictures.see(result.frame, result.unfiltered)

    return Parts(
        inbox=inbox,
        notify=systemd,
        beats=beats,
        watchdog=Watchdog(systemd, beats),
        flow=Flow(beats.expect(*FRAMES)),
        background=background,
        store=store,
        history=history,
        desired_plans=DesiredPlans(store, history),
        plans=Plans(store, history, background, inbox.put, service.threads, beats),
        mailboxes=mailboxes,
        cameras=Cameras(mailboxes, inbox.put, beats),
        publisher=publisher,
        topics=topics,
        pictures=pictures,
        images=ImageWatch(background, state_dir),
        missed=MissedWatch(background),
        serving=Serving(mailboxes, sink, inbox.put, beats, settings, max_frames),
        watch=FileWatch(inbox.put, beats.expect(*WATCH), settle_s=service.settle_s, poll_s=service.poll_s),
        control=Control(service.control_socket, inbox.put, beats.expect(*CONTROL)),
        announcements=Announcements(publisher, topics, systemd),
        crash_log=CrashLog(state_dir / "serving"),
    )
