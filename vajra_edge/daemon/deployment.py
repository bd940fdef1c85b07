"""Deployment: plans built, loaded, kept and put away as the machine asks, and the frame loop with the one that serves.

Called by the supervisor alone; what comes of it are the machine's events.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from typing_extensions import assert_never

from vajra_edge.build.request import nms_of
from vajra_edge.build.trial import TrialRequest
from vajra_edge.config.settings import Settings
from vajra_edge.daemon import build_process
from vajra_edge.daemon.background import Background
from vajra_edge.daemon.crash_log import CrashLog
from vajra_edge.daemon.events import (
    Build,
    BuildDone,
    BuildFailed,
    Discard,
    Job,
    Loaded,
    LoadFailed,
    MarkGood,
    Reject,
    Strike,
)
from vajra_edge.daemon.probation import Tally, compared, unfit
from vajra_edge.daemon.reconciler import DesiredPlan
from vajra_edge.daemon.trial import Outcome, PlanTrials, Tried
from vajra_edge.daemon.watchdog import PIPELINE, Beats
from vajra_edge.errors import ForeignPlan, PlanError, VajraError
from vajra_edge.inference.detector import Detector, Filter
from vajra_edge.inference.mailboxes import Mailboxes
from vajra_edge.inference.open_detector import Loadable, open_detector
from vajra_edge.inference.pipeline import Exhausted, FrameResult, LoopFailed, Pipeline, PipelineCounters, Swapped
from vajra_edge.mqtt.messages import EngineTag
from vajra_edge.plans import caches, pin
from vajra_edge.plans.charges import Charged
from vajra_edge.plans.history import History
from vajra_edge.plans.manifest import Manifest
from vajra_edge.plans.store import EngineStore

log = logging.getLogger(__name__)

CHILD_GRACE_S = 3.0
"""From SIGTERM to SIGKILL of a build child: a stop waits for it, and the store survives a kill at any moment."""

STEADY_S = 3600.0
"""Of service without a crash, after which nothing is held against a plan any more."""


@dataclass(frozen=True)
class Ready:
    """A loaded plan that can take the frames from the next one on."""

    detector: Detector
    manifest: Manifest

    @property
    def tag(self) -> EngineTag:
        """What its detection messages say about it."""
        manifest = self.manifest
        return EngineTag(
            manifest.fingerprint.digest,
            manifest.precision.value,
            str(manifest.target),
            manifest.signature.class_names,
        )

    @property
    def figures(self) -> dict[str, float]:
        """What the accuracy check measured, for the history."""
        verify = self.manifest.verify
        measured = {} if verify is None else asdict(verify.figures)
        told = {name: measured.get(name) for name in ("latency_p50_ms", "latency_p99_ms", "recall", "precision")}
        return {name: round(value, 4) for name, value in told.items() if isinstance(value, int | float)}


class Plans:
    """Everything that happens to plans outside the frame loop. Called by the supervisor; a background thread works.

    Args:
        store: of this device.
        history: of this device.
        background: where slow work goes.
        post: takes events; only enqueues.
        threads: CPU inference threads; None: all.
        crash_log: hears which plan is being loaded.
        beats: watches the thread that listens to the build child; None: nobody does.
    """

    def __init__(
        self,
        store: EngineStore,
        history: History,
        background: Background[Loaded | LoadFailed],
        post: Callable[[build_process.BuildEvent | BuildFailed | LoadFailed], None],
        threads: int | None,
        crash_log: CrashLog,
        beats: Beats | None = None,
    ) -> None:
        self._store, self._history, self._background, self._post = store, history, background, post
        self._threads, self._crash_log = threads, crash_log
        self._builder = build_process.Builder(post, grace_s=CHILD_GRACE_S, beats=beats)
        self._trials = PlanTrials(self._tried)
        self._steady: tuple[Job, float] | None = None
        self._building: Job | None = None
        self._ready: dict[int, Ready] = {}

    def build(self, action: Build, desired: DesiredPlan | None) -> None:
        """Start the build child."""
        job = action.job
        request = desired.request_of(job.fingerprint) if desired else None
        if request is None:
            self._post(BuildFailed(job, "nobody knows how to build it", permanent=True, now_s=time.monotonic()))
            return
        if action.force:
            self._background.do("acquit plan", lambda: self._history.acquit(job.fingerprint))
        self._building = job
        asked = replace(request, force=action.force, again=action.again, missed=action.missed, keep=self._loaded())
        self._builder.start(job.number, asked)

    def cancel(self) -> None:
        """End the build child."""
        if self._building is not None:
            self._builder.cancel(self._building.number)
            self._building = None

    def ended(self, event: build_process.BuildSucceeded | build_process.ChildFailed) -> BuildDone | BuildFailed | None:
        """The machine's event for the child's end; None for news of a build that was cancelled.

        A plan under another name than the job's is none that could be loaded for it.
        """
        job = self._building
        if job is None or event.job_id != job.number:
            return None
        self._building = None
        if isinstance(event, build_process.BuildSucceeded):
            return BuildDone(job) if event.fingerprint == job.fingerprint else _renamed(job, event.fingerprint)
        return BuildFailed(job, event.message, event.permanent, time.monotonic())

    def is_current(self, job_id: int) -> bool:
        """Whether the build in flight has this number."""
        return self._building is not None and self._building.number == job_id

    def load(self, job: Job) -> None:
        """Load and warm up in the background; posts ``Loaded`` or ``LoadFailed``. A plan in doubt is tried first."""
        if self._history.hold(job.fingerprint) is None:
            self._background.do("load plan", lambda: self._load(job))
        else:
            self._trials.start(job, TrialRequest(self._store.root, job.fingerprint, self._threads))

    def tick(self, serving: Job | None, now_s: float) -> None:
        """A plan that served for long is acquitted of what it was charged with before."""
        if serving is None:
            self._steady = None
        elif self._steady is None or self._steady[0] != serving:
            self._steady = serving, now_s + STEADY_S
        elif now_s >= self._steady[1]:
            self._steady = serving, float("inf")
            self._background.do("acquit plan", lambda: self._history.acquit(serving.fingerprint))

    def ready(self, job: Job) -> Ready:
        """What ``Loaded`` announced."""
        return self._ready[job.number]

    def retire(self, job: Job) -> None:
        """Close a detector in the background: a library may take its time. A stop may have closed it already."""
        if (ready := self._ready.pop(job.number, None)) is not None:
            self._background.do("close plan", ready.detector.close)

    def remember(self, action: MarkGood | Discard | Strike | Reject, keep: str | None) -> None:
        """Write down how a plan did.

        Args:
            action: what the machine asks for.
            keep: fingerprint that is not deleted to make room; current and previous never are.
        """
        match action:
            case MarkGood(fingerprint):
                self._background.do("mark plan good", lambda: self._mark_good(fingerprint, keep))
            case Discard(fingerprint, reason):
                log.error("plan %s is put aside: %s", fingerprint[:12], reason)
                self._background.do("put plan aside", lambda: self._quarantine(fingerprint, reason))
            case Reject(fingerprint, reason):
                log.error("plan %s is rejected: %s", fingerprint[:12], reason)
                self._background.do("charge plan", lambda: self._history.charge(fingerprint, Charged.UNFIT, reason))
            case Strike(fingerprint, reason):
                log.error("plan %s failed: %s", fingerprint[:12], reason)
                self._background.do("charge plan", lambda: self._history.charge(fingerprint, Charged.CRASH, reason))
            case _:
                assert_never(action)

    def close(self, timeout_s: float) -> tuple[str, ...]:
        """End the children; loaded plans are the background thread's to close.

        Returns:
            Those that did not end in time.
        """
        until_s = time.monotonic() + timeout_s
        built = self._builder.close(timeout_s)
        tried = self._trials.close(max(until_s - time.monotonic(), 0.0))
        for number in tuple(self._ready):
            self._background.do("close plan", self._ready.pop(number).detector.close)
        ended = {"build child": built, "trial child": tried}
        return tuple(name for name, ended in ended.items() if not ended)

    def _mark_good(self, fingerprint: str, keep: str | None) -> None:
        self._store.mark_good(fingerprint)
        self._history.loads(fingerprint)
        self._history.put_aside(self._store.put_aside())
        for gone in self._store.prune({fingerprint, keep or fingerprint, *self._loaded(), *pin.kept(self._store.root)}):
            log.info("plan %s is deleted to stay under [store] max_bytes", gone[:12])

    def _loaded(self) -> tuple[str, ...]:
        """Fingerprints of the plans in memory: what serves, what it may give way to, and what is to serve next."""
        return tuple(sorted({ready.manifest.fingerprint.digest for ready in tuple(self._ready.values())}))

    def _quarantine(self, fingerprint: str, reason: str) -> None:
        self._store.quarantine(fingerprint, reason)
        self._history.put_aside(self._store.put_aside())

    def _tried(self, tried: Tried) -> None:
        """A plan in doubt was tried in a process of its own; called in a thread of the trial's."""
        job = tried.job
        match tried.outcome:
            case Outcome.PASSED:
                self._background.do("load plan", lambda: self._load(job))
            case Outcome.OPEN:
                self._post(LoadFailed(job, tried.reason, corrupt=False, now_s=time.monotonic()))
            case Outcome.BROKEN:
                self._background.do("charge plan", lambda: self._broken(job, tried.reason))
            case _:
                assert_never(tried.outcome)

    def _broken(self, job: Job, reason: str) -> LoadFailed:
        """Built anew once: what broke it may have been the disk, or the build. Then it has to wait."""
        log.error("plan %s is broken: %s", job.fingerprint[:12], reason)
        again = self._history.is_broken(job.fingerprint)
        try:
            self._history.charge(job.fingerprint, Charged.BROKEN, reason)
        except VajraError as error:
            log.warning("that is known until the end of this process: %s", error)
        return LoadFailed(job, reason, corrupt=not again, now_s=time.monotonic(), broken=again)

    def _load(self, job: Job) -> Loaded | LoadFailed:
        """The name is known to ``death``."""
        self._crash_log.loading(job.fingerprint)
        try:
            return self._opened(job)
        finally:
            self._crash_log.loaded()

    def _opened(self, job: Job) -> Loaded | LoadFailed:
        try:
            self._ready[job.number] = _open(self._store, job.fingerprint, self._threads)
        except VajraError as error:
            log.warning("plan %s does not load: %s", job.fingerprint[:12], error)
            foreign = isinstance(error, ForeignPlan)
            corrupt = isinstance(error, PlanError) and not foreign
            return LoadFailed(job, str(error), corrupt, time.monotonic(), foreign)
        except Exception as error:
            log.exception("plan %s does not load", job.fingerprint[:12])
            reason = f"plan {job.fingerprint[:12]} does not load: {type(error).__name__}: {error}"
            return LoadFailed(job, reason, corrupt=False, now_s=time.monotonic())
        return Loaded(job, time.monotonic())


