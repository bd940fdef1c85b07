"""Plans: builds, loads, keeps and puts away plans, as the machine asks; what comes of it are the machine's events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from typing_extensions import assert_never

from vajra_edge.detect.detector import Detector
from vajra_edge.detect.open_detector import Loadable, open_detector
from vajra_edge.engine.history import History
from vajra_edge.engine.manifest import Manifest
from vajra_edge.engine.store import EngineStore
from vajra_edge.errors import ForeignPlan, PlanError, VajraError
from vajra_edge.publish.messages import EngineTag
from vajra_edge.service import builder
from vajra_edge.service.desk import Desk
from vajra_edge.service.events import (
    Build,
    BuildFailed,
    Built,
    Discard,
    Job,
    Loaded,
    LoadFailed,
    MarkGood,
    Reject,
    Strike,
)
from vajra_edge.service.wish import Wish

log = logging.getLogger(__name__)

CHILD_GRACE_S = 3.0
"""From SIGTERM to SIGKILL of a build child: a stop waits for it, and the store survives a kill at any moment."""


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


class Plans:
    """Everything that happens to plans outside the frame loop. Called by the supervisor alone; the desk does the work.

    Args:
        store: of this device.
        history: of this device.
        desk: where slow work goes.
        post: takes events; only enqueues.
        threads: CPU inference threads; None: all.
    """

    def __init__(
        self,
        store: EngineStore,
        history: History,
        desk: Desk[Loaded | LoadFailed],
        post: Callable[[builder.BuildEvent | BuildFailed], None],
        threads: int | None,
    ) -> None:
        self._store, self._history, self._desk, self._post = store, history, desk, post
        self._threads = threads
        self._builder = builder.Builder(post, grace_s=CHILD_GRACE_S)
        self._building: Job | None = None
        self._ready: dict[int, Ready] = {}

    def build(self, action: Build, wish: Wish | None) -> None:
        """Start the build child."""
        job = action.job
        request = wish.request_of(job.fingerprint) if wish else None
        if request is None:
            self._post(BuildFailed(job, "nobody knows how to build it", permanent=True, now_s=time.monotonic()))
            return
        if action.force:
            self._desk.do("forget rejection", lambda: self._history.forgive(job.fingerprint))
        self._building = job
        self._builder.start(job.number, replace(request, force=action.force, again=action.again, missed=action.missed))

    def cancel(self) -> None:
        """End the build child."""
        if self._building is not None:
            self._builder.cancel(self._building.number)
            self._building = None

    def ended(self, event: builder.BuildSucceeded | builder.BuildFailed) -> Built | BuildFailed | None:
        """The machine's event for the child's end; None for news of a build that was cancelled.

        A plan under another name than the job's is none that could be loaded for it.
        """
        job = self._building
        if job is None or event.job_id != job.number:
            return None
        self._building = None
        if isinstance(event, builder.BuildSucceeded):
            return Built(job) if event.fingerprint == job.fingerprint else _renamed(job, event.fingerprint)
        return BuildFailed(job, event.message, event.permanent, time.monotonic())

    def is_current(self, job_id: int) -> bool:
        """Whether the build in flight has this number."""
        return self._building is not None and self._building.number == job_id

    def load(self, job: Job) -> None:
        """Load and warm up on the desk; posts ``Loaded`` or ``LoadFailed``."""
        self._desk.do("load plan", lambda: self._load(job))

    def ready(self, job: Job) -> Ready:
        """What ``Loaded`` announced."""
        return self._ready[job.number]

    def retire(self, job: Job) -> None:
        """Close a detector on the desk: a library may take its time. A stop may have closed it already."""
        if (ready := self._ready.pop(job.number, None)) is not None:
            self._desk.do("close plan", ready.detector.close)

    def remember(self, action: MarkGood | Discard | Strike | Reject, keep: str | None) -> None:
        """Write down how a plan did.

        Args:
            action: what the machine asks for.
            keep: fingerprint that is not deleted to make room; current and previous never are.
        """
        match action:
            case MarkGood(fingerprint):
                self._desk.do("mark plan good", lambda: self._mark_good(fingerprint, keep))
            case Discard(fingerprint, reason):
                log.error("plan %s is put aside: %s", fingerprint[:12], reason)
                self._desk.do("put plan aside", lambda: self._quarantine(fingerprint, reason))
            case Reject(fingerprint, reason):
                log.error("plan %s is rejected: %s", fingerprint[:12], reason)
                self._desk.do("reject plan", lambda: self._history.reject(fingerprint, reason))
            case Strike(fingerprint, reason):
                log.error("plan %s failed: %s", fingerprint[:12], reason)
                self._desk.do("count crash", lambda: self._history.crashed(fingerprint, reason))
            case _:
                assert_never(action)

    def close(self) -> None:
        """End the build child; loaded plans are the desk's to close."""
        self._builder.close()
        for number in tuple(self._ready):
            self._desk.do("close plan", self._ready.pop(number).detector.close)

    def _mark_good(self, fingerprint: str, keep: str | None) -> None:
        self._store.mark_good(fingerprint)
        self._history.put_aside(self._store.put_aside())
        for gone in self._store.prune({fingerprint, keep or fingerprint}):
            log.info("plan %s is deleted to stay under [store] max_bytes", gone[:12])

    def _quarantine(self, fingerprint: str, reason: str) -> None:
        self._store.quarantine(fingerprint, reason)
        self._history.put_aside(self._store.put_aside())

    def _load(self, job: Job) -> Loaded | LoadFailed:
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
        f"plan {job.fingerprint[:12]} was wished for and {built[:12]} was built: the build read this machine's "
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
    return Ready(open_detector(Loadable.of(plan), threads=threads), plan.manifest)
