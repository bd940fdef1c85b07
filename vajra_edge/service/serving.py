"""Serving: the frame loop with the plan that serves, its filters, and its figures. Called by the supervisor alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vajra_edge.capture.mailboxes import Mailboxes
from vajra_edge.detect.detector import Filter
from vajra_edge.engine.request import nms_of
from vajra_edge.pipeline import Exhausted, FrameResult, InferFailed, Pipeline, PipelineCounters, Swapped
from vajra_edge.publish.messages import EngineTag
from vajra_edge.service.beats import Beats
from vajra_edge.service.events import Job
from vajra_edge.service.plans import Ready
from vajra_edge.service.probation import Tally, unfit
from vajra_edge.settings import Settings

DEADLINE_S = 30.0
"""A batch that takes longer is stuck: a slow CPU needs a few seconds for the largest network."""


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
        post: Callable[[Swapped[Served] | InferFailed[Served] | Exhausted], None],
        beats: Beats,
        settings: Settings,
        max_frames: int | None,
    ) -> None:
        self._sink, self._settings = sink, settings
        self._old: Served | None = None
        self._now: Served | None = None
        self._asked: deque[Served] = deque()
        gather_s = settings.service.batch_wait_ms / 1e3
        beat = beats.expect("pipeline", DEADLINE_S)
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
        self._old, self._now = self._now, event.plan
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

    def lost(self, event: InferFailed[Served]) -> bool:
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
        return unfit(self._old.tally.figures(), self._now.tally.figures(), ratio, same_classes=same)

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
        result.plan.tally.add((time.monotonic_ns() - result.frame.captured_ns) / 1e6, len(result.found))


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