def _renamed(job: Job, built: str) -> BuildFailed:
    reason = (
        f"plan {job.fingerprint[:12]} was wanted and {built[:12]} was built: the build read this machine's "
        "versions or devices differently; what is wanted is worked out again, and where that changes nothing the "
        "service has to be restarted"
    )
    return BuildFailed(job, reason, permanent=False, now_s=time.monotonic(), renamed=True)


def _open(store: EngineStore, fingerprint: str, threads: int | None) -> Ready:
    """A stored plan as a warm detector.

    Raises:
        ForeignPlan: it was built by another library release, or for another device.
        PlanError: it is gone, damaged, or refused by its library.
        EngineError: the library is absent, or the plan fails on its first frames.
    """
    plan = store.get(fingerprint)
    if plan is None:
        raise PlanError(f"plan {fingerprint[:12]} is not in the store any more", remedy="it is built anew")
    kernels = store.root / caches.KERNELS.path
    return Ready(open_detector(Loadable.of(plan), threads=threads, kernels=kernels), plan.manifest)


@dataclass(frozen=True, eq=False)
class Served:
    """One loaded plan in the frame loop; two loads of the same plan are two of these.

    Attributes:
        job: the load.
        ready: what it gave.
        tag: what its detection messages say about it.
        tally: of the frames that it found something in; it goes with the plan, so that each counts for who made it.
    """

    job: Job
    ready: Ready
    tag: EngineTag
    tally: Tally = field(default_factory=Tally)


class Serving:
    """What takes the frames.

    The loop is asked for a swap and tells by an event when it is done, for it publishes first what the old plan has in
    flight. Until that was heard, the old plan serves.

    Args:
        mailboxes: where frames come from.
        sink: where they go, with what was found.
        post: takes ``pipeline.Swapped``, ``InferFailed`` and ``Exhausted``; only enqueues.
        beats: watches the loop.
        settings: thresholds, filters and NMS.
        max_frames: end after this many detection messages; None: never.
    """

    def __init__(
        self,
        mailboxes: Mailboxes,
        sink: Callable[[FrameResult[Served]], None],
        post: Callable[[Swapped[Served] | LoopFailed[Served] | Exhausted], None],
        beats: Beats,
        settings: Settings,
        max_frames: int | None,
    ) -> None:
        self._sink, self._settings = sink, settings
        self._old: Served | None = None
        self._now: Served | None = None
        self._since_s = 0.0
        self._asked: deque[Served] = deque()
        gather_s = settings.service.batch_wait_ms / 1e3
        beat = beats.expect(*PIPELINE)
        self._pipeline: Pipeline[Served] = Pipeline(
            mailboxes, self._publish, post, beat, gather_s, max_frames=max_frames
        )

    def start(self) -> None:
        """Let the loop run; without a plan it only waits."""
        self._pipeline.start()

    @property
    def ready(self) -> Ready | None:
        """The plan that serves; the very first one serves once it is asked for."""
        served = self._now or (self._asked[0] if self._asked else None)
        return served.ready if served else None

    @property
    def awaited(self) -> str | None:
        """Fingerprint of the plan that is to take over from another and was not heard of yet."""
        return self._asked[-1].job.fingerprint if self._now and self._asked else None

    def holds(self, job: Job) -> bool:
        """Whether the frame loop has, or is to get, what this load gave; it must not be closed then."""
        return any(served.job == job for served in (self._now, *self._asked) if served)

    def swap(self, job: Job, ready: Ready) -> None:
        """Ask the loop to let ``ready`` take the frames; ``pipeline.Swapped`` comes once it does."""
        ready.detector.set_nms(nms_of(self._settings.engine))
        asked = Served(job, ready, ready.tag)
        self._asked.append(asked)
        self._pipeline.swap(ready.detector, asked, filters_of(self._settings, ready.manifest.signature.class_names))

    def swapped(self, event: Swapped[Served]) -> Served:
        """The loop did what was asked; what served until now is not used any more and is the caller's to close."""
        self._asked.remove(event.plan)
        self._old, self._now, self._since_s = self._now, event.plan, time.monotonic()
        return event.plan

    def apply(self, settings: Settings) -> None:
        """Use these thresholds and filters, and this NMS where it is not baked in, from the next frame on.

        A plan that is still to take over gets them too: class ids are those of the newest plan.
        """
        self._settings = settings
        newest = self._newest
        if newest:
            newest.ready.detector.set_nms(nms_of(settings.engine))
        names = newest.ready.manifest.signature.class_names if newest else ()
        self._pipeline.apply(filters_of(settings, names), settings.service.batch_wait_ms / 1e3)

    def lost(self, event: LoopFailed[Served]) -> bool:
        """Whether the plan that failed is the newest: another one takes over from any other, or has done so."""
        return event.plan is self._newest

    def unfit(self) -> str:
        """Why the plan on probation must not stay; empty while nothing speaks against it."""
        if self._old is None or self._now is None or self._asked:
            return ""
        old, new = self._old.ready.manifest, self._now.ready.manifest
        before_ms, after_ms = old.latency_ms, new.latency_ms
        ratio = after_ms / before_ms if before_ms and after_ms else None
        same = old.signature.class_names == new.signature.class_names
        served_s = time.monotonic() - self._since_s
        before, after = self._old.tally.figures(), self._now.tally.figures()
        return unfit(before, after, ratio, same_classes=same, served_s=served_s)

    def compared(self) -> dict[str, float]:
        """Figures of the plan that serves beside those of the one before, for the history; none where none serves."""
        if self._now is None:
            return {}
        return compared(self._old.tally.figures() if self._old else None, self._now.tally.figures())

    def unknown_classes(self) -> str:
        """A warning about class names in the settings that the serving plan does not know; else empty."""
        if (ready := self.ready) is None:
            return ""
        known = ready.manifest.signature.class_names
        asked = {name for classes in _classes(self._settings).values() for name in classes or ()}
        unknown = sorted(asked - set(known))
        return f"no such class: {', '.join(unknown)}; the network knows {_few(known)}" if unknown else ""

    def published(self) -> dict[str, int]:
        """Detection messages by camera, since the start."""
        return dict(self._pipeline.counters().published)

    def counters(self) -> PipelineCounters:
        """Of the loop."""
        return self._pipeline.counters()

    def stop(self, timeout_s: float) -> bool:
        """Publish what is in flight and end the loop; whether it ended in time."""
        return self._pipeline.stop(timeout_s)

    @property
    def _newest(self) -> Served | None:
        return self._asked[-1] if self._asked else self._now

    def _publish(self, result: FrameResult[Served]) -> None:
        self._sink(result)
        age_ms = (time.monotonic_ns() - result.frame.captured_ns) / 1e6
        result.plan.tally.add(result.frame.camera, age_ms, len(result.found))


def filters_of(settings: Settings, class_names: Sequence[str]) -> dict[str, Filter]:
    """Each camera's threshold and class ids; a name that the network does not know lets nothing through."""
    filters = {}
    for camera in settings.cameras:
        confidence = settings.detect.confidence if camera.confidence is None else camera.confidence
        wanted = _classes(settings)[camera.id]
        ids = None if wanted is None else frozenset(i for i, name in enumerate(class_names) if name in wanted)
        filters[camera.id] = Filter(confidence, ids)
    return filters


def _classes(settings: Settings) -> dict[str, tuple[str, ...] | None]:
    default = settings.detect.classes
    return {camera.id: default if camera.classes is None else camera.classes for camera in settings.cameras}


def _few(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
